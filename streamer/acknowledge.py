"""The resume point: the end of the contiguous run of packets whose windows are all decided.

Per server and station, since sequence numbers belong to one station of one server. Pure; the outbox keeps the points,
the source asks the server again from there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from streamer.source.resume import V3_NUMBERS, ResumePoint
from streamer.stages import Cursor

Key = tuple[str, str]
"""Server and station."""


@dataclass(frozen=True, slots=True)
class _Received:
    sequence: int
    subject: str | None
    """None: this packet has no part in any window."""
    start_ns: int
    end_ns: int


class _Line:
    """One station's packets in the order of arrival, from the first undecided one on."""

    def __init__(self, first: int) -> None:
        self.undecided: deque[_Received] = deque()
        self.decided = first - 1 if first else V3_NUMBERS - 1
        self.decided_ns: int | None = None
        """Start of the packet `decided`, where this run has seen it."""
        self.newest_ns = 0
        self.subjects: set[str] = set()
        self.changed = True


class Acknowledgement:
    """Follows packets from their arrival to the decision on their last window."""

    def __init__(self, horizon_ns: int) -> None:
        """``horizon_ns``: a packet this much older than what its station has decided cannot be waited for: its
        channel is dead, and no ring holds it any longer."""
        self._horizon_ns = horizon_ns
        self._lines: dict[Key, _Line] = {}
        self._begun: dict[Key, ResumePoint] = {}
        """Asked for from now on, and no packet yet: told once."""

    def subscribed(self, server: str, station: str, newest_ns: int | None) -> None:
        """A station was asked for from now on; ``newest_ns``: the newest sample that the server had."""
        if (server, station) not in self._lines:
            self._begun[server, station] = ResumePoint(None, newest_ns)

    @property
    def waiting(self) -> int:
        """Packets received and not yet decided."""
        return sum(len(line.undecided) for line in self._lines.values())

    def received(self, cursor: Cursor, subject: str | None, start_ns: int = 0, end_ns: int = 0) -> bool:
        """Whether it is the first of its station from this server."""
        key = (cursor.server, cursor.station)
        first = key not in self._lines
        if first:
            self._lines[key] = _Line(cursor.sequence)
        line = self._lines[key]
        line.undecided.append(_Received(cursor.sequence, subject, start_ns, end_ns))
        if subject is not None:
            line.subjects.add(subject)
            line.newest_ns = max(line.newest_ns, end_ns)
        return first

    def points(self, undecided_from: Callable[[str], int]) -> Iterator[tuple[Key, ResumePoint]]:
        """The points that moved since the last call. ``undecided_from`` gives, for a subject, the time of the oldest
        sample that a window still to be decided needs."""
        begun, self._begun = self._begun, {}
        yield from ((key, point) for key, point in begun.items() if key not in self._lines)
        for key, line in self._lines.items():
            self._decide(line, {subject: undecided_from(subject) for subject in line.subjects})
            if line.changed:
                line.changed = False
                oldest = min((p.start_ns for p in line.undecided if p.subject is not None), default=line.newest_ns)
                yield key, ResumePoint(line.decided, oldest or None, line.decided_ns)

    def _decide(self, line: _Line, undecided_from: dict[str, int]) -> None:
        # Not by the newest packet: a wrong time stamp on one must not give up all the others.
        given_up_ns = max(undecided_from.values(), default=0) - self._horizon_ns
        while line.undecided:
            packet = line.undecided[0]
            if packet.subject is not None and packet.end_ns >= max(given_up_ns, undecided_from[packet.subject]):
                return
            line.undecided.popleft()
            line.decided, line.changed = packet.sequence, True
            line.decided_ns = packet.start_ns or None
