"""Pieces of an archive scored by as many processes as there are cores; the answers come in the order of the pieces.

Processes, not threads: placing samples and cutting windows is Python, and would share one core.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event

from streamer import logs
from streamer.composition import load_scorer
from streamer.config import Config
from streamer.inventory import read_stations
from streamer.scan_piece import PieceScorer, Scored
from streamer.scan_plan import Piece

AHEAD = 2
"""Pieces for each process that are given out before they are asked for: what they came to waits in memory."""
LOOK_S = 0.2
"""How soon a stop is noticed."""
DIED = (
    "a process of the scan ended by itself; if it said nothing, memory may have been short: fewer --processes need less"
)


@dataclass(frozen=True, slots=True)
class Job:
    """What a process needs to score pieces as another does."""

    config: Config
    received_ns: int
    begin_ns: int
    end_ns: int

    def scorer(self) -> PieceScorer:
        stations = read_stations(self.config.inventory, self.config.places)
        return PieceScorer(
            self.config, load_scorer(self.config), stations, self.received_ns, self.begin_ns, self.end_ns
        )


Engine = Callable[[Job, Sequence[Piece], Callable[[], bool]], Iterator[Scored]]
"""Scores pieces; answers in their order. Asked now and then whether to stop, it ends early."""


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))


def in_turn(scorer: PieceScorer, pieces: Iterable[Piece], stopping: Callable[[], bool]) -> Iterator[Scored]:
    """In this process; ends early where it is to stop."""
    for piece in pieces:
        scored = None if stopping() else scorer.score(piece, stopping)
        if scored is None:
            return
        yield scored


class ProcessDiedError(Exception):
    """One of the processes ended by itself, or was ended."""


def side_by_side(job: Job, pieces: Iterable[Piece], processes: int, stopping: Callable[[], bool]) -> Iterator[Scored]:
    """The same by several. Raises `ProcessDiedError`."""
    context = get_context("spawn")  # a fork would take torch's threads along, dead
    stop = context.Event()
    with ExitStack() as stack:
        pool = stack.enter_context(ProcessPoolExecutor(processes, context, _begin, (job, stop, *logs.as_here())))
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        stack.callback(stop.set)
        try:
            yield from _answers(pool, iter(pieces), processes * AHEAD, stopping)
        except BrokenProcessPool as error:
            raise ProcessDiedError(DIED) from error


def _answers(
    pool: ProcessPoolExecutor, pieces: Iterator[Piece], ahead: int, stopping: Callable[[], bool]
) -> Iterator[Scored]:
    waiting = deque[Future[Scored | None]]()
    while True:
        room = range(ahead - len(waiting))
        waiting += [pool.submit(_score, piece) for _, piece in zip(room, pieces, strict=False)]
        scored = _answer(waiting.popleft(), stopping) if waiting else None
        if scored is None:
            return
        yield scored


def _answer(future: Future[Scored | None], stopping: Callable[[], bool]) -> Scored | None:
    while not stopping():
        if wait([future], LOOK_S).done:
            return future.result()
    return None


_scorer: PieceScorer
_stop: Event


def _begin(job: Job, stop: Event, log_level: str, log_json: bool) -> None:
    """In a new process, which Ctrl-C reaches too: its parent tells it to stop, and takes it along however it ends."""
    global _scorer, _stop
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent_process(),), daemon=True).start()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    logging.disable(logging.WARNING)  # of what the configuration comes to: the parent has said so
    _scorer, _stop = job.scorer(), stop
    logging.disable(logging.NOTSET)
    logs.set_up(log_level, log_json)


def _end_with(parent: BaseProcess | None) -> None:
    if parent is not None:
        parent.join()
        os._exit(1)


def _score(piece: Piece) -> Scored | None:
    return _scorer.score(piece, _stop.is_set)
