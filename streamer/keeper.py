"""Keeps the daemon of one shard, on whatever node of a cluster: what Ray makes an actor of. Knows nothing of Ray.

The daemon is ``quake-streamer run`` as a process beside this one, which ends with it however it ends. A shard that comes to
another node goes on from what Redis knows; an alert that its former node had not published is decided again there.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from queue import Empty, SimpleQueue

from streamer.config import Config, ConfigError, load
from streamer.process import alone
from streamer.salvage import open_outbox
from streamer.takeover import forget

PATIENCE_S = 30.0
"""For the former daemon of the shard, on the same node, to end: it decides what it has received, and publishes."""
LOOK_S = 0.2
SAID_S = 1.0
"""Longest time that a look at what the daemon says waits."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What every shard's daemon is started with. Raises `ConfigError` where the file cannot be read."""

    config: Path
    digest: str
    quake: str
    """The version."""
    options: tuple[str, ...]
    """Of the command line."""

    @staticmethod
    def of(config: Path, options: Sequence[str]) -> Plan:
        return Plan(config.absolute(), digest(config), version("quake"), tuple(options))

    def require_same(self) -> None:
        """Raises `ConfigError` where this node has another quake or another configuration."""
        if (here := version("quake")) != self.quake:
            raise ConfigError(f"quake is {here} here, and {self.quake} where the shards are kept")
        if digest(self.config) != self.digest:
            raise ConfigError(f"{self.config}: is another file than where the shards are kept")


def digest(file: Path) -> str:
    try:
        return sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error


class Keeper:
    """Made on a node; `start`, then `said` again and again. `stop` comes beside these."""

    def start(self, plan: Plan, index: int) -> str:
        """Where the daemon is. Raises `ConfigError`."""
        try:
            plan.require_same()
            config = load(plan.config)
            state = config.state / f"shard-{index}"
            with _waiting_for(state), closing(open_outbox(state / "outbox.sqlite")) as outbox:
                forget(outbox)
        except ConfigError as error:
            raise ConfigError(f"node {socket.gethostname()}: {error}") from error
        self._process = subprocess.Popen(
            (sys.executable, "-P", "-m", "streamer", "run", str(plan.config), "--beside", *plan.options),
            stdin=subprocess.PIPE,  # it ends with this process
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, **_settings(config, state, index)},
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._lines = SimpleQueue[str | None]()
        threading.Thread(target=self._read, daemon=True).start()
        return f"{socket.gethostname()}, process {self._process.pid}"

    def said(self) -> tuple[list[str], int | None]:
        """The daemon's lines since the last time, and its exit code once it has ended. Waits a moment for any."""
        lines: list[str] = []
        try:
            line = self._lines.get(timeout=SAID_S)
            while line is not None:
                lines.append(line)
                line = self._lines.get_nowait()
        except Empty:
            return lines, None
        with self._process:  # its pipes are closed, too
            return lines, self._process.wait()

    def stop(self) -> None:
        self._process.terminate()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)


@contextmanager
def _waiting_for(state: Path) -> Iterator[None]:
    """`alone`, once whoever is at work there has ended."""
    until_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            lock = alone(state)
            lock.__enter__()
            break
        except ConfigError:
            if time.monotonic() > until_s:
                raise
            time.sleep(LOOK_S)
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


def _settings(config: Config, state: Path, index: int) -> Mapping[str, str]:
    """Environment variables that stand above the file: shards of one node share neither a folder nor a port nor a name."""
    port = config.metrics.port and config.metrics.port + index
    return {
        "QUAKE_SHARD__INDEX": str(index),
        "QUAKE_STATE": str(state.absolute()),
        "QUAKE_METRICS__PORT": str(port),
        "QUAKE_DAEMON": f"{config.daemon}-{index}",
        "QUAKE_PAGE__ENABLED": "false",
    }
