"""What `quake-streamer run` and `watch` show where somebody looks at a terminal: a table that stays, and lines above it.

`table` draws (pure), `screen` owns the terminal, `seen` knows what the table of `run` says, `told` what that of `watch` does.
Elsewhere than on a terminal none of them is even imported, and lines are written as ever.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from quake.alerts import Keys
from quake.times import NS

if TYPE_CHECKING:
    from rich.console import RenderableType

    from streamer.config import Config
    from streamer.hooks import Hooks

TIMEOUT_S = 1.0
"""Of Redis, for the table of `watch`."""


def is_fit(stream: TextIO) -> bool:
    """Whether a table can stand there: a terminal that can move its cursor, with us in its foreground."""
    if not stream.isatty() or os.environ.get("TERM", "dumb") in ("dumb", "unknown", ""):
        return False
    with suppress(OSError):  # a container's terminal controls no jobs
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    return True


@contextmanager
def watching(config: Config, *, is_wanted: bool) -> Iterator[Sequence[Hooks]]:
    """Hooks for the daemon, whose table stands on standard error meanwhile; none where that is no terminal."""
    if not (is_wanted and is_fit(sys.stderr)):
        yield ()
        return
    from streamer.terminal.screen import Screen
    from streamer.terminal.seen import Seen
    from streamer.terminal.table import drawn

    seen = Seen(config.mode)

    def draw(width: int, height: int) -> RenderableType:
        now_s = time.time()
        return drawn(seen.shown(now_s), now_s, width, height)

    with Screen(sys.stderr, draw):
        yield (seen,)


@contextmanager
def telling(url: str, keys: Keys, *, is_wanted: bool) -> Iterator[Callable[[str], None]]:
    """How a line is printed: above a table on a terminal, else as ever."""
    if not (is_wanted and is_fit(sys.stdout)):
        yield lambda line: print(line, flush=True)  # noqa: T201
        return
    from quake.connecting import connect
    from streamer.terminal.screen import Screen
    from streamer.terminal.table import drawn
    from streamer.terminal.told import read

    client = connect(url, TIMEOUT_S)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # killed at once, it would leave no cursor

    def draw(width: int, height: int) -> RenderableType:
        now_ns = time.time_ns()
        return drawn(read(client, keys, now_ns), now_ns / NS, width, height)

    try:
        with client, Screen(sys.stdout, draw) as screen:
            yield screen.say
    finally:
        signal.signal(signal.SIGTERM, before)
