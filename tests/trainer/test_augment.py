"""Augmentation: finite, of one shape, and never at the cost of the earthquake."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainer import augment
from trainer.augment import Augmenter
from trainer.windows import Drawer, read_records

LENGTH = 2080


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture
def window(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((3, LENGTH)).astype(np.float32)


def test_windows_are_finite_float32_of_one_shape(data: Path, rng: np.random.Generator) -> None:
    maker = Augmenter(Drawer(read_records(data, "train"), rng), rng, LENGTH)
    alone = 0
    for _ in range(300):
        for window in (maker.earthquake(), maker.noise()):
            assert window.shape == (3, LENGTH)
            assert window.dtype == np.float32
            assert np.isfinite(window).all()
            alone += bool((window[1:] == 0).all() and (window[0] != 0).any())
    assert 0.3 < alone / 600 < 0.42  # stations with a vertical alone


def test_rotation_keeps_the_vertical_and_the_horizontal_energy(rng: np.random.Generator, window: np.ndarray) -> None:
    turned = augment.rotate(rng, window)
    np.testing.assert_array_equal(turned[0], window[0])
    np.testing.assert_allclose((turned[1:] ** 2).sum(0), (window[1:] ** 2).sum(0), rtol=1e-4)


def test_buried_earthquakes_stand_above_their_noise(rng: np.random.Generator, window: np.ndarray) -> None:
    quake = window * np.where(np.arange(LENGTH) < 1500, 0, 5).astype(np.float32)
    for _ in range(20):
        buried = augment.bury(rng, quake, window[:, ::-1], 1500)
        assert augment.level(buried[:, 1500:1700]) > 1.2 * augment.level(buried[:, :1400])


def test_a_50_hz_station_has_nothing_above_25_hz(window: np.ndarray) -> None:
    spectrum = np.abs(np.fft.rfft(augment.through(window, 1, 2) * np.hanning(LENGTH), axis=1))
    high = np.fft.rfftfreq(LENGTH, 0.01) > 30
    assert spectrum[:, high].max() < 0.02 * spectrum[:, ~high].max()


def test_gaps_never_hide_the_onset(rng: np.random.Generator, window: np.ndarray) -> None:
    for onset in (-30, 10, 700, 1900, 2029):
        for _ in range(50):
            filled = augment.gap(rng, window, onset)
            kept = window - window.mean(axis=1, keepdims=True)
            np.testing.assert_array_equal(filled[:, max(onset, 1) :], kept[:, max(onset, 1) :])


@pytest.mark.parametrize("make", augment.FAULTS)
def test_faults_are_finite_and_of_size_one(make: object, rng: np.random.Generator) -> None:
    assert callable(make)
    pulses = np.stack([make(rng, LENGTH) for _ in range(50)])
    assert pulses.shape == (50, LENGTH)
    assert np.abs(pulses).max() == pytest.approx(1, abs=0.05)


def test_silence_is_no_reason_to_fail(rng: np.random.Generator) -> None:
    silent = np.zeros((3, LENGTH), np.float32)
    for _ in range(30):
        assert np.isfinite(augment.artefact(rng, silent, LENGTH)).all()
    assert np.isfinite(augment.bury(rng, silent, silent, 100)).all()
