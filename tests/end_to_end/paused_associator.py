"""An associator that stops itself at a named moment: ``paused_associator.py CONFIG N WITNESS``.

SIGSTOP, as of a machine that is suspended, when it is about to publish for the N-th time, having written WITNESS.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

from quake.alerts import Alert
from streamer.association import program
from streamer.association.metrics import AssociatorMetrics
from streamer.config import load


class PausedAt(AssociatorMetrics):
    def __init__(self, count: int, witness: Path) -> None:
        super().__init__()
        self._left, self._witness = count, witness

    def publishing(self, alert: Alert) -> None:
        self._left -= 1
        if self._left == 0:
            self._witness.write_text(f"{alert.id} {alert.revision}")
            os.kill(os.getpid(), signal.SIGSTOP)


if __name__ == "__main__":
    config, count, witness = sys.argv[1:]
    logging.basicConfig(level="INFO")
    sys.exit(program.run(load(Path(config)), PausedAt(int(count), Path(witness))))
