"""A Ray cluster that this program uses, or starts for itself; and what Ray says, in a line. https://docs.ray.io/

Imports Ray, which is an extra.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # before the import: a cluster of our own tells nobody that it ran

import ray
from ray.exceptions import RayError, RayTaskError

from streamer.config import Config, ConfigError

RESOURCES = {"num_cpus": "CPU", "num_gpus": "GPU"}
"""What an actor is said to need -> what Ray counts of it."""
MOST_TOLD = 300
"""Characters of what Ray says."""
NO_QUAKE = "a node of Ray's has not this quake: "
CONNECT_S = 10.0
ROOM_S = 30.0
"""Without a process that was started: Ray takes less where it has room."""

logging.getLogger("ray").setLevel(logging.ERROR)  # its news are not ours


def needs_of(config: Config) -> dict[str, int]:
    """Of a process that scores by this configuration."""
    return {"num_cpus": config.model.threads, "num_gpus": int(config.model.device == "cuda")}


def in_words(needs: Mapping[str, int]) -> str:
    """As Ray counts them."""
    return ", ".join(f"{RESOURCES[name]} {number}" for name, number in needs.items() if number)


@contextmanager
def cluster(address: str | None, cpus: int) -> Iterator[None]:
    """Ray's news are not told; what it writes goes with a cluster of our own. Raises `ConfigError`."""
    if address:
        _require_listener(address)
    terminate = signal.getsignal(signal.SIGTERM)  # Ray sets its own
    with (
        TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder,
        nullcontext() if address else _token(),
    ):
        own: dict[str, Any] = {} if address else {"num_cpus": cpus, "include_dashboard": False, "_temp_dir": folder}
        try:
            ray.init(address or "local", log_to_driver=False, configure_logging=False, **own)
        except Exception as error:  # Ray raises whatever it likes, and this very class
            raise ConfigError(f"--engine ray: {address or 'a cluster of this machine'}: {one_line(error)}") from error
        finally:
            signal.signal(signal.SIGTERM, terminate)
        # Else it tells of lost processes on standard output, among alerts.
        ray._private.worker._worker_logs_enabled = False
        try:
            yield
        finally:
            ray.shutdown()


def _require_listener(address: str) -> None:
    """Ray would try for minutes. Raises `ConfigError`."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise ConfigError(f"--ray-address: {address}: wanted is HOST:PORT of a cluster that this machine is a node of")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--ray-address: {address}: {error}") from error


@contextmanager
def _token() -> Iterator[None]:
    """Who has it may use the cluster; without one Ray writes its own into the user's home, and leaves it there."""
    before = {name: os.environ.get(name) for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    os.environ["RAY_AUTH_TOKEN"] = token_hex(32)
    try:
        yield
    finally:
        os.environ.update({name: value for name, value in before.items() if value is not None})
        for name in (name for name, value in before.items() if value is None):
            os.environ.pop(name, None)


def cause_of(error: RayTaskError) -> Exception:
    """What was raised there; or that nothing could be: the class, or what it was sent, has no module there."""
    cause: Exception = error.cause
    is_missing = isinstance(cause, RayError) or "failed to import on the worker" in str(cause)
    return ConfigError(NO_QUAKE + one_line(cause)) if is_missing else cause


def one_line(error: Exception) -> str:
    """Without tracebacks, and without the table of numbers that Ray tells of an actor."""
    told, _, _ = str(error).partition("traceback: ")
    words = [word for line in told.splitlines() if not line.startswith("\t") for word in line.split()]
    return " ".join(words)[:MOST_TOLD]
