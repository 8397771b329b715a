"""Scores one piece of an archive: the daemon's own stations, cutter and worker, in any process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from streamer.archive import DAY_NS, END_NS
from streamer.composition import Scorer, policy
from streamer.config import Config
from streamer.file_source import ArchiveSource, Item
from streamer.hooks import Hooks
from streamer.inventory import Stations
from streamer.scan_passes import Reach, TwoPasses, bare
from streamer.scan_plan import BEFORE_NS, Piece
from streamer.stages import Packet, Passed, Refused, Score, Unscored, Unused, Window
from streamer.station import Policy, Station
from streamer.trigger import AGAIN_S, onset_ns
from streamer.worker import Cut, Decided, Worker

PACKETS = 256
"""Between two looks at whether to stop."""
KEPT = 2_000
"""Windows of a subject whose samples a piece keeps for onset and size, 25 kB each: a hundred earthquakes. Where the
probability never falls, all of them would be kept, and no size is told of what opens after these."""


@dataclass(slots=True)
class Scored:
    """What a piece came to."""

    first: int
    last: int
    """Its windows."""
    items: list[Decided] = field(default_factory=list)
    """Of each subject in the order of their numbers. An outage that goes on after the piece is left out: it is known of
    once data come again."""
    windows: int = 0
    """Scored, or passed over."""
    faults: list[str] = field(default_factory=list)
    """What could not be read."""
    unused: Counter[tuple[str, Unused]] = field(default_factory=Counter)
    """Samples by channel and reason; records, by what is said of them."""


class PieceScorer:
    def __init__(
        self,
        config: Config,
        scorer: Scorer,
        stations: Stations,
        received_ns: int,
        begin_ns: int = 0,
        end_ns: int = END_NS,
    ) -> None:
        """``received_ns``: when the scan began, by this machine's clock. ``begin_ns``, ``end_ns``: records outside are left
        out."""
        self._policy, self._scorer, self._stations = policy(config), scorer, stations
        self._received_ns, self._begin_ns, self._end_ns = received_ns, begin_ns, end_ns
        self._batch = config.worker.batch_size
        self._worker = Worker(scorer.model, self._batch, Hooks(), scorer.earthquake)
        if scorer.model.device != "cpu":
            scorer.model.warm_up(self._worker.shapes)  # there alone it is more than compiling: graphs are recorded
        self.reach = reach(scorer)

    def score(self, piece: Piece, stopping: Callable[[], bool] = lambda: False) -> Scored | None:
        """None where it was stopped."""
        from_ns = max(self._scorer.grid.start_ns(piece.first) - BEFORE_NS, self._begin_ns)
        source = ArchiveSource(piece.parts, self._received_ns, from_ns, self._begin_ns, self._end_ns)
        reading = _Reading(
            piece, self._scorer, _far_ns(self._policy), lambda subject: self._row(piece, source, subject)
        )
        while not reading.is_done(source.longest_ns) and (items := source.take(PACKETS)):
            if stopping():
                return None
            reading.take(items)
        scored = reading.result(source.goes_on)
        scored.faults += source.faults
        return scored

    def _row(self, piece: Piece, source: ArchiveSource, subject: str) -> _Row:
        seen = {**source.earlier.get(subject, {}), **piece.earlier.get(subject, {})}
        station = Station(
            subject,
            self._scorer.grid,
            self._policy,
            expected=piece.expected.get(subject, frozenset()),
            orient=self._stations.orient(subject),
            next_k=piece.first - self.reach.release if seen else None,
            seen=seen,
        )
        return _Row(station, TwoPasses(lambda windows: self._worker.score([*windows]), self.reach, self._batch))


def reach(scorer: Scorer) -> Reach:
    """What the detector's trigger may look at."""
    limits, grid = scorer.thresholds, scorer.grid
    return Reach(limits.in_a_row, limits.release, limits.off, round(max(AGAIN_S) * grid.rate / grid.hop))


def _far_ns(policy: Policy) -> int:
    """A record that starts so long after a window's end, and a record's length, is far from a station's clock that has not
    decided the window."""
    return max(policy.jump_ns, 2 * policy.max_wait_ns) + policy.max_wait_ns + BEFORE_NS


@dataclass(slots=True)
class _Row:
    station: Station
    passes: TwoPasses


