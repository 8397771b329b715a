"""The page beside the daemon, `[page] enabled = true`: ``quake-streamer dashboard`` as a process of its own.

It is started again when it ends, gives way to the daemon where the machine is short of anything, and ends with it, however the
daemon ends. Whatever becomes of it, the daemon neither waits nor hears of it: not even a port that is taken is its affair.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from streamer.config import Config, ConfigError
from streamer.dashboard.program import read_token

RETRY_S = (1.0, 60.0)
"""First and longest pause before it is started again; doubled each time until it once ran for `WELL_S`."""
WELL_S = 60.0
NICE, OOM_SCORE = 5, 500
"""The daemon has the processor first, and stays where memory is short."""
LOOK_S = 0.2
STOP_S = 3.0
"""Longest time that a stop waits for it."""
NEEDED = ("starlette", "uvicorn")

log = logging.getLogger(__name__)


def check(config: Config) -> None:
    """Raises `ConfigError` for what no later start could mend."""
    if not config.page.enabled:
        return
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise ConfigError(f"page.enabled: {missing[0]} is not installed: pip install 'quake[dashboard]'")
    try:
        read_token(config.page.host)
    except ConfigError as error:
        raise ConfigError(f"page: {error}") from error


@dataclass(frozen=True)
class Start:
    """How it is started."""

    command: tuple[str, ...]
    redis_url: str
    """Not of the command, which everybody on the machine may read."""

    @staticmethod
    def of(config: Config, log_options: Sequence[str]) -> Start:
        page = config.page
        given = {
            "--host": page.host,
            "--port": page.port,
            "--mode": config.mode,
            "--prefix": config.redis.prefix,
            "--certificate": page.certificate,
            "--key": page.key,
        }
        options = [f"{name}={value}" for name, value in given.items() if value is not None]
        program = (sys.executable, "-P", "-m", "streamer", "dashboard", "--beside")
        return Start((*program, *options, *log_options), config.redis.url)

    def environment(self, own: Mapping[str, str]) -> dict[str, str]:
        kept = {name: value for name, value in own.items() if name.upper() != "QUAKE_REDIS_URL_FILE"}
        return {**kept, "QUAKE_REDIS_URL": self.redis_url}


class Page(threading.Thread):
    """Of one daemon. The thread begins with the first configuration that wants a page."""

    def __init__(self, log_options: Sequence[str] = ()) -> None:
        super().__init__(name="page", daemon=True)
        self._log_options, self._stopping = log_options, threading.Event()
        self._wanted: Start | None = None

    def follow(self, config: Config) -> None:
        """Begins it, ends it or begins it anew, as the configuration says; waits for none of that."""
        self._wanted = Start.of(config, self._log_options) if config.page.enabled else None
        if self._wanted is not None and self.ident is None:
            self.start()

    def stop(self) -> None:
        self._stopping.set()
        if self.is_alive():
            self.join(2 * STOP_S)

    def run(self) -> None:
        pause_s = RETRY_S[0]
        while not self._stopping.wait(LOOK_S):
            how, begun_s = self._wanted, time.monotonic()
            if how is None:
                continue
            ended = self._once(how)
            if how != self._wanted or time.monotonic() - begun_s > WELL_S:
                pause_s = RETRY_S[0]
            if how != self._wanted or self._stopping.wait(pause_s):
                continue
            log.warning("the page ended (%s) and is started again", ended)
            pause_s = min(2 * pause_s, RETRY_S[1])

    def _once(self, how: Start) -> str:
        """How it ended: by itself, because it is not wanted so any more, or because all ends."""
        try:
            # A session of its own: Ctrl-C is for the daemon, which ends it. Its input ends with this process, however that ends.
            process = subprocess.Popen(
                how.command,
                stdin=subprocess.PIPE,
                env=how.environment(os.environ),
                start_new_session=True,
            )
        except OSError as error:
            return str(error)
        _give_way(process.pid)
        with process:
            while process.poll() is None and how == self._wanted and not self._stopping.wait(LOOK_S):
                pass
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
        return f"exit code {process.returncode}"


def _give_way(process: int) -> None:
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process, os.getpriority(os.PRIO_PROCESS, 0) + NICE)
        Path(f"/proc/{process}/oom_score_adj").write_text(str(OOM_SCORE), "ascii")
