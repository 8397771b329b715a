"""What the page draws is what came: shape, level and times survive the thinning."""

from __future__ import annotations

import base64
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_packets import EPOCH_S, noise, packet
from numpy.typing import NDArray

from streamer.live.decimation import Decimator, Piece
from streamer.stages import NS


def unpacked(pieces: list[Piece]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N,) seconds since `EPOCH_S`, (N,) counts: as the page reads them."""
    times, values = [], []
    for piece in pieces:
        integers = np.frombuffer(base64.b64decode(piece.data), "<i2")
        times.append(piece.start_ns / NS - EPOCH_S + np.arange(len(integers)) / piece.rate_hz)
        values.append(piece.zero + piece.scale * integers)
    return np.concatenate(times), np.concatenate(values)


def thinned(samples: NDArray[np.int32], rate: Fraction | int, cuts: list[int]) -> list[Piece]:
    decimator, bounds = Decimator(), [0, *sorted(cuts), len(samples)]
    packets = [packet("Z", a, samples[a:b], rate) for a, b in pairwise(bounds) if b > a]
    return [piece for p in packets if (piece := decimator.push(p)) is not None]


@pytest.mark.parametrize(
    "rate", [Fraction(100), Fraction(50), Fraction(20), Fraction(200), Fraction(5), Fraction(625, 10)]
)
def test_a_slow_wave_on_an_offset_comes_out_where_it_was(rate: Fraction) -> None:
    at_s = np.arange(int(60 * rate)) / float(rate)
    samples = np.rint(1e6 + 5_000 * np.sin(2 * np.pi * 0.7 * at_s)).astype(np.int32)
    times, values = unpacked(thinned(samples, rate, [int(7 * rate), int(20 * rate)]))
    assert 58 * min(float(rate), 14) < len(times) < 60 * 26
    assert np.abs(values - 1e6 - 5_000 * np.sin(2 * np.pi * 0.7 * times)).max() < 60


def test_what_a_screen_cannot_show_does_not_come_as_something_else() -> None:
    """37 Hz at 20 Hz would be one of 3 Hz."""
    samples = np.rint(5_000 * np.sin(2 * np.pi * 37 * np.arange(6_000) / 100)).astype(np.int32)
    assert np.abs(unpacked(thinned(samples, 100, []))[1]).max() < 50


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3_000), max_size=8))
def test_packets_of_any_size_give_the_same_samples(cuts: list[int]) -> None:
    samples = noise(3_000)
    whole_times, whole = unpacked(thinned(samples, 100, []))
    times, values = unpacked(thinned(samples, 100, cuts))
    assert times == pytest.approx(whole_times, abs=1e-6)
    assert values == pytest.approx(whole, abs=4)  # of 100,000 counts in 16 bits


def test_a_gap_stays_one() -> None:
    decimator, samples = Decimator(), noise(1_000)
    first, second = (decimator.push(packet("Z", at, samples)) for at in (0, 1_500))
    assert first is not None
    assert second is not None
    assert (second.start_ns - first.end_ns) / NS == pytest.approx(5.4)  # half the filter at either end


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_left_out(value: float) -> None:
    samples = np.ones(400, np.float32)
    samples[200] = value
    assert Decimator().push(packet("Z", 0, samples)) is None


def test_a_dead_channel_is_a_line() -> None:
    piece = Decimator().push(packet("Z", 0, np.full(400, 77, np.int32)))
    assert piece is not None
    assert not any(base64.b64decode(piece.data))
    assert piece.zero == pytest.approx(77)
