"""Keeps the daemon of one shard, on whatever node of a cluster: what Ray makes an actor of. Knows nothing of Ray.

The daemon is ``quake-streamer run --kept`` as a process beside this one, which ends with it however it ends. Its readiness comes as
to systemd, its log line by line.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from queue import Empty, SimpleQueue
from secrets import token_hex

from streamer.config import Config, ConfigError, load

SAID_S = 1.0
"""Longest time that a look at what the daemon says waits."""
OF_SYSTEMD = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""Meant for who started the cluster."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What every shard's daemon is started with. Raises `ConfigError` where the file cannot be read."""

    config: Path
    digest: str
    count: int
    quake: str
    """The version."""
    options: tuple[str, ...]
    """Of the command line."""

    @staticmethod
    def of(config: Path, count: int, options: Sequence[str]) -> Plan:
        return Plan(config.absolute(), digest(config), count, version("quake"), tuple(options))

    def require_same(self) -> None:
        """Raises `ConfigError` where this node has another quake or another configuration."""
        if (here := version("quake")) != self.quake:
            raise ConfigError(f"quake is {here} here, and {self.quake} where the shards are kept")
        if digest(self.config) != self.digest:
            raise ConfigError(f"{self.config}: is another file than where the shards are kept")

    def settings(self, config: Config, index: int) -> dict[str, str]:
        """Environment variables that stand above the file: shards of one node share neither a folder nor a port nor a name."""
        return {
            "QUAKE_SHARD__COUNT": str(self.count),
            "QUAKE_SHARD__INDEX": str(index),
            "QUAKE_STATE": str((config.state / f"shard-{index}").absolute()),
            "QUAKE_METRICS__PORT": str(config.metrics.port and config.metrics.port + index),
            "QUAKE_DAEMON": f"{config.daemon}-{index}",
            "QUAKE_PAGE__ENABLED": "false",
        }


def digest(file: Path) -> str:
    try:
        return sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Said:
    """Of a daemon, since the last time."""

    lines: tuple[str, ...]
    is_ready: bool
    code: int | None
    """Its exit code, once it has ended."""


class Keeper:
    """Made on a node; `start`, then `said` again and again. `stop` comes beside these."""

    def start(self, plan: Plan, index: int) -> str:
        """Where the daemon is. Raises `ConfigError`."""
        try:
            plan.require_same()
            settings = plan.settings(load(plan.config), index)
            with ExitStack() as stack:
                self._ready, address = _heard()
                stack.callback(self._ready.close)
                self._process = _started(plan, settings | {"NOTIFY_SOCKET": address})
                stack.pop_all()
        except (ConfigError, OSError) as error:
            raise ConfigError(f"node {socket.gethostname()}: {error}") from error
        self._lines = SimpleQueue[str | None]()
        threading.Thread(target=self._read, daemon=True).start()
        return f"{socket.gethostname()}, process {self._process.pid}"

    def said(self) -> Said:
        """Waits a moment for a line."""
        lines, is_over = self._new_lines()
        if not is_over:
            return Said(lines, self._is_ready(), None)
        with self._process, self._ready:  # their pipes are closed, too
            return Said(lines, False, self._process.wait())

    def stop(self) -> None:
        self._process.terminate()

    def _new_lines(self) -> tuple[tuple[str, ...], bool]:
        """And whether there will be no more."""
        lines: list[str] = []
        try:
            line = self._lines.get(timeout=SAID_S)
            while line is not None:
                lines.append(line)
                line = self._lines.get_nowait()
        except Empty:
            return tuple(lines), not lines and self._process.poll() is not None
        return tuple(lines), True

    def _is_ready(self) -> bool:
        try:
            while True:
                if b"READY=1" in self._ready.recv(4096).splitlines():
                    return True
        except BlockingIOError:
            return False

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)


def _started(plan: Plan, settings: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        (sys.executable, "-P", "-m", "streamer", "run", str(plan.config), "--kept", *plan.options),
        stdin=subprocess.PIPE,  # it ends with this process
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**_without(os.environ, settings), **settings},
        text=True,
        errors="replace",
        start_new_session=True,
    )


def _heard() -> tuple[socket.socket, str]:
    """Where a daemon says that it is ready, and how it is told: a name that no file has."""
    name = f"quake-{os.getpid()}-{token_hex(8)}"
    heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard.setblocking(False)
    heard.bind(f"\0{name}")
    return heard, f"@{name}"


def _without(own: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """What is set here comes neither from a file that somebody named, nor in other letters."""
    out = {*settings, *(f"{name}_FILE" for name in settings), *OF_SYSTEMD}
    return {name: value for name, value in own.items() if name.upper() not in out}
