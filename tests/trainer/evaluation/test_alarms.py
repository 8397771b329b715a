"""What the daemon's alarms are worth, counted on scores that are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from dev_records import earthquake, noise
from hypothesis import given
from hypothesis import strategies as st

from quake.data.seisbench import DataError
from streamer.grid import Grid
from streamer.stages import Score, Window
from streamer.trigger import ModelName, Thresholds, Trigger
from trainer.data.record import Record
from trainer.evaluation.alarms import Rule, assess, choose_on, openings
from trainer.evaluation.scoring import log_odds

RULE = Rule(on=1.0, off=0.0, in_a_row=2)
P_S = 85.0
RECORDS = [earthquake(n, 25.0, 50.0) for n in range(8)] + [noise(n, 50.0) for n in range(8)]


def test_alarms_open_with_the_mean_of_two_in_a_row_and_close_below_off() -> None:
    scores = np.array([2, -0.5, 2, 0.5, 0.4, 2, -1, 0.8, 1.2, 2])
    assert list(openings(scores, RULE)) == [(3, 6), (8, 10)]
    assert list(openings(scores, replace(RULE, in_a_row=1))) == [(0, 1), (2, 6), (8, 10)]


@given(st.lists(st.integers(0, 8), max_size=60), st.integers(0, 8), st.integers(0, 8), st.integers(1, 4))
def test_alarms_are_those_of_a_machine_that_hears_one_score_after_the_other(
    scores: list[int], on: int, off: int, in_a_row: int
) -> None:
    expected: list[tuple[int, int]] = []
    run: list[int] = []
    opened = -1
    for index, score in enumerate(scores):
        run = [*run, score][-in_a_row:] if score >= off else []
        if opened < 0 and len(run) == in_a_row and sum(run) >= in_a_row * on:
            opened = index
        elif opened >= 0 and score < off:
            expected.append((opened, index))
            opened = -1
    if opened >= 0:
        expected.append((opened, len(scores)))
    assert list(openings(np.array(scores, float), Rule(on, off, in_a_row))) == expected


PROBABILITIES = st.sampled_from([0.0, 1e-9, 0.1, 0.4, 0.485, 0.5, 0.9, 0.97, 0.98, 0.999, 1 - 1e-8, 1.0])


@given(
    st.lists(PROBABILITIES, max_size=60), st.sampled_from([(0.97, 0.485), (0.9, 0.4), (0.5, 0.5)]), st.integers(1, 5)
)
def test_alarms_are_those_of_the_daemon(probabilities: list[float], limits: tuple[float, float], in_a_row: int) -> None:
    """Of a trigger that closes with one window, has no dead time, and waits for ever."""
    on, off = limits
    daemon = Trigger("S", Grid(20, 40, 20), Thresholds(on, off, in_a_row, 1, 0, 10**6), ModelName("m", 0))
    found: list[tuple[int, int]] = []
    for k, p in enumerate(probabilities):
        window = Window("S", k, np.zeros((3, 40), np.float32), "ZNE", True, 0)
        decided = daemon.decide(Score(window, p))
        if decided is not None:
            found = [*found, (k, len(probabilities))] if decided.off_ns is None else [*found[:-1], (found[-1][0], k)]
    scores = np.array([log_odds(min(max(p, 1e-12), 1 - 1e-12)) for p in probabilities])
    assert list(openings(scores, Rule(log_odds(on), log_odds(off), in_a_row))) == found


def scored(records: list[Record], alarm_s: dict[str, tuple[float, float]]) -> pd.DataFrame:
    """Scores of -5 each second, and of 5 within the given seconds of a record, lead included."""
    tables = []
    for record in records:
        times = np.arange(53.0, record.samples.shape[1] / 100)
        begin, end = alarm_s.get(record.name, (1e9, 1e9))
        scores = np.where((times >= begin) & (times <= end), 5.0, -5.0)
        tables.append(pd.DataFrame({"trace_name": record.name, "time_s": times, "score": scores}))
    return pd.concat(tables)


ALARMS = {
    "event0": (P_S + 1, P_S + 20),  # opens 2 s after P: detected
    "event1": (P_S - 30, P_S + 20),  # stands before: not detected, and false
    "event2": (P_S + 12, P_S + 20),  # too late
    "noise0": (70.0, 71.0),  # false
    "noise1": (54.0, 58.0),  # over before the lead's end: nothing
    "noise2": (54.0, 62.0),  # stands when the record begins: false
}


def test_detections_false_alarms_and_standing_alarms() -> None:
    worth = assess(RECORDS, scored(RECORDS, ALARMS), RULE)
    assert worth.recall == pytest.approx(1 / 8)
    assert worth.median_delay_s == pytest.approx(2.0)
    assert worth.hours == pytest.approx((8 * 23 + 8 * 49) / 3600, rel=0.01)
    assert worth.false_an_hour == pytest.approx(3 / worth.hours)


def test_recall_is_also_the_mean_over_sources() -> None:
    records = [replace(r, source="one" if r.name == "event0" else "others") for r in RECORDS]
    assert assess(records, scored(records, ALARMS), RULE).macro_recall == pytest.approx(0.5)


@pytest.mark.parametrize(("ended_s", "recall"), [(P_S - 3, 0), (P_S - 6, 0), (P_S - 7, 1)])
def test_an_alarm_that_ended_just_before_p_leaves_nothing_to_tell(ended_s: float, recall: float) -> None:
    record = RECORDS[0]
    table = scored([record], {record.name: (P_S - 10, ended_s)})
    table.loc[table["time_s"].between(P_S + 1, P_S + 5), "score"] = 5.0
    assert assess([record], table, RULE).recall == recall


def test_crowded_records_have_no_noise_and_forgive_standing_alarms() -> None:
    records = [replace(r, is_crowded=r.name == "event1") for r in RECORDS]
    alarms = ALARMS | {"event1": (P_S - 3, P_S + 20)}
    worth = assess(records, scored(records, alarms), RULE)
    assert worth.recall == pytest.approx(1 / 8)  # it opened before P: nothing fresh
    assert worth.false_an_hour * worth.hours == pytest.approx(2)
    assert worth.hours == pytest.approx((7 * 23 + 8 * 49) / 3600, rel=0.01)


def test_noise_chosen_by_a_detector_counts_for_nothing() -> None:
    unfair = [replace(r, origin="" if r.is_event else "pre_p") for r in RECORDS]
    assert assess(unfair, scored(unfair, {"noise0": (70.0, 71.0)}), RULE).false_an_hour == 0


def test_the_threshold_keeps_to_the_rate() -> None:
    table = scored(RECORDS, {})
    table.loc[table["trace_name"] == "noise0", "score"] = log_odds(0.73)
    assert choose_on(RECORDS, table, 3.0) == pytest.approx(0.731)
    assert choose_on(RECORDS, table, 1e9) == pytest.approx(0.5)
    table["score"] = 50.0
    assert choose_on(RECORDS, table, 3.0) == pytest.approx(0.999)


def test_an_alarm_that_never_ends_is_no_rare_one() -> None:
    """Up to 0.80 one alarm stands for an hour; from there to 0.90 each minute has one."""
    hour = noise(0, 3600.0)
    table = scored([hour], {})
    table["score"] = np.where(table["time_s"] % 60 < 30, log_odds(0.9), log_odds(0.4))
    assert choose_on([hour], table, 3.0) == pytest.approx(0.901)


def test_a_record_without_scores_is_named() -> None:
    table = scored(RECORDS, {})
    with pytest.raises(DataError, match="noise3: no scores"):
        assess(RECORDS, table[table["trace_name"] != "noise3"], RULE)
