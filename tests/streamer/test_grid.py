from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quake.times import span_ns
from streamer.grid import Grid, ratio, sample_ns, sample_number
from streamer.stages import NS

GRIDS = st.builds(Grid, st.sampled_from([1, 3, 20, 100, 128]), st.integers(1, 500), st.integers(1, 120))
TIMES = st.integers(-(10**12), 2 * 10**18)


@given(GRIDS, TIMES)
def test_first_window_at_or_after_a_time_and_first_that_needs_it(grid: Grid, time_ns: int) -> None:
    at = grid.first_at_or_after(time_ns)
    assert at * grid.hop * NS >= time_ns * grid.rate > (at - 1) * grid.hop * NS
    after = grid.first_ending_after(time_ns)
    assert (after * grid.hop + grid.window) * NS > time_ns * grid.rate
    assert ((after - 1) * grid.hop + grid.window) * NS <= time_ns * grid.rate


@given(st.integers(0, 10**12), st.sampled_from([Fraction(100), Fraction(125, 4), Fraction(1, 10), Fraction(1000, 3)]))
def test_sample_numbers_and_times_are_inverse(number: int, rate: Fraction) -> None:
    assert sample_number(sample_ns(number, rate), rate) == (number, False)


@given(st.integers(0, 10**6), st.fractions(Fraction(1, 100), 1000, max_denominator=10**6))
def test_a_span_is_the_rounded_quotient(samples: int, rate: Fraction) -> None:
    assert span_ns(samples, rate) == round(samples * NS / rate)


@pytest.mark.parametrize(("samples", "lasts"), [(1, 0), (3, 2), (5, 2)])
def test_a_span_that_ends_on_half_a_nanosecond_goes_to_the_even(samples: int, lasts: int) -> None:
    assert span_ns(samples, Fraction(2 * NS)) == round(Fraction(samples, 2)) == lasts


@pytest.mark.parametrize(
    ("offset", "number", "doubtful"),
    [(0.44, 0, False), (0.46, 0, True), (0.54, 1, True), (0.56, 1, False), (-0.44, 0, False), (-0.48, 0, True)],
)
def test_an_offset_is_rounded_and_doubted_near_one_half(offset: float, number: int, doubtful: bool) -> None:
    base = 1_700_000_000 * 100
    place = 1_700_000_000 * NS + round(offset * NS / 100)
    assert sample_number(place, Fraction(100)) == (base + number, doubtful)


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (Fraction(100), Fraction(1)),
        (Fraction("99.9999"), Fraction(1)),
        (Fraction("100.0009"), Fraction(1)),
        (Fraction("99.95"), None),
        (Fraction(50), Fraction(2)),
        (Fraction("31.25"), Fraction(16, 5)),
        (Fraction(1, 10), Fraction(1000)),
        (Fraction(1, 11), None),
        (Fraction(0), None),
        (Fraction(-100), None),
    ],
)
def test_rates_that_are_resampled(rate: Fraction, expected: Fraction | None) -> None:
    assert ratio(rate, 100) == expected


def test_a_window_and_a_hop_last_whole_nanoseconds() -> None:
    assert (Grid(20, 40, 10).window_ns, Grid(20, 40, 10).hop_ns) == (2 * NS, NS // 2)
    assert (Grid(3, 2, 1).window_ns, Grid(3, 2, 1).hop_ns) == (666_666_666, 333_333_333)


def test_a_hop_must_be_whole_samples() -> None:
    assert Grid.of(100.0, 2080, 0.1) == Grid(100, 2080, 10)
    with pytest.raises(ValueError, match=r"a hop of 0\.005 s is 0\.5 samples at 100 Hz"):
        Grid.of(100.0, 2080, 0.005)
    assert Grid.of(100.0, 2080, 0.01).hop == 1
    for rate_hz, hop_s in ((62.5, 1.0), (62.5, 2.0), (100.0, 0.0), (100.0, -1.0)):
        with pytest.raises(ValueError, match="whole number"):
            Grid.of(rate_hz, 2080, hop_s)
