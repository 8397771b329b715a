"""Caches of the test's own, and no network but this machine."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from made_weights import Caches


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Caches:
    look_up = socket.getaddrinfo

    def no_network(host: Any, *others: Any, **named: Any) -> Any:
        if host == "127.0.0.1":
            return look_up(host, *others, **named)
        raise socket.gaierror(-2, "Name or service not known")

    made = Caches(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(made.torch_home))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(made.hugging_face))
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    return made
