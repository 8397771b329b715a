"""One scan: pieces are scored by whoever there is, and decided here, in the order of the data."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby

from streamer.archive import Part
from streamer.composition import Scorer
from streamer.config import Config
from streamer.file_source import FileSource
from streamer.inventory import read_stations
from streamer.objects import StoreError
from streamer.outbox import Outbox
from streamer.pipeline import EXPECTED
from streamer.scan import offline
from streamer.scan_merge import Merge
from streamer.scan_piece import PieceScorer, Scored, newest
from streamer.scan_plan import Piece, plan
from streamer.scan_pool import Engine, Job, ProcessDiedError, in_turn, side_by_side
from streamer.scan_progress import Progress
from streamer.seldom import Seldom

DECIDED = "scanned"
"""In the outbox: the newest window that was decided."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Work:
    config: Config
    scorer: Scorer
    outbox: Outbox
    parts: tuple[Part, ...]
    begin_ns: int
    end_ns: int
    engine: Engine | None = None
    """Who scores, where it is not processes of this machine."""
    faults: list[str] = field(default_factory=list)
    """What could not be read."""
    _seldom: Seldom = field(default_factory=lambda: Seldom(log))

    def run(self, processes: int, progress: Progress, stopping: Callable[[], bool]) -> bool:
        """Whether it came to the end of the archive. The outbox holds the alerts, and how far each station is."""
        saved = self.outbox.load(self.scorer.fingerprint)
        stations = read_stations(self.config.inventory, self.config.places)
        pipeline = offline(self.config, self.scorer, stations, FileSource.of([]), self.outbox, saved, progress)
        merge = Merge({s: state.last_k for s, state in saved.triggers.items() if state.last_k is not None})
        pieces = self._left()
        progress.begin(len(pieces), self.scorer.grid.hop / self.scorer.grid.rate)
        sizes = Counter(piece.first for piece in pieces)
        for group in self._together(self._scored(pieces, processes, stopping), sizes):
            for items in merge.slices(group):
                pipeline.take(items)
            pipeline.settle()
            self._remember(group)
            self._note(group, progress)
        if progress.left:
            return False
        pipeline.finish()
        return True

    def _together(self, scored: Iterator[Scored], sizes: Mapping[int, int]) -> Iterator[list[Scored]]:
        """Pieces that begin with one window, once all of them are there: a station that had its say would be ahead."""
        try:
            for first, group in groupby(scored, lambda piece: piece.first):
                found = list(group)
                if len(found) == sizes[first]:
                    yield found
        except (ProcessDiedError, StoreError) as error:
            self.faults.append(str(error))

    def _left(self) -> list[Piece]:
        """Those that an earlier run has not decided to their end."""
        decided = self.outbox.get(DECIDED)
        every = self.scorer.thresholds.in_a_row
        pieces = plan(self.parts, self.scorer.grid, every, self.begin_ns, self.end_ns)
        return [piece for piece in pieces if decided is None or piece.last > int(decided)]

    def _remember(self, group: Iterable[Scored]) -> None:
        """As far as there were data: an archive may grow, and what lies after them is looked at again then."""
        newest_k = max((newest(item) for piece in group for item in piece.items), default=None)
        if newest_k is not None:
            self.outbox.set(DECIDED, str(newest_k))

    def _scored(self, pieces: list[Piece], processes: int, stopping: Callable[[], bool]) -> Iterator[Scored]:
        update = {"sha256": self.scorer.identity.sha256, "device": self.scorer.model.device}  # as it was tried here
        pinned = self.config.model.model_copy(update=update)
        job = Job(self.config.model_copy(update={"model": pinned}), time.time_ns(), self.begin_ns, self.end_ns)
        if self.engine is not None:
            return self.engine(job, pieces, stopping)
        processes = min(processes, len(pieces))
        if processes > 1:
            return side_by_side(job, pieces, processes, stopping)
        stations = read_stations(self.config.inventory, self.config.places)
        scorer = PieceScorer(self.config, self.scorer, stations, job.received_ns, self.begin_ns, self.end_ns)
        return in_turn(scorer, pieces, stopping)

    def _note(self, pieces: Iterable[Scored], progress: Progress) -> None:
        for piece in pieces:
            self.faults += [fault for fault in piece.faults if fault not in self.faults]
            progress.done(piece.windows)
            for (what, reason), count in piece.unused.items():
                if reason not in EXPECTED:
                    self._seldom.warning((what, reason), time.monotonic(), f"{what}: {count} not used: {reason}")
