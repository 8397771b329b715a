"""The comparison by events: the same figures as the reference, to the last digit, and each rule for itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dev_records import earthquake, noise, read_dev, subset

from quake.artifact import CompiledModel
from quake.data.seisbench import DataError
from trainer.data.record import Record
from trainer.evaluation.protocol import (
    LOWEST,
    collect,
    detected,
    difference,
    figure_of_merit,
    is_fair,
    read_scores,
    separate_peaks,
    summary,
    threshold_for,
)
from trainer.evaluation.scoring import Curve, DetectorScorer, score_records

ZOO = Path(__file__).parents[3] / "models" / "zoo"
Reference = Callable[..., str]


@pytest.fixture
def evaluation(shared: Path) -> Path:
    return shared.parents[1] / "eval"


@pytest.fixture
def reference(evaluation: Path) -> Reference:
    """What the reference prints."""

    def run(data: Path, scores: Path, *options: str) -> str:
        program = [sys.executable, "score.py", "--data", str(data), "--split", "dev", "--scores", str(scores)]
        return subprocess.run([*program, *options], cwd=evaluation, capture_output=True, text=True, check=True).stdout

    return run


def as_json(report: dict[str, Any]) -> str:
    return json.dumps(report, indent=2) + "\n"


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "picker", "other"),
    [("stalta", False, None), pytest.param("eqt_volpick_ps", True, "phasenet_volpick", marks=pytest.mark.drill)],
)
def test_equals_the_reference_on_other_detectors(
    shared: Path, evaluation: Path, reference: Reference, name: str, picker: bool, other: str | None
) -> None:
    folder, records = evaluation / "peers_dev_scores", read_dev(shared)
    options = ["--picker"] if picker else []
    ours = collect(records, read_scores(folder / f"{name}.csv.gz"), picker=picker)
    report = summary(ours)
    if other:
        path = folder / f"{other}.csv.gz"
        options += ["--against", str(path)]
        theirs = collect(records, read_scores(path), picker=True)
        report["against"] = {"scores": path.name, **difference(ours, theirs)}
    assert as_json(report) == reference(shared, folder / f"{name}.csv.gz", *options)


@pytest.mark.shared
def test_equals_the_reference_on_the_shipped_detector(shared: Path, tmp_path: Path, reference: Reference) -> None:
    folder = subset(shared, tmp_path / "some", np.arange(299) % 15 == 2)
    records = [record for record in read_dev(folder) if is_fair(record)]
    detector = CompiledModel.load(ZOO / "detector.pt", "cpu", threads=1)
    table = score_records(DetectorScorer(detector), records)
    table.to_csv(tmp_path / "scores.csv", index=False)
    report = as_json(summary(collect(records, table)))
    assert report == as_json(summary(collect(records, read_scores(tmp_path / "scores.csv"))))
    assert report == reference(folder, tmp_path / "scores.csv")


@pytest.mark.shared
def test_equals_the_reference_on_ties_and_crowded_records(shared: Path, tmp_path: Path, reference: Reference) -> None:
    rng = np.random.default_rng(0)
    crowded, shared_ids = rng.random(299) < 0.3, rng.integers(0, 40, 299)
    changes = {"multi_event": crowded, "source_id": np.array([f"quake{i}" for i in shared_ids])}
    folder = subset(shared, tmp_path / "some", np.ones(299, bool), **changes)
    records = read_dev(folder)
    tables = []
    for record in records:
        end_s = record.samples.shape[1] / 100
        times = np.sort(np.concatenate([np.arange(53, end_s, 0.9), rng.uniform(0, end_s, 30)])).round(2)
        after = times - record.p / 100
        rises = np.where(record.is_event & (np.abs(after) < 6), rng.integers(0, 5), 0)
        scores = rng.integers(-5, 4, len(times)) + rises
        tables.append(pd.DataFrame({"trace_name": record.name, "time_s": times, "score": scores}))
    table = pd.concat(tables).sample(frac=1, random_state=0)
    table.to_csv(tmp_path / "scores.csv", index=False)
    read = read_scores(tmp_path / "scores.csv")
    report = summary(collect(records, read))
    report["against"] = {
        "scores": "scores.csv",
        **difference(*(collect(records, read, picker=p) for p in (False, True))),
    }
    assert as_json(report) == reference(folder, tmp_path / "scores.csv", "--against", str(tmp_path / "scores.csv"))


P_S = 90.0  # lead included


def scores_of(records: list[Record], alarms: dict[str, list[tuple[float, float]]], hop_s: float = 0.5) -> pd.DataFrame:
    """Scores of -5, and those given at (time, score)."""
    tables = []
    for record in records:
        times = np.arange(53.0, record.samples.shape[1] / 100, hop_s)
        scores = np.full(len(times), -5.0)
        for time, score in alarms.get(record.name, []):
            scores[np.abs(times - time).argmin()] = score
        tables.append(pd.DataFrame({"trace_name": record.name, "time_s": times, "score": scores}))
    return pd.concat(tables)


@pytest.mark.parametrize(
    ("alarms", "within"),
    [
        ([(P_S + 1.5, 5.0)], {2.0, 3.0, 5.0, 10.0}),
        ([(P_S - 1.0, 5.0)], {1.0, 2.0, 3.0, 5.0, 10.0}),  # picks are not exact
        ([(P_S + 10.5, 5.0)], set()),
        ([(P_S - 1.5, 5.0), (P_S + 1, 5.0)], set()),  # it stood already
        ([(P_S - 6.0, 5.0), (P_S + 1, 5.0)], set()),
        ([(P_S - 6.5, 5.0), (P_S + 1, 5.0)], {1.0, 2.0, 3.0, 5.0, 10.0}),  # long over
    ],
)
def test_detected_within_the_horizons(alarms: list[tuple[float, float]], within: set[float]) -> None:
    records = [earthquake(1), noise(1)]
    evidence = collect(records, scores_of(records, {"event1": alarms}))
    assert {h for h in (1.0, 2.0, 3.0, 5.0, 10.0) if detected(evidence, 0.0, h)[0]} == within


@pytest.mark.parametrize("exempt", ["picker", "crowded"])
def test_a_standing_alarm_is_not_held_against_pickers_and_in_crowded_records(exempt: str) -> None:
    records = [replace(earthquake(1), is_crowded=exempt == "crowded"), noise(1)]
    table = scores_of(records, {"event1": [(P_S - 3, 5.0), (P_S + 1, 5.0)]})
    assert detected(collect(records, table, picker=exempt == "picker"), 0.0, 1.0)[0]


def test_what_is_noise_and_how_long() -> None:
    records = [
        earthquake(1),
        replace(earthquake(2), is_crowded=True),
        noise(1),
        replace(noise(2), origin="continuous_quiet (nothing found)"),
        replace(noise(3), origin="pre_p"),
        replace(noise(4), kind="unlabelled"),
        replace(earthquake(3), p=-1),
    ]
    evidence = collect(
        records, scores_of(records, {"event1": [(P_S - 2.0, 9.0), (55.0, 8.0)], "noise1": [(70.0, 7.0)]})
    )
    assert evidence.hours * 3600 == pytest.approx([28, 60])  # up to 2 s before P; the crowded record has none
    assert [peaks.max() for peaks in evidence.peaks] == [-5, 7]  # neither at 2 s before P, nor in the lead
    assert len(evidence.before) == 2


def test_peaks_are_apart_and_the_highest_comes_first() -> None:
    curve = Curve(np.array([0.0, 6.0, 12.0, 20.0, 30.0]), np.array([1.0, 3.0, 2.0, 2.5, 0.0]))
    assert separate_peaks(curve).tolist() == [3.0, 2.5, 0.0]


def test_the_threshold_is_the_smallest_that_keeps_to_the_rate() -> None:
    peaks = np.array([5.0, 4.0, 3.0])
    assert threshold_for(peaks, 1.0, 1.0) == np.nextafter(4.0, np.inf)
    assert threshold_for(peaks, 10.0, 0.1) == np.nextafter(4.0, np.inf)  # 0.1 * 10 is less than 1 in no arithmetic
    assert threshold_for(peaks, 0.5, 1.0) == np.nextafter(5.0, np.inf)
    assert threshold_for(peaks, 3.0, 1.0) == LOWEST


def test_the_figure_of_merit_by_hand() -> None:
    """An hour of noise with one peak a minute, from 1 to 60: at r alarms an hour the threshold is above 60 - r."""
    records = [replace(earthquake(n), source="a" if n == 1 else "b") for n in (1, 2, 3)] + [noise(1, 3600.0)]
    alarms = {f"event{n}": [(P_S + 1, score)] for n, score in ((1, 55.5), (2, 100.0), (3, -4.0))}
    alarms["noise1"] = [(65.0 + 60 * n, n + 1.0) for n in range(60)]
    evidence = replace(collect(records, scores_of(records, alarms)), hours=np.array([0, 0, 0, 1.0]))
    rates = np.geomspace(3, 30, 25)
    first = np.floor(rates + 1e-9) >= 5  # 60 - 5 = 55 < 55.5
    assert figure_of_merit(evidence) == pytest.approx(np.mean((first + 0.5) / 2))
    drawn = np.array([0, 1, 1, 2]), np.array([3])  # the second twice, the third once
    assert figure_of_merit(evidence, drawn) == pytest.approx(np.mean((first + 2 / 3) / 2))


def test_a_draw_without_any_noise_is_not_made() -> None:
    """Records that begin with P have no noise before it: draws of them alone would have no rate."""
    begun = [replace(earthquake(n), p=6100) for n in range(6)]
    records = [*begun, noise(1, 3600.0)]
    evidence = collect(records, scores_of(records, {}))
    assert len(evidence.hours) == 1
    assert summary(evidence)["mean_recall_10s_ci95"] == [0.0, 0.0]


def test_differences_are_paired() -> None:
    records = [earthquake(1), earthquake(2), noise(1, 600)]
    table = scores_of(records, {"event1": [(P_S + 1, 5.0)]})
    both, one = collect(records, table), collect(records[1:], table)
    assert difference(both, both) == {"difference": 0.0, "ci95": [0.0, 0.0], "better": False}
    with pytest.raises(ValueError, match="same records"):
        difference(both, one)


def without_some(table: pd.DataFrame, start_s: float, end_s: float) -> pd.DataFrame:
    return table[(table["time_s"] <= start_s) | (table["time_s"] >= end_s)]


def test_scores_must_be_there_each_second() -> None:
    records = [earthquake(1), noise(1)]
    table = scores_of(records, {})
    collect(records, without_some(table, 80.0, 81.0))
    with pytest.raises(DataError, match=r"event1: more than a second without a score near 80\.0 s"):
        collect(records, without_some(table, 80.0, 81.5))
    with pytest.raises(DataError, match=r"noise1: more than a second without a score near 118\.0 s"):
        collect(records, without_some(table, 118.0, 1000.0))
    collect([earthquake(1), noise(1)], table[(table["trace_name"] == "noise1") | (table["time_s"] < P_S + 10)])


def test_bad_scores_are_refused(tmp_path: Path) -> None:
    records = [earthquake(1), noise(1)]
    table = scores_of(records, {})
    with pytest.raises(DataError, match="noise1: no scores"):
        collect(records, table[table["trace_name"] == "event1"])
    with pytest.raises(DataError, match="event1: a score or its time is not finite"):
        collect(records, scores_of(records, {"event1": [(70.0, np.nan)]}))
    for some in (records[:1], records[1:]):
        part = [replace(some[0], p=some[0].lead)] if some[0].is_event else some
        with pytest.raises(DataError, match="only one of them"):
            collect(part, scores_of(part, {}))
    bad = tmp_path / "scores.csv"
    bad.write_text("trace_name,time_s\na,1\n")
    with pytest.raises(DataError, match=r"scores\.csv: no column score"):
        read_scores(bad)
    bad.write_text("trace_name,time_s,score\na,1,high\n")
    with pytest.raises(DataError, match=r"scores\.csv: cannot be read"):
        read_scores(bad)
    with pytest.raises(DataError, match="cannot be read"):
        read_scores(tmp_path / "none.csv")
