"""Ends a process whose pipeline does not come round any more: a daemon that hangs looks alive, and nobody is woken.

Whoever started it (systemd, Kubernetes) starts it again, and it goes on from the outbox. What hangs stands in the log:
every thread's trace. systemd's own watchdog is fed from the same place.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from streamer import systemd
from streamer.hooks import Hooks

HUNG_S = 180.0
"""The pipeline comes round several times a second, and waits for no network: three minutes are no load."""
FED_S = 1.0
"""How often systemd is told."""
STATUS = 1

log = logging.getLogger(__name__)


def end_process() -> None:
    """At once: threads that hang would hold up any other way to end."""
    os._exit(STATUS)


class Watchdog(Hooks):
    """Watches from when it is entered; the first round starts the clock."""

    def __init__(self, hung_s: float = HUNG_S, end: Callable[[], None] = end_process) -> None:
        self._hung_s, self._end = hung_s, end
        self._round_s: float | None = None
        self._fed_s = 0.0
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        self._thread.join()

    def tick(self) -> None:
        self._round_s = now_s = time.monotonic()
        if now_s - self._fed_s >= FED_S:
            self._fed_s = now_s
            systemd.notify("WATCHDOG=1")

    def _watch(self) -> None:
        while not self._left.wait(self._hung_s / 10):
            if self._round_s is not None and time.monotonic() - self._round_s > self._hung_s:
                log.critical("the pipeline has not come round for %g s: ending the process", self._hung_s)
                faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr)
                self._end()
                return
