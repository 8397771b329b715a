"""What stands in for samples that never came."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from quake.data.spectrogram import SpectrogramShape, spectrogram
from streamer.bridge import bridge


def lost(length: int, *gaps: tuple[int, int]) -> np.ndarray:
    present = np.ones(length, bool)
    for begin, end in gaps:
        present[begin:end] = False
    return present


@settings(deadline=None)
@given(samples=arrays.arrays(np.int32, st.integers(1, 60), elements=st.integers(-(2**31), 2**31 - 1)), data=st.data())
def test_what_came_stays_and_what_is_filled_lies_within_it(samples: np.ndarray, data: st.DataObject) -> None:
    present = data.draw(arrays.arrays(bool, len(samples)))
    present[data.draw(st.integers(0, len(samples) - 1))] = True
    garbage = np.where(present, samples, data.draw(st.integers(-(2**31), 2**31 - 1))).astype(np.int32)
    filled = bridge(garbage, present)
    np.testing.assert_array_equal(filled[present], samples[present])
    assert samples[present].min() - 1e-6 <= filled.min()
    assert filled.max() <= samples[present].max() + 1e-6


@settings(deadline=None)
@given(data=st.data(), length=st.integers(2, 50))
def test_a_recording_played_backwards_is_bridged_backwards(data: st.DataObject, length: int) -> None:
    begin = data.draw(st.integers(0, length - 1))
    end = data.draw(st.integers(begin, length if begin else length - 1))
    samples, present = np.random.default_rng(length).normal(size=length), lost(length, (begin, end))
    np.testing.assert_allclose(bridge(samples[::-1], present[::-1])[::-1], bridge(samples, present), atol=1e-12)


def test_by_hand() -> None:
    samples = np.array([1, 2, 4, 0, 0, 0, 8, 5, 3], np.int32)
    filled = bridge(samples, lost(9, (3, 6)))
    before, after = np.array([4, 2, 1]), np.array([3, 5, 8])  # mirrored at either edge
    np.testing.assert_allclose(filled[3:6], before * [0.75, 0.5, 0.25] + after * [0.25, 0.5, 0.75])


@pytest.mark.parametrize(("gap", "expected"), [((0, 3), [6, 5, 4]), ((3, 6), [3, 2, 1])])
def test_a_gap_at_an_end_is_mirrored_from_the_other_side(gap: tuple[int, int], expected: list[float]) -> None:
    samples = np.array([1.0, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(bridge(samples, lost(6, gap))[slice(*gap)], expected)


def test_a_gap_longer_than_what_lies_beside_it_goes_back_and_forth() -> None:
    samples = np.array([1.0, 2, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(bridge(samples, lost(7, (2, 7))), [1, 2, 2, 1, 1, 2, 2])


def test_the_spectrogram_of_noise_hardly_shows_the_bridge() -> None:
    samples = np.random.default_rng(5).normal(size=(1, 2080)) + 1e4
    present = lost(2080, (1000, 1200))
    shape = SpectrogramShape(normalisation="zscore_difference", representation="log1p_contrast")
    middle = np.s_[0, 2:, 32:37]  # frames that lie within the gap
    bridged = spectrogram(bridge(samples[0], present)[None], shape)[middle].mean()
    straight = samples.copy()
    straight[0, 1000:1200] = np.linspace(samples[0, 999], samples[0, 1200], 200)
    assert abs(bridged) < 0.4  # of the logarithm; noise itself deviates by 0.64 at each pixel
    assert spectrogram(straight, shape)[middle].mean() < -3
