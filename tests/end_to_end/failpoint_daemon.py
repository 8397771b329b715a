"""The daemon, killed from within at a named moment: ``failpoint_daemon.py CONFIG NAME N WITNESS``.

Kills itself with SIGKILL when the hook NAME is called for the N-th time, having written WITNESS: the drill checks that it was hit.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from streamer import daemon
from streamer.config import load
from streamer.hooks import Hooks


class KillAt(Hooks):
    def __init__(self, name: str, count: int, witness: Path) -> None:
        self._left, self._witness = count, witness
        setattr(self, name, self._reached)

    def _reached(self, *arguments: Any) -> None:
        if arguments and arguments[0] == []:
            return  # a commit without alerts loses nothing that could be lost
        self._left -= 1
        if self._left == 0:
            self._witness.write_text("hit")
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    config, name, count, witness = sys.argv[1:]
    logging.basicConfig(level="INFO")
    sys.exit(daemon.run(load(Path(config)), [KillAt(name, int(count), Path(witness))]))