class _Reading:
    """One piece on its way through the stations."""

    def __init__(self, piece: Piece, scorer: Scorer, far_ns: int, row: Callable[[str], _Row]) -> None:
        """``far_ns``: as `_far_ns` tells."""
        self._piece, self._far_ns, self._make_row = piece, far_ns, row
        self._grid, self._in_a_row = scorer.grid, scorer.thresholds.in_a_row
        self._ends_ns = self._grid.end_ns(piece.last)
        self._counts_ns = self._grid.start_ns(piece.first), self._grid.start_ns(piece.last + 1)
        """Packets that end in here are this piece's, and not also of its neighbours, where something of them is left out."""
        self._rows: dict[str, _Row] = {}
        self._time_ns = 0
        self._kept: Counter[str] = Counter()
        self._found = Scored(piece.first, piece.last)

    def is_done(self, longest_ns: int) -> bool:
        """Nothing that comes now can matter to its windows. ``longest_ns``: of a record, which comes by its end and may hold the
        first samples of a station."""
        if self._time_ns <= self._ends_ns + longest_ns:
            return False
        settled = all(row.station.next_k is None or self._is_settled(row) for row in self._rows.values())
        return settled or self._time_ns > self._ends_ns + 2 * longest_ns + self._far_ns

    def _is_settled(self, row: _Row) -> bool:
        """Whether all its windows are cut."""
        return row.station.next_k is not None and row.station.next_k > self._piece.last

    def take(self, items: Iterable[Item]) -> None:
        touched: dict[str, _Row] = {}
        for item in items:
            if isinstance(item, Refused):
                self._found.unused[item.detail, item.reason] += 1  # by several pieces, where they share it
            elif isinstance(item, Packet) and (row := self._insert(item)) is not None:
                touched[item.subject] = row
        for row in touched.values():
            for cut in row.station.cut():
                self._feed(row.passes, cut)

    def result(self, goes_on: Callable[[str, int], bool]) -> Scored:
        for subject, row in self._rows.items():
            goes_on_later = subject in self._piece.later or goes_on(subject, row.station.newest_ns)
            if goes_on_later and not self._is_settled(row):
                self._cut_to_the_end(row)
            self._keep(row.passes.flush())
        return self._found

    def _cut_to_the_end(self, row: _Row) -> None:
        """As the next data will, whenever they come."""
        row.station.advance(self._ends_ns + DAY_NS)
        for cut in row.station.cut():
            self._feed(row.passes, cut)

    def _insert(self, packet: Packet) -> _Row | None:
        self._time_ns = max(self._time_ns, packet.end_ns)
        row = self._rows.get(packet.subject)
        if row is None:
            if packet.start_ns > self._ends_ns:
                return None
            row = self._rows[packet.subject] = self._make_row(packet.subject)
        if self._is_settled(row):
            return None

        def count(reason: Unused, samples: int) -> None:
            before = reason is Unused.LATE and packet.start_ns < self._counts_ns[0]  # was of use to the piece before
            if self._counts_ns[0] <= packet.end_ns < self._counts_ns[1] and not before:
                self._found.unused[packet.channel, reason] += samples

        row.station.insert(packet, count)
        return row

    def _feed(self, passes: TwoPasses, item: Cut) -> None:
        first, last = self._piece.first - passes.release, self._piece.last
        if newest(item) <= last and (within := clipped(item, first, last)) is not None:
            self._keep(passes.add(within))

    def _keep(self, items: Iterable[Decided]) -> None:
        for item in items:
            if (within := clipped(item, self._piece.first, self._piece.last)) is not None:
                self._found.items.append(self._light(within))
                if not isinstance(within, Unscored):
                    self._found.windows += 1 if isinstance(within, Score) else within.last - within.first + 1

    def _light(self, item: Decided) -> Decided:
        """Without samples, from so many windows on."""
        if not isinstance(item, Score) or not item.window.samples.size:
            return item
        self._kept[item.subject] += 1
        if self._kept[item.subject] <= KEPT:
            return item
        first = item.k - self._in_a_row + 1
        return replace(item, onset_ns=onset_ns(self._grid, item.window, first), window=bare(item.window))


def newest(item: Cut | Decided) -> int:
    """The last window that it is of: when it is known."""
    return item.k if isinstance(item, Window | Score) else item.last


Span = TypeVar("Span", bound=Window | Score | Unscored | Passed)


def clipped(item: Span, first: int, last: int) -> Span | None:
    """What of it lies within windows [first, last]."""
    if isinstance(item, Window | Score):
        return item if first <= item.k <= last else None
    if item.last < first or item.first > last:
        return None
    return replace(item, first=max(item.first, first), last=min(item.last, last))
