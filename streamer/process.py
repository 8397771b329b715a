"""What programs owe whoever started them: signals heard, nobody else at work on a state, and an end with it."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TextIO

from streamer.config import ConfigError

LOOK_S = 0.2

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Asked:
    """What signals asked for. Plain flags: a lock that a handler takes may be held by what it interrupted."""

    stop: bool = False
    reload: bool = False


@contextmanager
def alone(state: Path, patience_s: float = 0.0) -> Iterator[None]:
    """Two processes on one state would undo each other's resume points. The lock goes with the process, however it ends.
    ``patience_s``: how long one that is still at work there is waited for. Raises `ConfigError`."""
    try:
        state.mkdir(parents=True, exist_ok=True)
        lock = (state / "lock").open("w")
    except OSError as error:
        raise ConfigError(f"state: {state}: {error.strerror}") from error
    with lock:
        until_s = time.monotonic() + patience_s
        while not _is_locked(lock):
            if time.monotonic() >= until_s:
                raise ConfigError(f"state: {state}: another process is at work there")
            time.sleep(LOOK_S)
        yield


def _is_locked(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def signals() -> Iterator[Asked]:
    """What SIGTERM, SIGINT and SIGHUP ask for; the earlier handlers come back."""
    asked = Asked()

    def handle(number: int, _: FrameType | None) -> None:
        log.info("%s", signal.Signals(number).name)
        if number == signal.SIGHUP:
            asked.reload = True
        else:
            asked.stop = True

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_input() -> None:
    """From now on this process is told to stop once its standard input ends: with whoever holds the other end, however that ends."""
    threading.Thread(target=_terminate_after_input, name="input", daemon=True).start()


def _terminate_after_input() -> None:
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)
