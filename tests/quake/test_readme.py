"""What the README shows is true: its configuration loads, its snippet is Python against real names, its verbs exist."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

from streamer.cli import main
from streamer.composition import prepare
from streamer.config import load

README = Path(__file__).resolve().parents[2] / "README.md"


def block(language: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.S)
    return str(found[-1])


def test_the_configuration_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUAKE_REDIS_URL", raising=False)
    path = tmp_path / "quake.toml"
    path.write_text(block("toml"))
    assert prepare(load(path)).scorer.thresholds.in_a_row == 5


def test_the_snippet_imports_what_there_is() -> None:
    tree = ast.parse(block("python"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert imports
    for node in imports:
        for name in node.names:
            assert hasattr(importlib.import_module(str(node.module)), name.name)


def test_the_verbs_exist(capsys: pytest.CaptureFixture[str]) -> None:
    verbs = set(re.findall(r"`quake-streamer (\w+)", README.read_text()))
    assert verbs >= {"run", "demo", "replay", "scan", "watch", "check"}
    for verb in verbs:
        with pytest.raises(SystemExit) as ended:
            main([verb, "--help"])
        assert ended.value.code == 0
    assert "usage" in capsys.readouterr().out
