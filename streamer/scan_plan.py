"""An archive in pieces that any process can score: some hours of the grid, of the stations whose files are the same. Pure.

A piece begins a little early, where a station's rings have filled by the time of its first window, and knows the files after
it too: a window at the edge of a gap waits until data come again, and what is scored then depends on whether any do.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from quake.times import NS
from streamer.archive import APART_NS, END_NS, Part
from streamer.grid import Grid

PIECE_NS = 3 * 3_600 * NS
"""About: long against the opening of a day's file, short against a night, and what it comes to fits the memory."""
BEFORE_NS = 600 * NS
"""Read before a piece's first window: a window, the longest filter, what a detection may be open from, and records enough
for a station to know its clock."""
LONGEST_NS = 3_600 * NS
"""A record that ends after the span's begin may have begun so long before it."""
AFTER_NS = APART_NS
"""Files that begin so long after it have no sample that its windows need."""

Channel = tuple[str, str]
"""(subject, component)."""


@dataclass(frozen=True, slots=True)
class Piece:
    first: int
    last: int
    """Windows [first, last] of the grid."""
    parts: tuple[Part, ...]
    """Files that reach into it, or begin soon after it."""
    expected: Mapping[str, frozenset[str]]
    """Subject -> components that come somewhere in the archive."""
    earlier: Mapping[str, Mapping[str, int]]
    """Subject -> component -> about when it began, of what has files before those."""
    later: frozenset[str]
    """Subjects that have files after those."""

    @property
    def subjects(self) -> frozenset[str]:
        return frozenset(subject for part in self.parts for subject in part.subjects)


def plan(parts: Iterable[Part], grid: Grid, multiple: int, begin_ns: int = 0, end_ns: int = END_NS) -> Iterator[Piece]:
    """In the order of time. ``multiple``: of windows, that a piece has."""
    windows = -(-PIECE_NS // (grid.hop_ns * multiple)) * multiple
    groups = [_Group(group) for group in grouped(parts)]
    numbers = [
        (number, place)
        for place, group in enumerate(groups)
        for number in group.numbers(grid, windows, begin_ns, end_ns)
    ]
    for number, place in sorted(numbers):
        yield groups[place].piece(grid, number * windows, (number + 1) * windows - 1)


def grouped(parts: Iterable[Part]) -> list[list[Part]]:
    """Parts that share a subject, directly or by others, together: a file of many stations is read once for all of them."""
    leaders: dict[str, str] = {}

    def leader(subject: str) -> str:
        while leaders.setdefault(subject, subject) != subject:
            subject = leaders[subject]
        return subject

    found = list(parts)
    for part in found:
        first, *others = sorted(part.subjects)
        for other in others:
            leaders[leader(other)] = leader(first)
    groups: dict[str, list[Part]] = defaultdict(list)
    for part in found:
        groups[leader(min(part.subjects))].append(part)
    return [groups[name] for name in sorted(groups)]


class _Group:
    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = sorted(parts, key=lambda part: (part.begins_ns, str(part.path)))
        self._begins = [part.begins_ns for part in self._parts]
        self._longest_ns = max(part.ends_ns - part.begins_ns for part in self._parts)
        self._first: dict[Channel, Part] = {}
        self._last: dict[Channel, Part] = {}
        for part in self._parts:
            for channel in part.channels:
                self._first.setdefault(channel, part)
                self._last[channel] = part
        self._expected: dict[str, frozenset[str]] = defaultdict(frozenset)
        for subject, component in self._first:
            self._expected[subject] |= {component}

    def numbers(self, grid: Grid, windows: int, begin_ns: int, end_ns: int) -> set[int]:
        """Of the pieces that hold something."""
        found: set[int] = set()
        for part in self._parts:
            span = (max(part.begins_ns, begin_ns - LONGEST_NS), min(part.ends_ns, end_ns))
            first, last = (grid.first_at_or_after(time_ns) // windows for time_ns in span)
            found.update(range(first, last + 1))
        return found

    def piece(self, grid: Grid, first: int, last: int) -> Piece:
        begins_ns, ends_ns = grid.start_ns(first) - BEFORE_NS, grid.end_ns(last) + AFTER_NS
        low, high = bisect_left(self._begins, begins_ns - self._longest_ns), bisect_right(self._begins, ends_ns)
        parts = tuple(part for part in self._parts[low:high] if part.ends_ns >= begins_ns)
        later = frozenset(subject for (subject, _), part in self._last.items() if part.begins_ns > ends_ns)
        return Piece(first, last, parts, dict(self._expected), self._earlier(begins_ns), later)

    def _earlier(self, before_ns: int) -> dict[str, dict[str, int]]:
        """Of channels whose first file is over by then: of those that began with one file, the one that lasts counts as
        later."""
        found: dict[str, dict[str, int]] = defaultdict(dict)
        over = [(p.begins_ns, self._last[c].ends_ns, c) for c, p in self._first.items() if p.ends_ns < before_ns]
        for n, (begins_ns, _, (subject, component)) in enumerate(sorted(over)):
            found[subject][component] = begins_ns + n
        return dict(found)
