"""The daemon on a machine whose clock is set back by an hour at SIGUSR1: ``stepped_clock_daemon.py CONFIG``.

The root's clock stays as it is: Python's two are replaced before anything asks for them. The monotonic one goes on.
"""

from __future__ import annotations

import signal
import sys
import time
from types import FrameType

STEP_S = 3600
real_ns = time.time_ns
set_back_s = 0


def step(_: int, __: FrameType | None) -> None:
    global set_back_s  # noqa: PLW0603 - this is the machine's clock
    set_back_s = STEP_S
    print(f"the clock now says {time.time():.0f}", file=sys.stderr, flush=True)  # noqa: T201


def stepped_ns() -> int:
    return real_ns() - set_back_s * 1_000_000_000


if __name__ == "__main__":
    time.time_ns, time.time = stepped_ns, lambda: stepped_ns() / 1e9
    signal.signal(signal.SIGUSR1, step)
    from streamer.cli import main

    sys.exit(main(["run", sys.argv[1]]))
