"""The card says what the spec says."""

from __future__ import annotations

from pathlib import Path

import pytest

from quake.artifact import AZIMUTH_HEAD, MAGNITUDE_HEAD, Compilation, CompiledModel, ModelSpec
from trainer.card import model_card
from trainer.cli import main

DETECTOR = Path(__file__).parents[2] / "models" / "zoo" / "detector.pt"


def test_the_shipped_detectors_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(DETECTOR), "--card"]) == 0
    card = capsys.readouterr().out
    model = CompiledModel.load(DETECTOR, "cpu")
    assert card.startswith(f"# detector {model.spec.version}\n")
    assert model.sha256 in card
    assert "| event | noise, earthquake |" in card
    assert "| STFT | hann, 64 samples every 32 |" in card
    limits = model.spec.thresholds
    assert limits is not None
    assert f"Thresholds: on {limits.on:g}, off {limits.off:g}. Calibration: temperature " in card
    assert [f"| {point.name} | {point.on:g} |" in card for point in model.spec.operating_points] == [True] * 3
    for source in model.spec.training_data:
        assert f"| {source.name} | {source.licence} |" in card
    for skill in model.spec.skill:
        assert f"{skill.value:g}" in card
    assert "Its own 4 test windows" in card
    assert "| 3 | 0.0027, 0.9973 |" in card


def test_heads_with_bounds_and_the_compilations_differences() -> None:
    spec = _plain()
    made = Compilation(method="trace", difference_real=0.00123, difference_random=2e-5)
    changes = {"task": "characterise", "heads": (MAGNITUDE_HEAD, AZIMUTH_HEAD), "compilation": made, "skill": ()}
    card = model_card(ModelSpec.model_validate({**spec.model_dump(), **changes}), "0" * 64)
    assert "| magnitude | Large (from 6), Medium (from 5), Moderate (from 4), Normal |" in card
    assert "| azimuth | E, N, NE, NW, Normal, S, SE, SW, W |" in card
    assert "0.0012 on real windows, 2e-05 on random ones" in card
    assert "Not measured." in card


def test_two_characterisers_on_other_scales_have_other_cards() -> None:
    spec = _plain()
    changes: dict[str, object] = {
        "task": "characterise",
        "heads": (MAGNITUDE_HEAD, AZIMUTH_HEAD),
        "unit": "m/s",
        "normalisation": "demean",
        "representation": "cross_decibel",
        "decibels": {"floor": -180, "ceiling": -60},
        "taper_fraction": 0.05,
        "stft": {"nperseg": 64, "hop": 32, "window": "hann", "padded": True},
        "image": {"height": 224, "width": 200, "normalisation": "imagenet", "resized": (256, 256)},
    }
    card = model_card(ModelSpec.model_validate({**spec.model_dump(), **changes}), "0" * 64)
    for row in (
        "| unit | m/s |",
        "| taper | Tukey, 0.05 of the window |",
        "| STFT | hann, 64 samples every 32, padded |",
        "| range | -180 to -60 dB of (m/s)^2/Hz |",
        "| network's input | 3 x 224 x 200, the middle of 256 x 256, imagenet |",
    ):
        assert row in card


def test_operating_points_stand_with_what_was_counted() -> None:
    spec = _plain().model_dump()
    assert "Operating points" not in model_card(ModelSpec.model_validate(spec), "0" * 64)
    decision = {"in_a_row": 2, "hours": 20.0}
    points = (
        {"name": "quiet", "on": 0.9951, "off": 0.49755, "aim_an_hour": 0.1, "false_alarms": 2, **decision},
        {"name": "standard", "on": 0.92, "off": 0.45, "aim_an_hour": 1.0, "false_alarms": 19, **decision},
    )
    changes = {"operating_points": points, "hop_s": 0.5, "thresholds": {"on": 0.92, "off": 0.45}}
    card = model_card(ModelSpec.model_validate({**spec, **changes}), "0" * 64)
    assert "at a hop of 0.5 s" in card
    assert "| quiet | 0.9951 | 0.49755 | 2 | 0.1 | 2 in 20 h | 0.1 (0.0121 to 0.361) | yes |" in card
    assert "| standard | 0.92 | 0.45 | 2 | 1 | 19 in 20 h | 0.95 (0.572 to 1.48) | no |" in card


def test_export_writes_what_loads_without_torch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "detector.onnx"
    assert main(["export", str(DETECTOR), "--out", str(out)]) == 0
    assert CompiledModel.load(out, "cpu", "onnxruntime").spec.name == "detector"
    assert main(["export", str(out), "--out", str(tmp_path / "again.onnx")]) == 1
    assert "not a TorchScript file" in capsys.readouterr().err


def _plain() -> ModelSpec:
    """The shipped detector's, without operating points and test windows."""
    spec = CompiledModel.load(DETECTOR, "cpu").spec.model_dump(exclude={"operating_points", "hop_s", "probe"})
    return ModelSpec.model_validate(spec)
