"""A model's own test windows: what a file states of itself is asked at each load."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from model_files import with_spec

from quake.artifact import CompiledModel, ModelError, Probe, export_onnx, read_spec
from quake.probe import FLOAT_TOLERANCE, probe_windows

ZOO = Path(__file__).parents[2] / "models" / "zoo"
SHIPPED = ("detector", "detector-efficientnet", "characteriser")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_models_state_their_answers(name: str) -> None:
    model = CompiledModel.load(ZOO / f"{name}.pt", "cpu", threads=1)
    assert model.spec.probe is not None
    answers = model.predict(probe_windows(model.spec))
    np.testing.assert_allclose(answers, model.spec.probe.answers, atol=FLOAT_TOLERANCE / 10)


@pytest.mark.parametrize("name", SHIPPED[:2])
def test_windows_ask_a_detector_for_little_for_much_and_for_what_lies_between(name: str) -> None:
    probe = read_spec(ZOO / f"{name}.pt").probe
    assert probe is not None
    earthquake = [row[1] for row in probe.answers]
    assert earthquake[0] < 0.1 < earthquake[1] < 0.9 < min(earthquake[2:])


def test_windows_are_made_by_rule_and_stay_as_they_are() -> None:
    windows = probe_windows(read_spec(ZOO / "detector.pt"))
    assert (windows.shape, windows.dtype) == ((4, 3, 2080), np.float32)
    np.testing.assert_allclose(windows[0, 0, :3], [-0.318854, -1.602981, -1.535218], atol=1e-6)
    np.testing.assert_allclose(np.abs(windows).mean(axis=(1, 2)), [0.8045, 3.1659, 2.6151, 1.4557], atol=1e-4)


@pytest.mark.parametrize("end", ["pt", "onnx"])
def test_file_that_answers_otherwise_is_refused(tmp_path: Path, end: str) -> None:
    path = tmp_path / f"detector.{end}"
    content = (ZOO / "detector.pt").read_bytes() if end == "pt" else export_onnx(ZOO / "detector.pt")
    stated = read_spec(ZOO / "detector.pt").probe
    assert stated is not None
    wrong = (*stated.answers[:3], (0.1, 0.9))
    path.write_bytes(with_spec(content, probe=Probe(answers=wrong, tolerance=0.02)))
    with pytest.raises(
        ModelError, match=r"on its own test windows a probability differs by 0.09\d+ .* \(allowed: 0.02\)"
    ):
        CompiledModel.load(path, "cpu")
    path.write_bytes(with_spec(content, probe=Probe(answers=wrong, tolerance=0.2)))
    CompiledModel.load(path, "cpu")


def test_answers_of_other_classes_are_no_spec(tmp_path: Path) -> None:
    path = tmp_path / "detector.pt"
    probe = Probe(answers=((0.1, 0.2, 0.7),) * 4, tolerance=0.02)
    path.write_bytes(with_spec((ZOO / "detector.pt").read_bytes(), probe=probe))
    with pytest.raises(ModelError, match="the answers to the test windows are not of the 2 classes"):
        read_spec(path)


def test_older_file_without_them_loads(tmp_path: Path) -> None:
    path = tmp_path / "detector.pt"
    path.write_bytes(with_spec((ZOO / "detector.pt").read_bytes(), probe=None))
    model = CompiledModel.load(path, "cpu")
    assert model.spec.probe is None
    assert "probe" not in model.spec.model_dump()
