"""How far a scan is: a bar on a terminal, a line in the log now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any

from quake.alerts import Alert
from streamer.hooks import Hooks

if TYPE_CHECKING:
    from streamer.archive import ArchiveSource

TELL_S = {True: 0.2, False: 10.0}
"""From one look to the next, on a terminal and elsewhere."""
STEPS = 1000

log = logging.getLogger(__name__)


class Progress(Hooks):
    """A hook of the pipeline; ``tell`` is given each alert once it is safe."""

    def __init__(self, tell: Callable[[Alert], None], clock_s: Callable[[], float] = time.monotonic) -> None:
        self.archive: ArchiveSource | None = None
        self._tell, self._clock_s = tell, clock_s
        self._bar = _bar() if sys.stderr.isatty() else None
        self._begun_s = clock_s()
        self._due_s = self._begun_s + TELL_S[self._bar is not None]

    def __enter__(self) -> Progress:
        self._begun_s = self._clock_s()
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._show(self._bar)
            self._bar.stop()
        elif self.archive is not None:
            log.info("%s", self)

    def committed(self, alerts: list[Alert]) -> None:
        for alert in alerts:
            self._tell(alert)

    def tick(self) -> None:
        if self._clock_s() < self._due_s:
            return
        self._due_s = self._clock_s() + TELL_S[self._bar is not None]
        if self._bar is not None:
            self._show(self._bar)
        elif self.archive is not None:
            log.info("%s", self)

    def __str__(self) -> str:
        """``3.52 station-days, 640 times real time, 34 %, 0:12:03 left``."""
        if self.archive is None:
            return "beginning"
        spent_s, share = max(self._clock_s() - self._begun_s, 1e-3), self.share
        begun = self.archive.share_before
        left_s = spent_s * (1 - share) / (share - begun) if share > begun else None
        left = "" if left_s is None else f", {timedelta(seconds=round(left_s))} left"
        rate = self.archive.data_s / spent_s
        return f"{self.archive.data_s / 86_400:.2f} station-days, {rate:.0f} times real time, {share:.0%}{left}"

    @property
    def share(self) -> float:
        """Of the archive's bytes, 0 to 1."""
        return 0.0 if self.archive is None else min(1.0, self.archive.bytes_done / self.archive.bytes_all)

    def _show(self, bar: Any) -> None:
        bar.update(bar.task_ids[0], completed=round(STEPS * self.share), text=str(self))


def _bar() -> Any:
    """None without rich, which the extra ``archive`` brings."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
    except ImportError:
        return None
    bar = Progress(BarColumn(), TextColumn("{task.fields[text]}"), console=Console(stderr=True), transient=True)
    bar.add_task("", total=STEPS, text="beginning")
    return bar
