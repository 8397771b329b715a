"""How far a scan is: a bar on a terminal, a line in the log now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Any

from quake.alerts import Alert
from streamer.file_source import ArchiveSource
from streamer.hooks import Hooks

BAR_S, LOG_S = 0.2, 10.0
"""From one look to the next, on a terminal and elsewhere."""

log = logging.getLogger(__name__)


class Progress(Hooks):
    """A hook of the pipeline; ``tell`` is given each alert once it is safe."""

    def __init__(
        self,
        archive: ArchiveSource,
        tell: Callable[[Alert], None],
        bar: Any = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """``bar``: of `make_bar`; None tells the log."""
        self._archive, self._tell, self._bar, self._clock_s = archive, tell, bar, clock_s
        self._every_s = LOG_S if bar is None else BAR_S
        self._begun_s = clock_s()
        self._due_s = self._begun_s + self._every_s

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._show()
        if self._bar is not None:
            self._bar.stop()

    def committed(self, alerts: list[Alert]) -> None:
        for alert in alerts:
            self._tell(alert)

    def tick(self) -> None:
        if self._clock_s() >= self._due_s:
            self._due_s = self._clock_s() + self._every_s
            self._show()

    def _show(self) -> None:
        if self._bar is None:
            log.info("%s", str(self))  # of now: a handler may ask later
        else:
            self._bar.update(self._bar.task_ids[0], completed=self._share, text=str(self))

    def __str__(self) -> str:
        """``3.52 station-days, 640 times real time, 34 %, 0:12:03 left``."""
        archive, spent_s = self._archive, max(self._clock_s() - self._begun_s, 1e-3)
        now, ahead = archive.bytes_done - archive.bytes_before, archive.bytes_all - archive.bytes_done
        left = f", {timedelta(seconds=round(spent_s * max(ahead, 0) / now))} left" if now > 0 else ""
        rate = archive.data_s / spent_s
        return (
            f"{archive.data_s / 86_400:.2f} station-days, {rate:.0f} times real time, {100 * self._share:.0f} %{left}"
        )

    @property
    def _share(self) -> float:
        """Of the archive's bytes, 0 to 1."""
        return min(1.0, self._archive.bytes_done / self._archive.bytes_all)


def make_bar() -> Any:
    """On standard error; None where that is no terminal, or without rich, which the extra ``archive`` brings."""
    if not sys.stderr.isatty():
        return None
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
    except ImportError:
        return None
    bar = Progress(BarColumn(), TextColumn("{task.fields[text]}"), console=Console(stderr=True), transient=True)
    bar.add_task("", total=1.0, text="")
    return bar
