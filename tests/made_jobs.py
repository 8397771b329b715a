"""What processes elsewhere are given instead of a real detector: one that hears loudness, and ways to go wrong.

They find a folder of the test's in ``config.state``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from made_scorer import loud_scorer

from streamer.composition import Scorer
from streamer.config import Config, ConfigError
from streamer.inventory import Stations
from streamer.objects import StoreError
from streamer.scan_piece import PieceScorer, Scored
from streamer.scan_plan import Piece
from streamer.scan_pool import Job
from streamer.trigger import Thresholds

HALT_S = 240.0


def scorer_here(config: Config) -> Scorer:
    return loud_scorer(40, 3.0, Thresholds(on=0.9, off=0.5, in_a_row=2, release=2, dead_k=15, longest_k=60))


class LoudJob(Job):
    def scorer(self) -> PieceScorer:
        return self.of(PieceScorer)

    def of(self, kind: type[PieceScorer]) -> PieceScorer:
        made = kind(
            self.config, scorer_here(self.config), Stations({}, {}), self.received_ns, self.begin_ns, self.end_ns
        )
        made.folder = self.config.state  # type: ignore[attr-defined]
        return made


class Odd(PieceScorer):
    folder: Path

    def score(self, piece: Piece, stopping: Callable[[], bool] = lambda: False) -> Scored | None:
        self.before(piece)
        return super().score(piece, stopping)

    def before(self, piece: Piece) -> None: ...

    def first_time(self, name: str) -> bool:
        """In any process."""
        try:
            (self.folder / name).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


class Halting(Odd):
    """A process in the midst waits for its end, once, and says which it is."""

    def before(self, piece: Piece) -> None:
        self.first_time(f"piece {piece.first} {min(piece.subjects)}")
        if len(list(self.folder.glob("piece *"))) >= 7 and self.first_time("halted"):
            (self.folder / "number").write_text(f"{os.getpid()}")
            (self.folder / "number").rename(self.folder / "pid")
            time.sleep(HALT_S)


class HaltingJob(LoudJob):
    def scorer(self) -> PieceScorer:
        return self.of(Halting)


class Refusing(Odd):
    def before(self, piece: Piece) -> None:
        raise ValueError("a made fault")


class RefusingJob(LoudJob):
    def scorer(self) -> PieceScorer:
        return self.of(Refusing)


class Storeless(Odd):
    def before(self, piece: Piece) -> None:
        raise StoreError("s3://made: does not answer")


class StorelessJob(LoudJob):
    def scorer(self) -> PieceScorer:
        return self.of(Storeless)


class Ending(Odd):
    def before(self, piece: Piece) -> None:
        os._exit(3)


class EndingJob(LoudJob):
    def scorer(self) -> PieceScorer:
        return self.of(Ending)


class OnGpuJob(LoudJob):
    """Ray tells a process which GPUs are its own, and others that there are none."""

    def scorer(self) -> PieceScorer:
        if os.environ.get("CUDA_VISIBLE_DEVICES") != "0":
            raise ConfigError("no GPU was asked for")
        return self.of(PieceScorer)
