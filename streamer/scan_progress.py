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
from streamer.hooks import Hooks

BAR_S, LOG_S = 0.2, 10.0
"""From one look to the next, on a terminal and elsewhere."""

log = logging.getLogger(__name__)


class Progress(Hooks):
    """A hook of the pipeline; ``tell`` is given each alert once it is safe."""

    def __init__(
        self, tell: Callable[[Alert], None], bar: Any = None, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        """``bar``: of `make_bar`; None tells the log."""
        self._tell, self._bar, self._clock_s = tell, bar, clock_s
        self._every_s = LOG_S if bar is None else BAR_S
        self._begun_s = clock_s()
        self._due_s = self._begun_s + self._every_s
        self._hop_s = 1.0
        self._windows = self._done = self._pieces = 0

    def begin(self, pieces: int, hop_s: float) -> None:
        """So many of the archive are left, of windows ``hop_s`` apart."""
        self._pieces, self._hop_s, self._begun_s = pieces, hop_s, self._clock_s()

    def done(self, windows: int) -> None:
        """One more piece, with so many windows."""
        self._done += 1
        self._windows += windows
        self.tick()

    @property
    def left(self) -> int:
        """Pieces."""
        return self._pieces - self._done

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
        spent_s, data_s = max(self._clock_s() - self._begun_s, 1e-3), self._windows * self._hop_s
        left = f", {timedelta(seconds=round(spent_s * self.left / self._done))} left" if self._done else ""
        return f"{data_s / 86_400:.2f} station-days, {data_s / spent_s:.0f} times real time, {100 * self._share:.0f} %{left}"

    @property
    def _share(self) -> float:
        """Of the archive's pieces, 0 to 1."""
        return self._done / self._pieces if self._pieces else 1.0


def make_bar() -> Any:
    """On standard error; None where that is no terminal."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    bar = Progress(BarColumn(), TextColumn("{task.fields[text]}"), console=Console(stderr=True), transient=True)
    bar.add_task("", total=1.0, text="")
    return bar
