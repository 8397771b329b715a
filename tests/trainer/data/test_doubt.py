"""How much of a label a weak earthquake leaves to noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from quake.data.spec import AZIMUTH_HEAD, EVENT_HEAD, MAGNITUDE_HEAD
from trainer.data.doubt import Doubt, snr_db
from trainer.data.labels import targets_of
from trainer.data.record import Example

DOUBT = Doubt(weak_db=5.0, strong_db=35.0, weak=0.1, strong=0.002, noise=0.01)
N, P = 2080, 1500


def example(amplitude: float, kind: str = "earthquake", seed: int = 0) -> Example:
    """White noise of one count, and so many more from P on."""
    samples = np.random.default_rng(seed).normal(0, 1, (3, N))
    samples[:, P:] *= amplitude
    return Example(samples.astype(np.float32), kind, P if kind == "earthquake" else N)  # type: ignore[arg-type]


@pytest.mark.parametrize("amplitude", [1.0, 10.0, 100.0])
def test_snr_is_that_of_the_samples(amplitude: float) -> None:
    """Within the chance of half-second levels: the loudest of eleven, and the lower quartile of the noise's."""
    assert snr_db(example(amplitude).samples, P) == pytest.approx(20 * np.log10(amplitude) + 1.8, abs=1.5)


@given(st.floats(1e-3, 1e3), st.integers(0, 2))
def test_neither_gain_nor_a_dead_component_changes_it(gain: float, dead: int) -> None:
    samples = example(20.0).samples * np.float32(gain)
    whole = snr_db(samples, P)
    samples[dead] = 0
    assert snr_db(samples, P) == pytest.approx(whole, abs=1.5)
    assert snr_db(np.zeros_like(samples), P) == 0.0


@pytest.mark.parametrize("onset", [-100, 0, 60, N - 1])
def test_where_there_is_little_before_p_the_quieter_parts_are_the_noise(onset: int) -> None:
    assert np.isfinite(snr_db(example(30.0).samples, onset))


def test_what_is_left_goes_linearly_with_decibels_between_the_ends() -> None:
    left = [DOUBT.left(example(10 ** (db / 20))) for db in (-20, 10, 20, 25, 60)]
    assert left == sorted(left, reverse=True)
    assert left[0] == pytest.approx(0.1)
    assert left[-1] == pytest.approx(0.002)
    assert DOUBT.left(example(1.0, "noise")) == 0.01


def test_targets_still_add_up_and_other_heads_are_left_alone() -> None:
    heads = (EVENT_HEAD, MAGNITUDE_HEAD, AZIMUTH_HEAD)
    examples = [example(1e4), example(1.0), example(1.0, "noise")]
    plain = targets_of(examples, heads)
    event, magnitude, azimuth = DOUBT.applied(plain, examples, heads)
    earthquake = EVENT_HEAD.classes.index("earthquake")
    assert event[:, earthquake] == pytest.approx([0.998, 0.9, 0.01], abs=0.02)
    assert event.sum(axis=1) == pytest.approx(1)
    assert magnitude is plain[1]
    assert azimuth is plain[2]
    assert event.dtype == np.float32


def test_an_unknown_label_stays_unknown() -> None:
    unknown = example(5.0, "unlabelled")
    assert not DOUBT.applied(targets_of([unknown], (EVENT_HEAD,)), [unknown], (EVENT_HEAD,))[0].any()


@pytest.mark.parametrize("wrong", [{"strong_db": 5.0}, {"strong": 0.2}, {"weak": 0.5}, {"noise": 0.0}])
def test_what_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Doubt(**wrong)
