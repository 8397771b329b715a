"""The daemon with stages that fail: ``faulty_daemon.py CONFIG raise|hang N FOR``.

When the N-th batch comes back from the model, that stage raises, or hangs; ``FOR`` says how many such batches in a row.
A pipeline that hangs is given up after ten seconds here.
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
from pathlib import Path

from streamer import daemon
from streamer.config import load
from streamer.hooks import Hooks
from streamer.stages import Score


class Fail(Hooks):
    def __init__(self, how: str, first: int, times: int) -> None:
        self._how, self._first, self._last = how, first, first + times
        self._count = 0

    def scored(self, scores: list[Score]) -> None:
        self._count += 1
        if not self._first <= self._count < self._last:
            return
        if self._how == "hang":
            threading.Event().wait()
        raise RuntimeError("a stage failed, as it was told to")


if __name__ == "__main__":
    path, how, first, times = sys.argv[1:]
    logging.basicConfig(level="INFO")
    daemon.Watchdog = functools.partial(daemon.Watchdog, 10.0)  # type: ignore[misc]
    daemon.AFTER_FAULT_S = 0.1
    try:
        sys.exit(daemon.run(load(Path(path)), [Fail(how, int(first), int(times))]))
    except RuntimeError:
        logging.critical("given up", exc_info=True)
        sys.exit(1)
