"""What alarms are worth, counted on scores that are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from quake.artifact import CompiledModel
from trainer.evaluate import Rule, assess, choose_on, log_odds, openings, score_records
from trainer.windows import Record, read_records

ZOO = Path(__file__).parents[2] / "models" / "zoo"
RULE = Rule(on=1.0, off=0.0, in_a_row=2)


def test_alarms_open_after_two_in_a_row_and_close_below_off() -> None:
    scores = np.array([2, 0.5, 2, 2, 0.5, 2, -1, 2, 2, 2])
    assert list(openings(scores, RULE)) == [(3, 6), (8, 10)]
    assert list(openings(scores, replace(RULE, in_a_row=1))) == [(0, 6), (7, 10)]


@pytest.fixture
def records(data: Path) -> list[Record]:
    return read_records(data, "dev")


def scored(records: list[Record], alarm_s: dict[str, tuple[float, float]]) -> pd.DataFrame:
    """Scores of -5 each second, and of 5 within the given seconds of a record, lead included."""
    tables = []
    for record in records:
        times = np.arange(53.0, record.samples.shape[1] / 100)
        begin, end = alarm_s.get(record.name, (1e9, 1e9))
        scores = np.where((times >= begin) & (times <= end), 5.0, -5.0)
        tables.append(pd.DataFrame({"trace_name": record.name, "time_s": times, "score": scores}))
    return pd.concat(tables)


def test_detections_false_alarms_and_standing_alarms(records: list[Record]) -> None:
    p_s = 85.0
    table = scored(
        records,
        {
            "trace16": (p_s + 1, p_s + 20),  # opens 2 s after P: detected
            "trace18": (p_s - 30, p_s + 20),  # stands before: not detected, and false
            "trace20": (p_s + 12, p_s + 20),  # too late
            "trace17": (70.0, 71.0),  # noise: false
        },
    )
    worth = assess(records, table, RULE)
    assert worth.recall == pytest.approx(1 / 8)
    assert worth.median_delay_s == pytest.approx(2.0)
    assert worth.hours == pytest.approx((8 * 23 + 8 * 49) / 3600, rel=0.01)
    assert worth.false_an_hour == pytest.approx(2 / worth.hours)


def test_noise_chosen_by_a_detector_counts_for_nothing(records: list[Record]) -> None:
    unfair = [replace(r, origin="" if r.is_event else "pre_p") for r in records]
    table = scored(unfair, {"trace17": (70.0, 71.0)})
    assert assess(unfair, table, RULE).false_an_hour == 0


def test_the_threshold_keeps_to_the_rate(records: list[Record]) -> None:
    table = scored(records, {})
    noise = table["trace_name"] == "trace17"
    table.loc[noise, "score"] = log_odds(0.73)
    assert choose_on(records, table, 3.0) == pytest.approx(0.74)
    assert choose_on(records, table, 1e9) == pytest.approx(0.5)


@pytest.mark.shared
@pytest.mark.parametrize("variant", ["recorded", "z-only"])
def test_the_shipped_detector_finds_most_earthquakes_of_dev(shared: Path, variant: str) -> None:
    detector = CompiledModel.load(ZOO / "detector.pt", "cpu", threads=1)
    some = read_records(shared, "dev")[::12]
    thresholds = detector.spec.thresholds
    table = score_records(detector, some, 1.0, variant)
    worth = assess(some, table, Rule(log_odds(thresholds.on), log_odds(thresholds.off)))
    assert worth.recall >= 0.7
    assert worth.median_delay_s <= 4
