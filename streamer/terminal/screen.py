"""The terminal, while a table stands on it. One thread writes all of it, so that nobody who logs waits for a terminal: one
that is held (Ctrl-S), or gone, costs the table and nothing else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, RenderableType
from rich.live import Live

TICK_S, DRAW_S = 0.1, 1.0
"""How often lines are written, and the table drawn anew."""
STOP_S = 2.0
"""Longest time that a stop waits for a terminal that takes nothing."""
KEPT = 10_000
"""Lines that wait for the terminal: the oldest go first."""

Draw = Callable[[int, int], RenderableType]
"""For a width and a height."""

log = logging.getLogger(__name__)


class Above(logging.Handler):
    """Takes the place of a handler that writes to the terminal itself."""

    def __init__(self, screen: Screen, instead_of: logging.Handler) -> None:
        super().__init__(instead_of.level)
        self.setFormatter(instead_of.formatter)
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        self._screen.say(self.format(record))
        if record.levelno >= logging.CRITICAL:  # the process may end at once
            self._screen.close()


def _is_on_terminal(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and bool(handler.stream.isatty())


class Screen:
    """Entered, a table stands at the bottom of the terminal, and lines go above it; left, the lines alone remain."""

    def __init__(self, stream: TextIO, draw: Draw) -> None:
        self._stream, self._draw = stream, draw
        self._console = Console(file=stream)
        self._lines: deque[str] = deque(maxlen=KEPT)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="screen", daemon=True)
        self._before: list[logging.Handler] = []
        self._is_over = False

    def say(self, line: str) -> None:
        """Never waits while the table stands."""
        self._lines.append(line)
        if self._is_over:
            self._flush()

    def __enter__(self) -> Self:
        root = logging.getLogger()
        self._before = root.handlers[:]
        root.handlers[:] = [Above(self, one) if _is_on_terminal(one) else one for one in self._before]
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Also more than once, and from any thread."""
        self._stopping.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(STOP_S)

    def _run(self) -> None:
        try:
            with Live(console=self._console, auto_refresh=False, transient=True) as live:
                self._stand(live)
        except Exception:
            log.exception("the table is given up")
        finally:
            self._give_back()

    def _stand(self, live: Live) -> None:
        due_s = 0.0
        while not self._stopping.wait(TICK_S):
            self._write()
            if time.monotonic() >= due_s:
                due_s = time.monotonic() + DRAW_S
                live.update(self._draw(*self._console.size), refresh=True)

    def _write(self) -> None:
        while self._lines:
            self._console.print(self._lines.popleft(), markup=False, highlight=False, soft_wrap=True)

    def _give_back(self) -> None:
        """From here on lines are written where they are said."""
        logging.getLogger().handlers[:] = self._before
        self._is_over = True
        self._flush()

    def _flush(self) -> None:
        with suppress(IndexError, OSError, ValueError):  # nothing left, or nobody to tell
            while True:
                print(self._lines.popleft(), file=self._stream, flush=True)
