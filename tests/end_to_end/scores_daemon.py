"""The daemon, and every score that its model gave: ``scores_daemon.py CONFIG CSV``.

Appends a line for each window: subject, number on the grid, probability with all its digits.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TextIO

from streamer import daemon
from streamer.config import load
from streamer.hooks import Hooks
from streamer.stages import Score


class WriteScores(Hooks):
    def __init__(self, file: TextIO) -> None:
        self._file = file

    def scored(self, scores: list[Score]) -> None:
        for score in scores:
            self._file.write(f"{score.window.subject},{score.window.k},{score.probability!r}\n")
        self._file.flush()


if __name__ == "__main__":
    config, csv = map(Path, sys.argv[1:])
    logging.basicConfig(level="INFO")
    with csv.open("a") as file:
        sys.exit(daemon.run(load(config), [WriteScores(file)]))
