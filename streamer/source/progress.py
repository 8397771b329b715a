"""How far each station of a source has been received in this life of the process, and what an earlier life left behind.

Pure bookkeeping for `resume.plan`: no sockets, no files. It follows what was *received*; what has been *decided* is the
daemon's knowledge, which comes in through `stored` and is used until the first packet of this life.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from streamer.source.resume import Known, ResumePoint
from streamer.stages import NS, Cursor, Packet

StoredPoints = Callable[[str, str], ResumePoint | None]
"""(server, NET_STA) -> the point an earlier life left, or None."""
_ALIVE_NS = 600 * NS
"""A channel whose newest sample is older than this against its station's newest is taken for dead, not for late: asking
another server for its data would bring ten minutes of all other channels again."""


@dataclass(slots=True)
class _Received:
    server: str
    sequence: int
    packet_ns: int | None


class Progress:
    def __init__(self, servers: tuple[str, ...], stored: StoredPoints) -> None:
        self._servers = servers
        self._stored = stored
        self._received: dict[str, _Received] = {}
        self._ends: dict[str, dict[str, int]] = defaultdict(dict)
        self._begun: dict[tuple[str, str], ResumePoint] = {}
        self._doubted: Cursor | None = None

    def subscribed(self, server: str, station: str, newest_ns: int | None) -> None:
        """The station was asked for from now on, when the server's newest sample was of `newest_ns`."""
        self._begun[server, station] = ResumePoint(None, newest_ns)

    def received(self, cursor: Cursor, packet: Packet | None) -> None:
        """One more record has been handed on; `packet` is None for one that was refused."""
        last = _Received(cursor.server, cursor.sequence, packet.start_ns if packet else None)
        self._received[cursor.station] = last
        if packet is not None:
            self._ends[cursor.station][packet.channel] = packet.end_ns

    def doubted(self, cursor: Cursor) -> bool:
        """Whether this record could not be read when it came before, either; notes that it could not."""
        again, self._doubted = self._doubted == cursor, cursor
        return again

    def passed(self, stations: Iterable[str], cursor: Cursor, packet_ns: int | None) -> None:
        """A server that counts all stations in one row has sent these everything up to `cursor`, whosever that was."""
        for station in stations:
            self._received[station] = _Received(cursor.server, cursor.sequence, packet_ns)

    def known(self, server: str, station: str) -> Known:
        own = self._received.get(station)
        if own is None:
            return self._from_before(server, station)
        time_ns = self._oldest_missing_ns(station)
        if time_ns is None:
            time_ns = max(self._stored_times(station), default=None)
        if own.server == server:
            return Known(ResumePoint(own.sequence, time_ns, own.packet_ns))
        return Known(None, elsewhere_ns=time_ns)

    def _from_before(self, server: str, station: str) -> Known:
        """A point that another server's outdates is no use: its number lies before what is decided already."""
        here = self._stored(server, station) or self._begun.get((server, station))
        newest_ns = max([*self._stored_times(station), *self._begun_times(station)], default=None)
        if here is None or (here.time_ns is not None and newest_ns is not None and newest_ns > here.time_ns):
            return Known(None, elsewhere_ns=newest_ns)
        return Known(here, elsewhere_ns=newest_ns)

    def _stored_times(self, station: str) -> list[int]:
        points = (self._stored(server, station) for server in self._servers)
        return [point.time_ns for point in points if point is not None and point.time_ns is not None]

    def _begun_times(self, station: str) -> list[int]:
        """Of "from now on": said to one server, it is not said anew to another."""
        return [p.time_ns for (_, name), p in self._begun.items() if name == station and p.time_ns is not None]

    def _oldest_missing_ns(self, station: str) -> int | None:
        ends = self._ends.get(station)
        if not ends:
            return None
        newest_ns = max(ends.values())
        return min(end_ns for end_ns in ends.values() if end_ns >= newest_ns - _ALIVE_NS)
