"""A detector's operating points, from the scores of its folds: each place scored by the model that has never seen it.

    python -m benchmarks.operating_points FOLDER --recipe RECIPE [--labelled SET] [--in-a-row 1 2 3 4 | --at 5:0.97] [--json FILE]

FOLDER is that of `benchmarks.leave_one_out`. The noise: quiet and ambient continuous hours, scanned through the daemon's
pipeline by the fold that leaves their source out; and the noise of the labelled records, and their time before P, where it is
of no continuous recording. Not noise: aftershock sequences, and a minute from each P on which the pickers that labelled
the continuous hours agree (--labelled). The points are printed as a recipe takes them, with the recall out of fold that
each has, and every alarm is listed for somebody to look at. What is not here: which points are taken (a person's choice).
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.decisions import SEQUENCE, listen, station_of
from benchmarks.false_alarms import SHARED, settings_of
from benchmarks.leave_one_out import Fold, Study, left_out_records
from benchmarks.tables import Table, poisson
from quake.data import decision
from quake.data.decision import OperatingPoint
from quake.data.seisbench import SeisBenchDataset
from quake.times import NS, parse_ns
from streamer.composition import load_scorer
from streamer.config import resolve
from trainer.data.record import BY_PICKERS, RATE_HZ, Record
from trainer.evaluation.alarms import Rule, Worth, assess
from trainer.evaluation.operating import Piece, alarms_at, choose_points, counted
from trainer.evaluation.protocol import QUIET_UNTIL_S, is_fair, read_scores
from trainer.evaluation.scoring import Curve, curves_of, log_odds
from trainer.fitting.run_folder import RunFolder

CONTINUOUS = "cont_"
"""Begins the names of records that were cut from the continuous hours."""
BEFORE_S, AFTER_S = 2.0, 60.0
"""Around a P on which pickers agree: not noise."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """P of earthquakes by station, ns, in order."""

    by_station: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, folder: Path | None) -> Arrivals:
        """Of a set that pickers labelled."""
        found: dict[str, list[int]] = {}
        rows = [] if folder is None else list(SeisBenchDataset(folder).metadata.to_dict("records"))
        for row in rows:
            if row["trace_category"].startswith("earthquake"):
                p_s = row["trace_p_arrival_sample"] / row["trace_sampling_rate_hz"]
                station = f"{row['station_network_code']}.{row['station_code']}"
                found.setdefault(station, []).append(parse_ns(row["trace_start_time"]) + round(p_s * NS))
        return cls({station: np.sort(times) for station, times in found.items()})

    def quiet(self, station: str, times_ns: np.ndarray) -> np.ndarray:
        """(n,) whether no earthquake is near."""
        quiet = np.ones(len(times_ns), bool)
        for p_ns in self.by_station.get(station, ()):
            quiet &= (times_ns < p_ns - BEFORE_S * NS) | (times_ns > p_ns + AFTER_S * NS)
        return quiet


def continuous_pieces(folds: Sequence[Fold], folder: Path, arrivals: Arrivals) -> Iterator[Piece]:
    """Runs of windows without a break, named ``file station``; times are seconds since 1970."""
    with (folder / "continuous.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if SEQUENCE not in row["character"]]
    for fold in folds:
        files = [row["file"] for row in rows if row["source_dataset"] in fold.sources]
        if files:
            config = resolve(settings_of(fold.run.model, None), folder)
            scorer = load_scorer(config)
        for name in files:
            heard = listen(folder / name, "", config, scorer)
            for subject, series in heard.scores.items():
                ks = sorted(series)  # whole numbers of Python's: times in ns are large
                ends_ns = np.array([scorer.grid.end_ns(k) for k in ks])
                quiet = arrivals.quiet(station_of(subject), ends_ns)
                scores = np.array([decision.log_odds(series[k]) for k in ks])
                hop_s = scorer.grid.hop_ns / NS
                yield from _runs(f"{name} {station_of(subject)}", ends_ns / NS, scores, quiet, hop_s)


def _runs(name: str, times_s: np.ndarray, scores: np.ndarray, quiet: np.ndarray, hop_s: float) -> Iterator[Piece]:
    breaks = np.flatnonzero((np.diff(times_s) > 1.5 * hop_s) | (np.diff(quiet.astype(int)) != 0)) + 1
    for begin, end in pairwise([0, *breaks, len(times_s)]):
        if end > begin and quiet[begin]:
            yield Piece(name, Curve(times_s[begin:end], scores[begin:end]), (end - begin) * hop_s / 3600)


def record_pieces(records: Sequence[Record], table: pd.DataFrame) -> Iterator[Piece]:
    """Noise records that no detector chose, and event records before P; nothing of the continuous hours."""
    curves = curves_of(table)
    for record in filter(is_fair, records):
        if record.source.startswith(CONTINUOUS) or BY_PICKERS in record.origin or record.is_crowded:
            continue
        curve, lead_s = curves[record.name], record.lead / RATE_HZ
        until_s = record.p / RATE_HZ - QUIET_UNTIL_S if record.is_event else float(curve.times_s[-1]) + 1e-6
        inside = (curve.times_s >= lead_s) & (curve.times_s < until_s)
        if inside.any():
            kept = Curve(curve.times_s[inside], curve.scores[inside])
            yield Piece(record.name, kept, (until_s - lead_s) / 3600)


def folds_of(folder: Path) -> list[Fold]:
    """Those that are fitted."""
    found = sorted(path.parent for path in folder.glob("*/model.pt"))
    return [Fold(tuple(path.name.split("+")), RunFolder(path)) for path in found]


def as_recipe(point: OperatingPoint) -> str:
    """TOML."""
    fields = point.model_dump()
    fields["hours"] = round(fields["hours"], 2)
    text = (f"{key} = {json.dumps(value)}" for key, value in fields.items())
    return "[[evaluation.operating_point]]\n" + "\n".join(text) + "\n"


def worth_of(point: OperatingPoint, events: Sequence[Record], table: pd.DataFrame) -> Worth:
    return assess(events, table, Rule(log_odds(point.on), log_odds(point.off), point.in_a_row))


def table_of(points: Sequence[OperatingPoint], events: Sequence[Record], table: pd.DataFrame) -> Table:
    rows = []
    for point in points:
        worth = worth_of(point, events, table)
        rate = poisson(point.false_alarms, point.hours)
        limits = (point.name, point.in_a_row, point.on, point.off)
        found = (worth.recall, worth.macro_recall, worth.median_delay_s)
        rows.append((*limits, point.false_alarms, rate, *found))
    columns = ("point", "in a row", "on", "off", "false alarms", "an hour", "recall", "macro recall", "median delay, s")
    return Table("Operating points, out of fold", columns, tuple(rows))


def run(chosen: argparse.Namespace) -> None:
    study, folds = Study(chosen.recipe, chosen.set, None), folds_of(chosen.folder)
    records = [record for fold in folds for record in left_out_records(study, fold)]
    scores = pd.concat([read_scores(fold.scores) for fold in folds], ignore_index=True)
    pieces = [
        *record_pieces(records, scores),
        *continuous_pieces(folds, chosen.continuous, Arrivals.of(chosen.labelled)),
    ]
    events = [record for record in records if record.is_event and is_fair(record) and BY_PICKERS not in record.origin]
    given = (part.split(":") for part in chosen.at)
    points = [counted(pieces, int(row), float(on)) for row, on in given]
    if not points:
        points = [point for row in chosen.in_a_row for point in choose_points(pieces, in_a_row=row)]
    print(table_of(points, events, scores).markdown())
    print("\n".join(map(as_recipe, points)))
    if chosen.json:
        alarms = {f"{p.name} {p.in_a_row} {p.on:g}": [asdict(alarm) for alarm in alarms_at(pieces, p)] for p in points}
        hours = {piece.name: 0.0 for piece in pieces}
        for piece in pieces:
            hours[piece.name] += piece.hours
        content = {"points": [point.model_dump() for point in points], "alarms": alarms, "hours": hours}
        chosen.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", type=Path, required=True, help="that the folds were fitted by")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="stands above the recipe")
    parser.add_argument("--continuous", type=Path, default=SHARED, help="folder of miniSEED files and continuous.csv")
    parser.add_argument("--labelled", type=Path, help="set that pickers labelled: its earthquakes are not noise")
    parser.add_argument("--in-a-row", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--at", nargs="+", default=[], metavar="ROW:ON", help="count these, and choose none: 5:0.97")
    parser.add_argument("--json", type=Path)
    run(parser.parse_args(arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
