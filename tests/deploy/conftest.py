"""Secrets as deploy/make_secrets writes them, and a container's environment."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from deployed import DEPLOY, SECRETS


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "secrets"
    subprocess.run([DEPLOY / "make_secrets", folder], check=True, timeout=30)
    return folder


@pytest.fixture
def surroundings(monkeypatch: pytest.MonkeyPatch, secrets: Path) -> Any:
    """A container's variables, with secrets where the test has them."""

    def give(*tables: dict[str, str]) -> None:
        for name in [name for name in os.environ if name.startswith("QUAKE_")]:
            monkeypatch.delenv(name)
        for table in tables:
            for name, value in table.items():
                if name.startswith("QUAKE_"):
                    monkeypatch.setenv(name, value.replace(SECRETS, str(secrets)))

    return give
