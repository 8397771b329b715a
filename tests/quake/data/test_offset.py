"""What is taken off before float32: a mean, whose rounding is the same whatever samples it was taken of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quake.data.offset import without_offset

COUNTS = arrays(np.int32, (3, 40), elements=st.integers(-(1 << 22), (1 << 22)))


@given(COUNTS, st.integers(-(1 << 22), 1 << 22))
def test_whole_counts_are_exact_in_float32(counts: np.ndarray, baseline: int) -> None:
    freed = without_offset(counts + baseline)
    np.testing.assert_array_equal(freed.astype(np.float32), freed)


@given(COUNTS, st.integers(1, 39))
def test_means_of_other_samples_move_a_record_and_do_not_bend_it(counts: np.ndarray, quiet: int) -> None:
    whole, part = (without_offset(counts, length).astype(np.float32).astype(np.float64) for length in (None, quiet))
    np.testing.assert_array_equal(np.diff(whole), np.diff(counts))
    np.testing.assert_array_equal(np.diff(part), np.diff(counts))


@given(arrays(np.float64, (2, 30), elements=st.floats(-1e15, 1e15)))
def test_what_is_left_of_the_mean_is_next_to_nothing(samples: np.ndarray) -> None:
    freed = without_offset(samples)
    peaks = np.abs(samples - samples.mean(axis=-1, keepdims=True)).max(axis=-1)
    rounding = 1e-15 * np.abs(samples).max(axis=-1) * samples.shape[-1]  # of float64 itself
    assert (np.abs(freed.mean(axis=-1)) <= peaks * 2.0**-17 + rounding + 1e-300).all()


@pytest.mark.parametrize("value", [0.0, 5.0, 1e-9, -3e8])
def test_a_constant_channel_becomes_zeros(value: float) -> None:
    np.testing.assert_array_equal(without_offset(np.full((3, 16), value)), np.zeros((3, 16)))


def test_quiet_is_what_the_mean_is_of() -> None:
    np.testing.assert_array_equal(without_offset(np.array([1.0, 3.0, 100.0]), quiet=2), [-1.0, 1.0, 98.0])


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.float32, np.float64])
def test_extremes_that_are_known_change_nothing(kind: type) -> None:
    samples = (np.random.default_rng(1).standard_normal((3, 500)) * 1000 + [[0], [1e6], [-7]]).astype(kind)
    known = samples.min(axis=-1, keepdims=True), samples.max(axis=-1, keepdims=True)
    np.testing.assert_array_equal(without_offset(samples, extremes=known), without_offset(samples))
