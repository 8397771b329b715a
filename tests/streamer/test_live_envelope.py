"""Five seconds in four letters: what the page reads is what the samples were, to one per cent."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_packets import EPOCH_S, noise, packet

from streamer.live.envelope import ALPHABET, BIN_S, BINS, Envelope, letters

RATE = 100
LETTERS = bytes(ALPHABET).decode()


def counts(text: str) -> list[tuple[float, float]]:
    """As `helicorder.js` reads them."""
    codes = [64 * LETTERS.index(a) + LETTERS.index(b) - 2048 for a, b in zip(text[::2], text[1::2], strict=True)]
    values = [np.sign(code) * (2 ** (abs(code) / 66) - 1) for code in codes]
    return list(zip(values[::2], values[1::2], strict=True))


@given(st.lists(st.tuples(st.floats(-(2.0**31), 2.0**31), st.floats(-(2.0**31), 2.0**31)), min_size=1))
def test_every_count_comes_back_to_one_per_cent(extremes: list[tuple[float, float]]) -> None:
    text = letters(np.array(extremes))
    assert len(text) == 4 * len(extremes)
    assert set(text) <= set(LETTERS)
    for told, was in zip(counts(text), extremes, strict=True):
        assert told == pytest.approx(was, rel=0.011, abs=0.51)


def taken(envelope: Envelope) -> dict[int, tuple[float, float]]:
    """By seconds since the epoch of the tests."""
    found = {}
    for hour, place, text in envelope.take():
        for n, pair in enumerate(counts(text)):
            found[hour * 3600 + (place // 4 + n) * BIN_S - EPOCH_S] = pair
    return found


@pytest.mark.parametrize("lengths", [[3000], [1] * 3000, [7, 2993], [1499, 2, 1499]])
def test_packets_make_no_difference(lengths: Sequence[int]) -> None:
    """To least and most; the running mean that is taken away is that of zeros."""
    assert EPOCH_S % BIN_S == 0
    samples, envelope, at = noise(3000) - round(noise(3000).mean()), Envelope(), 0
    envelope.push(packet("Z", -6000, np.zeros(6000, np.int32)))
    envelope.push(packet("Z", -12000, np.zeros(6000, np.int32)))
    list(envelope.take())
    for length in lengths:
        envelope.push(packet("Z", at, samples[at : at + length]))
        at += length
    found = taken(envelope)
    assert list(found) == [0, 5, 10, 15, 20, 25]
    for second, (low, high) in found.items():
        own = samples[second * RATE : (second + BIN_S) * RATE]
        largest = max(abs(own.min()), abs(own.max()))
        assert (low, high) == pytest.approx((own.min(), own.max()), abs=0.2 * largest)


def test_an_offset_and_a_drift_are_taken_away() -> None:
    envelope, wave = Envelope(), np.rint(100 * np.sin(np.arange(1000))).astype(np.int32)
    for number in range(60):
        envelope.push(packet("Z", 1000 * number, wave + 1_000_000 + 10 * number))
    low, high = list(taken(envelope).values())[-1]
    assert -160 < low < -20
    assert 100 < high < 260


def test_what_changed_is_told_once_and_hour_by_hour() -> None:
    envelope, left = Envelope(), 3600 - EPOCH_S % 3600
    envelope.push(packet("Z", 100 * (left - 10), noise(2000)))
    hours = list(envelope.take())
    assert [(place, len(text)) for _, place, text in hours] == [(4 * (BINS - 2), 8), (0, 8)]
    assert hours[1][0] == hours[0][0] + 1
    assert list(envelope.take()) == []
    envelope.push(packet("Z", 100 * (left + 10), noise(100)))
    envelope.push(packet("Z", 100 * (left - 10), noise(100)))
    assert [place for _, place, _ in envelope.take()] == [4 * (BINS - 2), 8]


def test_a_sample_of_another_time_does_no_lasting_harm() -> None:
    envelope = Envelope()
    envelope.push(packet("Z", 100 * 3600 * 24 * 3650, noise(100)))
    envelope.push(packet("Z", 0, noise(500)))
    assert 0 in taken(envelope)


def test_what_nobody_takes_fills_an_hour_and_no_more() -> None:
    envelope = Envelope()
    for number in range(2 * BINS):
        envelope.push(packet("Z", 500 * number, noise(500)))
    assert sum(len(text) for _, _, text in envelope.take()) == 4 * BINS
    assert len(envelope._bins) == 60


def test_nothing_is_made_of_slow_channels_and_of_no_numbers() -> None:
    envelope = Envelope()
    envelope.push(packet("Z", 0, noise(10_000), Fraction(1, 100)))
    envelope.push(packet("Z", 0, np.full(100, np.nan, np.float32)))
    assert list(envelope.take()) == []
