"""Operating points, chosen on noise whose alarms are known."""

from __future__ import annotations

import numpy as np
import pytest

from quake.data.seisbench import DataError
from trainer.evaluation.operating import CHOICES, Piece, alarms_at, choose_points, counted
from trainer.evaluation.scoring import Curve, log_odds

QUIET = -9.0
"""A score that no choice of ``on`` or ``off`` reaches."""


def noise(name: str, hours: float, bursts: dict[float, float], lasting: int = 3) -> Piece:
    """Scores every half second; ``bursts``: probability by the second that it begins in, so many scores long."""
    times_s = np.arange(round(hours * 7200), dtype=np.float64) * 0.5
    scores = np.full(len(times_s), QUIET)
    for begin_s, probability in bursts.items():
        scores[round(begin_s * 2) :][:lasting] = log_odds(probability)
    return Piece(name, Curve(times_s, scores), hours)


TWENTY = noise("twenty", 20.0, {60.0 * n: 0.5005 + 0.02 * n for n in range(25)})
"""Bursts of 0.5005, 0.5205 ... 0.9805, a minute apart."""


def test_each_aim_gets_the_lowest_on_that_keeps_to_it() -> None:
    points = choose_points([TWENTY])
    assert [(point.name, point.on, point.false_alarms) for point in points] == [
        ("quiet", 0.941, 2),
        ("standard", 0.581, 20),
        ("sensitive", 0.5, 25),
    ]
    assert {(point.off / point.on, point.in_a_row, point.hours) for point in points} == {(0.5, 2, 20.0)}
    assert [point.is_extrapolated for point in points] == [True, False, False]


def test_a_part_of_an_alarm_is_not_allowed() -> None:
    short = noise("short", 9.9, {60.0: 0.9})
    assert choose_points([short], {"quiet": 0.1})[0].on == 0.901
    long = noise("long", 10.0, {60.0: 0.9})
    assert choose_points([long], {"quiet": 0.1})[0].on == 0.5


def test_near_one_the_choices_are_finer() -> None:
    sure = noise("sure", 5.0, {60.0: 0.99523})
    assert choose_points([sure], {"standard": 0.1})[0].on == 0.9953
    assert CHOICES[0] == 0.5
    assert CHOICES[-1] == 0.9999
    assert 0.99 in CHOICES
    assert list(CHOICES) == sorted(set(CHOICES))


def test_what_does_not_last_opens_nothing() -> None:
    spikes = noise("spikes", 1.0, {60.0 * n: 0.9999 for n in range(50)}, lasting=2)
    assert choose_points([spikes], {"standard": 1.0}, in_a_row=3)[0].false_alarms == 0
    with pytest.raises(
        DataError, match=r"operating point standard: 1 false alarms are allowed, and 50 come at on 0\.9999"
    ):
        choose_points([spikes], {"standard": 1.0}, in_a_row=2)


def test_an_alarm_that_never_ends_is_no_rare_one() -> None:
    """Up to 0.80 one alarm stands for an hour; from there to 0.90 each minute has one."""
    waves = noise("waves", 1.0, {60.0 * n: 0.9 for n in range(60)}, lasting=60)
    waves.curve.scores[waves.curve.scores == QUIET] = log_odds(0.4)
    few, many = choose_points([waves], {"standard": 3.0, "sensitive": 100.0})
    assert (few.on, many.on) == (0.901, 0.5)


def test_an_alarm_that_does_not_fall_to_half_of_on_is_one() -> None:
    dips = noise("dips", 1.0, {100.0: 0.9, 101.5: 0.6, 103.0: 0.9})
    (point,) = choose_points([dips], {"standard": 1.0})
    assert (point.on, point.false_alarms) == (0.5, 1)
    assert len(alarms_at([dips], point)) == 1


def test_runs_and_alarms_end_with_their_piece() -> None:
    ends = noise("ends", 0.5, {1799.5: 0.95}, lasting=1)
    begins = noise("begins", 0.5, {0.0: 0.95}, lasting=1)
    assert choose_points([ends, begins], {"standard": 1.0})[0].on == 0.5


def test_the_alarms_of_a_point_are_listed_to_be_looked_at() -> None:
    pieces = [TWENTY, noise("other", 1.0, {100.0: 0.97})]
    quiet, _, sensitive = choose_points(pieces)
    alarms = alarms_at(pieces, sensitive)
    assert len(alarms) == sensitive.false_alarms == 26
    assert len(alarms_at(pieces, quiet)) == quiet.false_alarms
    last = alarms[-1]
    assert (last.piece, last.time_s, last.lasted_s) == ("other", 100.5, 1.0)  # opened by the second of three
    assert last.score == pytest.approx(log_odds(0.97))


def test_an_alarms_score_is_the_highest_from_the_first_window_of_its_run() -> None:
    piece = noise("falling", 1.0, {100.0: 0.99, 100.5: 0.9})
    (point,) = choose_points([piece], {"standard": 10.0})
    assert alarms_at([piece], point)[0].score == pytest.approx(log_odds(0.99))


def test_an_alarm_that_stands_at_the_end_lasts_to_the_end() -> None:
    piece = noise("cut", 1.0, {3590.0: 0.9}, lasting=100)
    (point,) = choose_points([piece], {"standard": 10.0})
    (alarm,) = alarms_at([piece], point)
    assert alarm.time_s + alarm.lasted_s == 3599.5


def test_noise_that_cannot_be_counted_in_is_refused() -> None:
    with pytest.raises(DataError, match="there are none"):
        choose_points([])
    broken = noise("broken", 1.0, {})
    broken.curve.scores[7] = np.nan
    with pytest.raises(DataError, match="broken: a score is not finite"):
        choose_points([TWENTY, broken])


def test_a_given_point_is_counted() -> None:
    pieces = [Piece("a", Curve(np.arange(6.0), np.array([-5.0, 4.0, 2.0, -5.0, 4.0, -5.0])), 2.0)]
    point = counted(pieces, in_a_row=2, on=0.9)
    assert (point.false_alarms, point.hours, point.in_a_row, point.off) == (1, 2.0, 2, 0.45)
    assert counted(pieces, in_a_row=1, on=0.9).false_alarms == 2
    assert counted(pieces, in_a_row=3, on=0.9).false_alarms == 0
