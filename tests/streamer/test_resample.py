from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly

from streamer.resample import Resampler

RATIOS = [Fraction(2), Fraction(1, 2), Fraction(5, 2), Fraction(16, 5), Fraction(4, 5), Fraction(1, 10), Fraction(3, 7)]


@settings(deadline=None)
@given(st.sampled_from(RATIOS), st.integers(200, 400), st.integers(1, 150))
def test_any_stretch_equals_resample_poly(ratio: Fraction, first: int, count: int) -> None:
    resample = Resampler(ratio)
    needed = int((first + count) / ratio) + 2 * resample.half + 50
    samples = np.random.default_rng(3).normal(0, 1, needed)
    begin, end = resample.needs(first, count)
    if begin < 0:
        first += -begin * ratio.numerator
        begin, end = resample.needs(first, count)
    samples = np.random.default_rng(3).normal(0, 1, end + resample.half + 50)
    window = resample.taps / ratio.numerator
    expected = resample_poly(samples, ratio.numerator, ratio.denominator, window=window)[first : first + count]
    np.testing.assert_allclose(resample(samples[begin:end], first, count), expected, atol=1e-12)


@pytest.mark.parametrize("ratio", RATIOS)
def test_an_offset_stays_an_offset(ratio: Fraction) -> None:
    """And becomes no tone: the trainer takes means of whole records, the daemon of windows, and scores are the same."""
    resample = Resampler(ratio)
    begin, end = resample.needs(1000, 40)
    np.testing.assert_allclose(resample(np.full(end - begin, 1e6), 1000, 40), 1e6, rtol=1e-12)
    usual = resample_poly(np.eye(1, 901, 450)[0], ratio.numerator, ratio.denominator)
    ours = resample_poly(
        np.eye(1, 901, 450)[0], ratio.numerator, ratio.denominator, window=resample.taps / ratio.numerator
    )
    np.testing.assert_allclose(ours, usual, atol=1e-3)


@pytest.mark.parametrize("ratio", RATIOS)
def test_no_sample_outside_what_it_needs_matters(ratio: Fraction) -> None:
    """And both ends of it do: a window waits for nothing in vain."""
    resample = Resampler(ratio)
    begin, end = resample.needs(1000, 40)
    impulses = np.zeros((2, end - begin))
    impulses[0, 0], impulses[1, -1] = 1.0, 1.0
    assert np.abs(resample(impulses[0], 1000, 40)).max() > 0
    assert np.abs(resample(impulses[1], 1000, 40)).max() > 0


def test_the_models_own_rate_is_left_alone() -> None:
    samples = np.arange(10.0)
    assert Resampler(Fraction(1)).needs(5, 10) == (5, 15)
    assert Resampler(Fraction(1))(samples, 5, 10) is samples
