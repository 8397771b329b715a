"""Operating points rest on noise that no fold's model was fitted on, each hour counted once."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import obspy
import pandas as pd
import pytest
from made_detector import LEAD, event, louder, noise

from benchmarks import operating_points as benchmark
from quake.data.decision import OperatingPoint
from quake.times import NS, parse_ns
from trainer.data.record import BY_PICKERS
from trainer.data.seisbench_writing import SeisBenchWriter
from trainer.evaluation.scoring import DetectorScorer, score_records
from trainer.fitting.run_folder import RunFolder

HOP_S = 1.0
START = "2026-01-01T00:00:00Z"
DETECTOR = Path(__file__).parents[1] / "models" / "zoo" / "detector.pt"


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """An earthquake whose P stands at 90 s, of XX.A, and noise of XX.B."""
    folder = tmp_path / "labelled"
    folder.mkdir()
    with SeisBenchWriter(folder) as writer:
        for name, station, category, p in (("b$0", "A", "earthquake_local", 9000), ("b$1", "B", "noise", np.nan)):
            row = {"station_network_code": "XX", "station_code": station, "trace_category": category}
            row |= {"trace_start_time": START, "trace_p_arrival_sample": p, "split": "train", "source_dataset": "made"}
            writer.add(name.replace("$", ""), np.zeros((3, 100), np.float32), row)
    return folder


def test_a_minute_from_an_earthquake_on_is_no_noise(labelled: Path) -> None:
    arrivals = benchmark.Arrivals.of(labelled)
    p_ns = parse_ns(START) + 90 * NS
    times = p_ns + np.array([-3, -2, 0, 60, 61]) * NS
    assert arrivals.quiet("XX.A", times).tolist() == [True, False, False, False, True]
    assert arrivals.quiet("XX.B", times).all()
    assert benchmark.Arrivals.of(None).quiet("XX.A", times).all()


def test_pieces_end_where_windows_lack_and_where_it_is_not_quiet() -> None:
    times = np.array([0.0, 1, 2, 10, 11, 12, 13])
    quiet = np.array([True, True, True, True, False, False, True])
    pieces = list(benchmark._runs("a", times, np.arange(7.0), quiet, HOP_S))
    assert [piece.curve.scores.tolist() for piece in pieces] == [[0, 1, 2], [3], [6]]
    assert sum(piece.hours for piece in pieces) * 3600 == 5


def test_records_of_the_continuous_hours_and_labels_of_pickers_are_left_out() -> None:
    records = [
        noise(1, 100.0),
        noise(2, 100.0, source="cont_made"),
        noise(3, 100.0, origin=f"{BY_PICKERS} nothing"),
        event(4, 20.0, p_s=40.0),
    ]
    table = score_records(DetectorScorer(louder(), HOP_S), records)
    pieces = {piece.name: piece for piece in benchmark.record_pieces(records, table)}
    assert set(pieces) == {records[0].name, records[3].name}
    assert pieces[records[0].name].hours * 3600 == pytest.approx(100, abs=1)
    assert pieces[records[3].name].hours * 3600 == pytest.approx(38)  # to 2 s before P
    assert pieces[records[3].name].curve.times_s.max() < LEAD / 100 + 38


def test_hours_are_scanned_by_the_fold_that_leaves_them_out(tmp_path: Path, labelled: Path) -> None:
    run = RunFolder(tmp_path / "made+other")
    run.path.mkdir()
    run.model.symlink_to(DETECTOR)
    assert [fold.sources for fold in benchmark.folds_of(tmp_path)] == [("made", "other")]
    rows = [("one.mseed", "made", "quiet"), ("two.mseed", "made", "aftershocks"), ("three.mseed", "elsewhere", "quiet")]
    table = pd.DataFrame(rows, columns=["file", "source_dataset", "character"])
    table.to_csv(tmp_path / "continuous.csv", index=False)
    start = obspy.UTCDateTime(START)
    stream = obspy.Stream()
    for place, channel in enumerate(("HHZ", "HHN", "HHE")):
        header = {"network": "XX", "station": "A", "channel": channel, "sampling_rate": 100.0, "starttime": start}
        samples = (np.random.default_rng(place).normal(size=18_000) * 100).astype(np.int32)
        stream += obspy.Trace(samples, header)
    stream.write(str(tmp_path / "one.mseed"), format="MSEED")  # the other files need not be there
    arrivals = benchmark.Arrivals.of(labelled)
    pieces = list(benchmark.continuous_pieces(benchmark.folds_of(tmp_path), tmp_path, arrivals))
    assert {piece.name for piece in pieces} == {"one.mseed XX.A"}
    p_s = float(start) + 90
    times = np.concatenate([piece.curve.times_s for piece in pieces])
    assert ((times < p_s - benchmark.BEFORE_S) | (times > p_s + benchmark.AFTER_S)).all()
    assert 90 < sum(piece.hours for piece in pieces) * 3600 < 99  # of 160 windows


def test_what_is_printed_is_what_a_recipe_takes() -> None:
    point = OperatingPoint(
        name="quiet", on=0.991, off=0.4955, in_a_row=2, aim_an_hour=0.1, false_alarms=2, hours=26.123
    )
    read = tomllib.loads(benchmark.as_recipe(point))["evaluation"]["operating_point"]
    assert OperatingPoint.model_validate(read[0]) == point.model_copy(update={"hours": 26.12})


def test_recall_stands_beside_each_point() -> None:
    records = [event(4, 30.0, p_s=40.0), event(5, 30.0, p_s=40.0)]
    curve = [(r.name, t, 9.0 if r is records[0] and t > r.p / 100 else -9.0) for r in records for t in range(110)]
    scores = pd.DataFrame(curve, columns=["trace_name", "time_s", "score"])
    point = OperatingPoint(name="quiet", on=0.99, off=0.5, in_a_row=1, aim_an_hour=1, false_alarms=2, hours=4.0)
    (row,) = benchmark.table_of([point], records, scores).rows
    assert row[6] == 0.5
