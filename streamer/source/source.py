"""`SeedLinkSource`: packets of several SeedLink servers as one iterator; connecting, resuming, failing over are inside.

It hands on every record once, in each server's order, and keeps nothing on disk. It does not judge, sort or join the
data, and does not know what has been decided: the daemon gives it resume points and stores new ones.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from streamer.source.address import parse_address
from streamer.source.buffer import Buffer
from streamer.source.progress import Progress, StoredPoints
from streamer.source.resume import ResumePoint
from streamer.source.rotation import Rotation
from streamer.source.selection import parse_pattern
from streamer.source.session import Choice, Connect, Visits, connect
from streamer.source.supervisor import EventKind, OnEvent, Rules, SourceStatus, Supervisor
from streamer.source.transport import Limits
from streamer.stages import Packet, Refused, Subscribed

_log = logging.getLogger(__name__)
_STOP_S = 1.8
"""`stop` waits this long for the threads; what still hangs in a name server's silence dies with the process."""
_TAKE = 256
"""Packets taken at once by `packets`."""


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """One source: a preferred server and its fall-backs, which carry the same stations."""

    urls: tuple[str, ...]
    select: tuple[str, ...]
    """NET.STA[.LOC[.CHA]] with wildcards."""
    silence_s: float = 60.0
    """Not a byte for this long, keep-alives included: the connection is dead."""
    stall_s: float = 600.0
    """No data for this long though the server answers: try the next one. Longer than any record takes to fill."""
    refresh_s: float = 600.0
    backoff_s: tuple[float, float] = (1.0, 2.0)
    """Shortest and longest pause while no server is there: data flow again within 5 s of one's return, two connections
    (the list, then the stream) included."""
    failback_s: float = 600.0
    connect_s: float = 10.0
    max_wait_s: float = 30.0
    """How much disorder the daemon waits for: by so much a resume by time begins earlier."""


def _all(_: str) -> bool:
    return True


def _ignore(_kind: EventKind, _server: str, _cause: str) -> None:
    """Nobody listens."""


class SeedLinkSource:
    """Several sources, one bounded queue, one consumer."""

    def __init__(
        self,
        settings: Sequence[SourceSettings],
        resume: Mapping[tuple[str, str], ResumePoint] | StoredPoints = {},  # noqa: B006 - never written to
        *,
        queue_packets: int = 4096,
        on_event: OnEvent = _ignore,
        wanted: Callable[[str], bool] = _all,
        connect: Connect = connect,
    ) -> None:
        """`resume`: by (server, NET_STA), or a function of the two that is asked when a station is first connected.

        `wanted(NET_STA)` leaves stations out, for shards. Raises AddressError and SelectionError (ValueErrors) for what
        the user wrote wrongly; connects to nothing yet.
        """
        self._buffer: Buffer[Packet | Refused | Subscribed] = Buffer(queue_packets)
        stored = _stored(resume)
        self._supervisors = tuple(self._supervisor(one, stored, on_event, wanted, connect) for one in settings)

    def _supervisor(
        self,
        settings: SourceSettings,
        stored: StoredPoints,
        on_event: OnEvent,
        wanted: Callable[[str], bool],
        connect: Connect,
    ) -> Supervisor:
        addresses = tuple(parse_address(url) for url in settings.urls)
        patterns = tuple(parse_pattern(text) for text in settings.select)
        choice = Choice(patterns, wanted)
        rules = Rules(addresses, choice, settings.refresh_s, settings.failback_s, settings.max_wait_s)
        limits = Limits(settings.connect_s, settings.silence_s, settings.stall_s)
        return Supervisor(
            rules,
            rotation=Rotation(len(addresses), settings.backoff_s, random.random),
            progress=Progress(tuple(address.server for address in addresses), stored),
            deliver=self._buffer.put,
            on_event=on_event,
            visits=Visits(connect, limits),
            probes=Visits(connect, limits),
        )

    def start(self) -> None:
        for supervisor in self._supervisors:
            supervisor.start()

    def stop(self) -> None:
        """Ends all connections within two seconds; what is queued can still be taken."""
        self._buffer.close()
        for supervisor in self._supervisors:
            supervisor.stop()
        deadline_s = time.monotonic() + _STOP_S
        for supervisor in self._supervisors:
            if not supervisor.join(deadline_s):
                _log.warning("%s: still busy when stopped", supervisor.status().servers[0])

    def take(self, limit: int, timeout_s: float) -> list[Packet | Refused | Subscribed]:
        """Up to `limit` of what has come, waiting for the first at most `timeout_s`; [] then, and when stopped."""
        return self._buffer.take(limit, timeout_s)

    def packets(self) -> Iterator[Packet | Refused | Subscribed]:
        """Endless until `stop`; then what is left in the queue."""
        while True:
            taken = self._buffer.take(_TAKE, timeout_s=1.0)
            if not taken and self._buffer.closed:
                return
            yield from taken

    def expected(self) -> Mapping[str, frozenset[str]]:
        """FDSN source id without component -> components, as the servers list them (or the configuration does)."""
        together: dict[str, frozenset[str]] = {}
        for supervisor in self._supervisors:
            for subject, components in supervisor.expected().items():
                together[subject] = together.get(subject, frozenset()) | components
        return together

    def status(self) -> tuple[SourceStatus, ...]:
        """One for each of the settings, in their order."""
        return tuple(supervisor.status() for supervisor in self._supervisors)

    @property
    def queued(self) -> int:
        return len(self._buffer)


def _stored(resume: Mapping[tuple[str, str], ResumePoint] | StoredPoints) -> StoredPoints:
    if callable(resume):
        return resume
    return lambda server, station: resume.get((server, station))
