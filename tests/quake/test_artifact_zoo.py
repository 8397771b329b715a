"""The shipped detector: its card, and a first look at real and made recordings."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import obspy
import pytest

from quake.artifact import CompiledModel
from trainer.data.record import with_lead

ZOO = Path(__file__).parents[2] / "models" / "zoo"


@pytest.fixture(scope="module")
def detector() -> CompiledModel:
    return CompiledModel.load(ZOO / "detector.pt", "cpu", threads=1)


@pytest.fixture(scope="module")
def card() -> str:
    return (ZOO / "detector.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def rjob() -> np.ndarray:
    """(3, 3000) Z, N, E of a local earthquake at BW.RJOB, 30 s at 100 Hz: ObsPy's example."""
    stream = obspy.read()
    rows = [stream.select(component=component)[0].data for component in "ZNE"]
    return np.stack(rows).astype(np.float32)


def probability(detector: CompiledModel, samples: np.ndarray) -> np.ndarray:
    """Of an earthquake, in windows (B, 3, N) or one (3, N)."""
    windows = samples if samples.ndim == 3 else samples[None]
    windows = windows - windows.mean(axis=-1, keepdims=True)
    return detector.predict(windows.astype(np.float32))[:, 1]


def test_card_and_spec_agree(detector: CompiledModel, card: str) -> None:
    spec = detector.spec
    assert (spec.task, spec.components, spec.input_shape) == ("detect", ("Z", "N", "E"), (3, 33, 64))
    assert spec.classes == ("noise", "earthquake")
    assert f"# {spec.name} {spec.version}" in card
    assert f"on {spec.thresholds.on:g}, off {spec.thresholds.off:g}" in card
    assert detector.sha256 in card
    for source in spec.training_data:
        assert source.name in card
        assert source.licence in card
    for skill in spec.skill:
        assert f"{skill.value:g}" in card


def test_file_is_small_and_names_no_machine(detector: CompiledModel, card: str) -> None:
    content = detector.path.read_bytes()
    assert len(content) < 5_000_000
    for text in (b"site-packages", b"/home/"):
        assert text not in content
        assert text.decode() not in card


def test_a_local_earthquake_is_seen_whatever_the_station_has(detector: CompiledModel, rjob: np.ndarray) -> None:
    led_in = with_lead(rjob, 400, 2080)
    window = led_in[:, 900:2980]  # it ends some four seconds after P
    point = detector.spec.point("sensitive")  # a window that happens to be cut here, not the best of several
    assert probability(detector, window)[0] > point.on
    vertical = window.copy()
    vertical[1:] = 0
    assert probability(detector, vertical)[0] > point.on
    assert probability(detector, 1e-9 * window)[0] > point.on  # metres a second instead of counts
    assert probability(detector, led_in[:, 1600:3680])[0] < point.off  # seven seconds later it is no news


def test_noise_zeros_spikes_and_steps_are_no_earthquakes(detector: CompiledModel) -> None:
    rng = np.random.default_rng(7)
    noise = rng.standard_normal((12, 3, 2080))
    noise[4:8, 1:] = 0
    noise[8:10, :, 1000] += 500
    noise[10:12, :, 1000:] += 500
    assert probability(detector, noise).max() < 0.7  # white noise alone lies near 0.5 at times: far from `on`
    assert probability(detector, np.zeros((3, 2080)))[0] < 0.1


def test_answers_barely_depend_on_the_batch(detector: CompiledModel, rjob: np.ndarray) -> None:
    windows = np.stack([rjob[:, start : start + 2080] for start in range(0, 900, 100)])
    alone = np.concatenate([probability(detector, window) for window in windows])
    np.testing.assert_allclose(probability(detector, windows), alone, atol=1e-5)


def test_skill_is_stated_with_its_data(detector: CompiledModel) -> None:
    figures = {skill.measure for skill in detector.spec.skill}
    assert any("mean_recall_10s" in figure for figure in figures)
    assert all(re.search(r"dev", skill.data) for skill in detector.spec.skill)


def test_every_model_has_its_card_and_all_are_small() -> None:
    models = sorted(ZOO.glob("*.pt"))
    assert {path.stem for path in models} == {"characteriser", "detector", "detector-efficientnet"}
    assert sum(path.stat().st_size for path in models) < 30_000_000
    for path in models:
        model = CompiledModel.load(path, "cpu", threads=1)
        text = path.with_suffix(".md").read_text(encoding="utf-8")
        assert text.startswith(f"# {model.spec.name} {model.spec.version}\n")
        assert model.sha256 in text
