"""``--version``: what a report of a fault names, from the files and packages that are there."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from quake import versions
from streamer.cli import main as streamer
from streamer.config import CONFIGURATION_VERSION
from trainer.cli import main as trainer


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    return {line[:28].strip(): line[28:] for line in capsys.readouterr().out.splitlines()}


@pytest.mark.parametrize("program", [streamer, trainer])
def test_parts_and_shipped_models_are_named(program: object, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        program(["--version"])  # type: ignore[operator]
    assert ended.value.code == 0
    lines = told(capsys)
    assert lines["quake"] == version("quake")
    assert lines["torch"] == version("torch")
    card = (versions.ZOO / "detector.md").read_text()
    assert card.startswith(f"# detector {lines['model detector']}\n")
    assert lines.get("configuration") == (CONFIGURATION_VERSION if program is streamer else None)


def test_what_is_missing_or_broken_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.pt").write_bytes(b"no model")
    monkeypatch.setattr(versions, "ZOO", tmp_path)
    monkeypatch.setattr(versions, "PACKAGES", ("no-such-package",))
    with pytest.raises(SystemExit):
        streamer(["--version"])
    lines = capsys.readouterr().out
    assert "no-such-package not installed" in lines
    assert "neither a TorchScript nor an ONNX file" in lines


def test_no_runtime_is_imported() -> None:
    code = "import sys; from streamer.cli import main\ntry: main(['--version'])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'onnxruntime'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
