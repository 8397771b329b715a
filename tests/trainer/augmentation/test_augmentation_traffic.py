"""What people make falls on noise alone, as loud and in the band that was drawn, and swells or dies away."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_windows import Windows
from pydantic import ValidationError
from scipy import signal

from trainer.augmentation.base import level
from trainer.augmentation.traffic import Footsteps, Passing, Traffic
from trainer.data.record import RATE_HZ

WINDOWS = Windows()
N = 2080
BOTH = (Passing(type="passing"), Footsteps(type="footsteps"))
SEEDS = st.integers(0, 2**32)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, change=st.sampled_from(BOTH))
def test_a_missing_component_stays_missing_and_all_is_finite(seed: int, change: Traffic) -> None:
    rng = np.random.default_rng(seed)
    example = WINDOWS.noise_example(rng, N)
    example.samples[1:] = 0
    result = change.apply(example, rng, WINDOWS)
    assert not result.samples[1:].any()
    assert result.samples.dtype == np.float32
    assert np.isfinite(result.samples).all()


@pytest.mark.parametrize("kind", ["passing", "footsteps"])
def test_an_earthquake_never_gets_any(kind: str) -> None:
    section = type(next(change for change in BOTH if change.type == kind))
    with pytest.raises(ValidationError, match="noise"):
        section.model_validate({"type": kind, "on": "all"})


def test_silence_stays_silence(rng: np.random.Generator) -> None:
    example = WINDOWS.noise_example(rng, N)
    silent = example.having(np.zeros_like(example.samples))
    assert not BOTH[0].apply(silent, rng, WINDOWS).samples.any()


def test_the_band_is_where_it_was_drawn(rng: np.random.Generator) -> None:
    change = Passing(type="passing", centre_hz=(12, 12), octaves=(1, 1))
    frequencies_hz, density = signal.welch(change.in_band(rng, 20_000), RATE_HZ, nperseg=500)
    mean_octave = np.average(np.log2(frequencies_hz[1:] / 12), weights=density.mean(axis=0)[1:] / frequencies_hz[1:])
    assert abs(mean_octave) < 0.15
    inside = (frequencies_hz > 6) & (frequencies_hz < 24)
    assert density[:, inside].sum() > 0.99 * density.sum()


def test_what_passes_is_as_loud_as_was_drawn_when_it_is_nearest(rng: np.random.Generator) -> None:
    example = WINDOWS.noise_example(rng, N)
    change = Passing(type="passing", level_db=(20, 20), rise_s=(4, 4), fall_s=(4, 4), beyond=0, centre_hz=(10, 10))
    added = [change.apply(example, rng, WINDOWS).samples - example.samples for _ in range(40)]
    nearest = max(
        np.sqrt(np.mean(np.square(a[c, i : i + 100]))) for a in added for c in range(3) for i in range(0, N, 100)
    )
    assert 5 < nearest / level(example.samples) < 25


def test_what_passes_swells_slowly(rng: np.random.Generator) -> None:
    change = Passing(type="passing", rise_s=(4, 4), fall_s=(4, 4), beyond=0)
    motion = np.stack([change.motion(rng, N) for _ in range(50)])  # (50, 3, N)
    seconds = np.sqrt(np.mean(np.square(motion[:, :, :2000]).reshape(50, 3, 20, 100), axis=(1, 3)))  # (50, 20)
    rises = seconds[:, 1:] / seconds[:, :-1]
    assert np.median(rises.max(axis=1)) < 3  # an earthquake's first second is ten times what was before


def test_blows_die_away_at_once_and_come_again(rng: np.random.Generator) -> None:
    change = Footsteps(type="footsteps", most=12, interval_s=(1, 1), decay_s=(0.03, 0.03))
    motion = np.stack([change.motion(rng, N) for _ in range(60)])
    energy = np.square(motion).sum(axis=1)  # (60, N)
    loud = energy > 0.01 * energy.max(axis=1, keepdims=True)
    assert loud.mean() < 0.35
    assert (motion.any(axis=(1, 2))).mean() > 0.5
    gaps = [np.diff(np.flatnonzero(row)) for row in loud if row.any()]
    assert any((gap > 50).sum() >= 3 for gap in gaps)
