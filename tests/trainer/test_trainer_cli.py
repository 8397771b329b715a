"""Exit codes and messages of ``quake-trainer``."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.cli import main


@pytest.mark.parametrize(
    "arguments",
    [[], ["fly"], ["fit-detector"], ["fit-detector", "--data", "x", "--out", "y", "--steps", "0"], ["inspect"]],
)
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: quake-trainer" in capsys.readouterr().err


def test_data_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit-detector", "--data", str(tmp_path), "--out", str(tmp_path / "m.pt")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("quake-trainer: ")
    assert str(tmp_path / "metadata.csv") in error


def test_a_model_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(b"no model")
    assert main(["inspect", str(path)]) == 1
    assert f"{path}: neither a TorchScript nor an ONNX file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "a JSON object was expected"),
        ('{"colour": 1}', "colour"),
        (None, "cannot be read"),
    ],
)
def test_a_description_that_is_wrong(
    text: str | None, message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from trainer.fit_detector import new_network

    torch.save(new_network().state_dict(), tmp_path / "m.ckpt")
    describe = tmp_path / "d.json"
    if text is not None:
        describe.write_text(text)
    arguments = ["--data", str(data), "--checkpoint", str(tmp_path / "m.ckpt"), "--out", str(tmp_path / "m.pt")]
    assert main(["compile", *arguments, "--describe", str(describe)]) == 1
    assert message in capsys.readouterr().err


def test_a_checkpoint_that_is_none(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.ckpt"
    path.write_bytes(b"no checkpoint")
    arguments = ["--data", str(data), "--checkpoint", str(path), "--out", str(tmp_path / "m.pt")]
    assert main(["compile", *arguments]) == 1
    assert f"{path}: not a checkpoint of the detector" in capsys.readouterr().err
