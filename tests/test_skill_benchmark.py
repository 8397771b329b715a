"""Tables of skill say what the comparison says, group by group, and count false alarms where they were."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_detector import LEAD, event, louder, noise

from benchmarks import skill as benchmark
from benchmarks.tables import MEAN, Estimate, Table, poisson, recalls
from quake.artifact import CompiledModel
from quake.data.decision import OperatingPoint
from trainer.data.record import Record
from trainer.evaluation import protocol
from trainer.evaluation.alarms import assess
from trainer.evaluation.scoring import log_odds, score_windows

QUIET_NOISE = "continuous_quiet (no pick)"
POINTS = (
    OperatingPoint(name="quiet", on=0.9, off=0.5, in_a_row=3, aim_an_hour=0.1, false_alarms=0, hours=9.0),
    OperatingPoint(name="standard", on=0.7, off=0.4, in_a_row=1, aim_an_hour=1, false_alarms=7, hours=9.0),
)


@pytest.fixture(scope="module")
def subject() -> benchmark.Subject:
    """Faint and loud earthquakes, one whose P comes at once, and noise of three kinds with a burst in each."""
    events = [event(n, 30.0, source="loud", distance_km=5.0, snr_db=30.0) for n in range(4)]
    events += [event(n, 2.0, source="faint", distance_km=15.0 + n, snr_db=float(n)) for n in range(4, 8)]
    events.append(event(8, 30.0, p_s=1.5, source="loud"))
    ambient = [noise(n, 600.0, name=f"X.site{n % 2}.{n}", origin="ambient_survey (raw)") for n in (10, 11, 12)]
    others = [noise(13, 600.0, origin="labelled"), noise(14, 600.0, origin=QUIET_NOISE)]
    return benchmark.Subject.of(louder(), [*events, *map(_burst, [*ambient, *others])], 1.0)


def _burst(record: Record) -> Record:
    samples = record.samples.copy()
    samples[:, LEAD + 20000 : LEAD + 20200] *= 8
    return replace(record, samples=samples)


def test_poisson_intervals_are_garwoods() -> None:
    for count, hours, expected in ((0, 2.0, (0.0, 0.0, 3.6889 / 2)), (3, 1.0, (3.0, 0.6187, 8.7673))):
        found = poisson(count, hours)
        assert (found.value, found.low, found.high) == pytest.approx(expected, abs=1e-4)
    assert math.isnan(poisson(0, 0.0).value)


def test_recalls_are_shares_and_their_mean_weighs_groups_alike(subject: benchmark.Subject) -> None:
    evidence = subject.evidence
    groups = {str(name): evidence.sources == name for name in ("faint", "loud")}
    hits = {"all": np.ones(9, bool), "some": np.arange(9) % 2 == 0}
    found = recalls(evidence, groups, hits)
    assert found["loud", "all"] == found[MEAN, "all"] == Estimate(1.0, 1.0, 1.0)
    assert found["loud", "some"].value == 3 / 5
    assert found["faint", "some"].value == 2 / 4
    assert found[MEAN, "some"].value == pytest.approx(0.55)
    low, high = found[MEAN, "some"].low, found[MEAN, "some"].high
    assert low is not None
    assert high is not None
    assert 0 < low < 0.55 < high < 1


def test_a_group_that_few_draws_hold_has_no_interval(subject: benchmark.Subject) -> None:
    one = {"one": np.arange(9) == 0}
    estimate = recalls(subject.evidence, one, {"x": np.ones(9, bool)})["one", "x"]
    assert estimate == Estimate(1.0)


def test_sums_are_those_of_the_comparison(subject: benchmark.Subject) -> None:
    table, summary = benchmark.table_of_sums(subject), protocol.summary(subject.evidence)
    rows = {str(row[0]): dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert set(rows) == {"figure of merit", "10 an hour", "own"}  # 0.7 hours hold no 3 alarms at 3 an hour
    assert _value(rows["figure of merit"]["macro recall 10 s"]) == summary["mean_recall_10s"]
    stated = summary["at_10_per_hour"]
    assert rows["10 an hour"]["log-odds"] == stated["threshold"]
    assert _value(rows["10 an hour"]["macro recall 10 s"]) == pytest.approx(stated["macro_recall"]["10s"], abs=1e-4)
    assert _value(rows["10 an hour"]["macro recall 2 s"]) == pytest.approx(stated["macro_recall"]["2s"], abs=1e-4)
    assert rows["10 an hour"]["median delay, s"] == pytest.approx(stated["median_delay_s"], abs=0.01)
    assert _value(rows["10 an hour"]["false alarms an hour"]) <= 10


def test_a_single_window_ends_so_long_after_p(subject: benchmark.Subject) -> None:
    scores, record = benchmark.single_windows(subject), subject.events[2]
    ends = np.array([record.p + 100 * seconds for seconds in (1, 2, 3, 5, 10)])
    assert np.array_equal(scores[2], score_windows(subject.model, record.samples, ends))
    short = replace(record, samples=record.samples[:, : record.p + 400])
    one = benchmark.single_windows(replace(subject, records=(short,)))
    assert np.array_equal(one[0, :3], scores[2, :3])
    assert (one[0, 3:] == protocol.LOWEST).all()


def test_tables_by_seconds_split_by_source_and_view(subject: benchmark.Subject) -> None:
    tables = {table.title: table for table in benchmark.tables_by_seconds(subject)}
    assert len(tables) == 4  # two rules, two thresholds; no record has 20.8 s before P
    alarms = tables["Alarm within so long after P, own"]
    assert [row[:2] for row in alarms.rows] == [("faint", 4), ("loud", 5), (MEAN, 9)]
    assert _value(alarms.rows[1][-1]) == 1
    wide = [replace(record, p=record.p + 100) if record.is_event else record for record in subject.records]
    evidence = replace(subject.evidence, full_view=np.arange(9) < 4)
    seen = list(benchmark.tables_by_seconds(replace(subject, records=tuple(wide), evidence=evidence)))
    assert [row[:2] for row in seen[2].rows] == [("loud", 4), (MEAN, 4)]
    assert seen[2].title.endswith(", records with 20.8 s of real noise before P")


def test_bands(subject: benchmark.Subject) -> None:
    snr, distance = benchmark.tables_by_band(subject)
    assert [row[:2] for row in snr.rows] == [("< 5", 1), ("5 to 10", 3), ("30 to 40", 4), ("not known", 1)]
    assert [row[:2] for row in distance.rows] == [("< 10", 4), ("10 to 20", 1), ("20 to 50", 3), ("not known", 1)]


def test_false_alarms_stand_by_the_kind_of_noise(subject: benchmark.Subject) -> None:
    table = benchmark.table_of_noise(subject)
    rows = {str(row[0]): dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert list(rows) == [
        "ambient_survey, made, X.site0",
        "ambient_survey, made, X.site1",
        "before P, faint",
        "before P, loud",
        "continuous_quiet, made *",
        "labelled, made",
        "all that the comparison counts",
    ]
    assert rows["ambient_survey, made, X.site0"]["hours"] == pytest.approx(1200 / 3600)
    assert rows["before P, loud"]["hours"] == pytest.approx(4 * 18 / 3600)  # where P comes at once there is none
    assert [row["alarms at own"] for row in rows.values()] == [2, 1, 0, 0, 1, 1, 4]
    total = rows["all that the comparison counts"]
    assert total["hours"] == pytest.approx(subject.evidence.hours.sum())
    assert total["an hour at own"] == poisson(4, float(subject.evidence.hours.sum()))


def test_the_models_own_rules_are_its_operating_points(subject: benchmark.Subject) -> None:
    assert list(benchmark.rules(louder())) == ["own"]
    found = benchmark.rules(louder(*POINTS[::-1]))
    assert {name: (rule.on, rule.in_a_row) for name, rule in found.items()} == {
        "standard": (log_odds(0.7), 1),
        "quiet": (log_odds(0.9), 3),
    }
    table = benchmark.table_of_own(replace(subject, model=louder(*POINTS[::-1])))
    worth = assess(subject.records, subject.scores, found["quiet"])
    assert table.rows[1][0] == "quiet"
    assert table.rows[1][4:7] == pytest.approx((worth.recall, worth.macro_recall, worth.median_delay_s), nan_ok=True)


def test_differences_from_pickers_are_paired_and_the_best_stands_first(
    subject: benchmark.Subject, tmp_path: Path
) -> None:
    subject.scores.to_csv(tmp_path / "same.csv.gz", index=False)
    subject.scores.assign(score=0.0).to_csv(tmp_path / "deaf.csv", index=False)
    first, second = benchmark.table_of_peers(subject, tmp_path).rows
    looking_ahead = protocol.figure_of_merit(protocol.collect(subject.records, subject.scores, picker=True))
    assert (first[0], first[1], first[3]) == ("same", looking_ahead, "no")
    ours = protocol.figure_of_merit(subject.evidence)
    assert _value(first[2]) == pytest.approx(ours - looking_ahead, abs=1e-4)
    assert (second[0], second[3]) == ("deaf", "yes")


def test_cells_are_said_and_json_has_no_nan() -> None:
    table = Table(
        "t", ("a", "b", "c", "d"), (("x", 2, math.nan, Estimate(0.5, 0.25, 0.75)), ("y", 3, 0.5, Estimate(math.nan)))
    )
    assert table.markdown().splitlines()[-2:] == ["| x | 2 | - | 0.500 [0.250, 0.750] |", "| y | 3 | 0.500 | - |"]
    content = json.loads(json.dumps(table.content()), parse_constant=pytest.fail)
    assert content["rows"][0] == {"a": "x", "b": 2, "c": None, "d": {"value": 0.5, "low": 0.25, "high": 0.75}}


def test_it_runs(
    subject: benchmark.Subject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "read", lambda data, split, sources: subject.records)
    monkeypatch.setattr(CompiledModel, "load", lambda path, device, threads: louder())
    path = tmp_path / "x.json"
    monkeypatch.setattr(sys, "argv", ["x", "louder.pt", "--json", str(path)])
    benchmark.main()
    content = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert content["hop_s"] == 1.0
    assert len(content["tables"]) == 2 + 4 + 2 + 1
    assert capsys.readouterr().out.startswith("louder 1.0.0, windows, dev, hop 1 s\n\n**In all**")


def test_earthquakes_of_some_sources_with_all_noise(tmp_path: Path) -> None:
    import h5py

    rows = []
    with h5py.File(tmp_path / "waveforms.hdf5", "w") as archive:
        for number, (category, source) in enumerate(
            [("earthquake", "a"), ("earthquake", "b"), ("noise", "a"), ("noise", "b")]
        ):
            archive[f"data/t{number}"] = np.random.default_rng(number).standard_normal((3, 3000)).astype(np.float32)
            p = 1500 if category == "earthquake" else math.nan
            rows.append((f"t{number}", category, source, p, "dev", 100.0))
    names = [
        "trace_name",
        "trace_category",
        "source_dataset",
        "trace_p_arrival_sample",
        "split",
        "trace_sampling_rate_hz",
    ]
    pd.DataFrame(rows, columns=names).to_csv(tmp_path / "metadata.csv", index=False)
    assert [record.name for record in benchmark.read(tmp_path, "dev", ["b"])] == ["t1", "t2", "t3"]
    assert len(benchmark.read(tmp_path, "dev")) == 4


def _value(cell: object) -> float:
    assert isinstance(cell, Estimate)
    return cell.value
