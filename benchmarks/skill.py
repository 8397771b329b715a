"""Where a detector's skill lies: by source, by seconds after P, by SNR and distance, and in which noise it is wrong.

    python -m benchmarks.skill models/zoo/detector.pt [--split dev] [--hop 1] [--sources A B] [--json skill.json]

Thresholds are those of the comparison at 10 and 3 false alarms an hour, and the ``on`` of the model's
operating points. Recall is given
twice: of the one window that ends so many seconds after P, whatever was said before it, and of alarms within so many
seconds by the rule of the comparison. Intervals draw earthquakes within sources. Judges nothing. What is not here:
figures of windows and pictures (`quake-trainer evaluate`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.tables import MEAN, Cell, Estimate, Table, poisson, recalls, table_of_recalls
from quake.artifact import CompiledModel, Thresholds
from quake.data.decision import log_odds
from streamer.operation import HOP_S, IN_A_ROW
from trainer.assessment import AS_IT_IS
from trainer.data.record import RATE_HZ, Record
from trainer.data.seisbench_source import SeisBench
from trainer.data.sources import read_records
from trainer.evaluation import protocol
from trainer.evaluation.alarms import Rule, assess
from trainer.evaluation.breakdown import EDGES, bands, delays, values_of
from trainer.evaluation.protocol import (
    ALARMS_NEEDED,
    HORIZONS_S,
    LOWEST,
    QUIET_UNTIL_S,
    WITHIN_S,
    Evidence,
    Flags,
    is_fair,
)
from trainer.evaluation.scoring import DetectorScorer, Scores, score_records, score_windows

SHARED = Path(__file__).parents[2] / "shared"
RATES_AN_HOUR = (10.0, 3.0)
BANDS = ("SNR of P, dB", "distance, km")
OWN = "own"
"""Where a model has thresholds and no operating points."""
SURVEY = "ambient_survey"
"""Noise of many places: what stands before the time in its traces' names is the place."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A detector on a set: what all tables are made of."""

    model: CompiledModel
    records: tuple[Record, ...]
    """Those of the comparison, and the noise that it leaves out because a detector chose it."""
    scores: pd.DataFrame
    """Columns trace_name, time_s and score."""
    evidence: Evidence
    """Of the fair records alone."""
    thresholds: Mapping[str, float]
    """Log-odds by name."""

    @property
    def events(self) -> list[Record]:
        return [record for record in self.records if record.is_event]

    @classmethod
    def of(cls, model: CompiledModel, records: Sequence[Record], hop_s: float) -> Subject:
        scores = score_records(DetectorScorer(model, hop_s), records)
        evidence = protocol.collect(records, scores)
        return cls(
            model,
            tuple(records),
            scores,
            evidence,
            {**thresholds(evidence), **{name: rule.on for name, rule in rules(model).items()}},
        )


def read(folder: Path, split: str | None, sources: Sequence[str] = ()) -> tuple[Record, ...]:
    """Records that are scored: events with P, and noise. ``sources``: earthquakes of these alone; the noise stays.

    DataError for a set that cannot be read.
    """
    records = read_records([SeisBench(type="seisbench", path=folder.resolve())], split, AS_IT_IS, Path()).records
    kept = (r for r in records if not r.is_event or (r.p >= 0 and (not sources or r.source in sources)))
    return tuple(kept)


def thresholds(evidence: Evidence) -> dict[str, float]:
    """By the comparison's rule at RATES_AN_HOUR, left out where too few alarms would set one."""
    hours, peaks = float(evidence.hours.sum()), np.sort(np.concatenate(evidence.peaks))[::-1]
    rates = [rate for rate in RATES_AN_HOUR if rate * hours >= ALARMS_NEEDED]
    return {f"{rate:g} an hour": protocol.threshold_for(peaks, hours, rate) for rate in rates}


def by_source(evidence: Evidence, view: Flags) -> dict[str, Flags]:
    """(E,) members of each source among ``view``."""
    return {str(name): (evidence.sources == name) & view for name in np.unique(evidence.sources)}


def single_windows(subject: Subject) -> Scores:
    """(E, horizons) score of the window that ends so long after P; LOWEST where the record ends before."""
    found = np.full((len(subject.events), len(HORIZONS_S)), LOWEST)
    for row, event in enumerate(subject.events):
        ends = event.p + np.round(np.array(HORIZONS_S) * RATE_HZ).astype(np.int64)
        inside = ends <= event.samples.shape[1]
        found[row, inside] = score_windows(subject.model, event.samples, ends[inside])
    return found


def tables_by_seconds(subject: Subject) -> Iterator[Table]:
    """By source: the single window, and alarms by the rule of the comparison; for all records and for a full view."""
    alone, evidence = single_windows(subject), subject.evidence
    views = {"": np.ones_like(evidence.full_view), ", records with 20.8 s of real noise before P": evidence.full_view}
    for name, threshold in subject.thresholds.items():
        windows = {f"{h:g} s": alone[:, i] >= threshold for i, h in enumerate(HORIZONS_S)}
        alarms = {f"{h:g} s": protocol.detected(evidence, threshold, h) for h in HORIZONS_S}
        for view, rows in views.items():
            if rows.any():
                groups = by_source(evidence, rows)
                yield table_of_recalls(f"Window that ends so long after P, {name}{view}", evidence, groups, windows)
                yield table_of_recalls(f"Alarm within so long after P, {name}{view}", evidence, groups, alarms)


def tables_by_band(subject: Subject) -> Iterator[Table]:
    """Alarms within 10 s, by SNR and by distance."""
    hits = {n: protocol.detected(subject.evidence, t, WITHIN_S) for n, t in subject.thresholds.items()}
    for quantity in BANDS:
        members = bands(values_of(subject.events, quantity), EDGES[quantity])
        yield table_of_recalls(f"Alarm within 10 s, by {quantity}", subject.evidence, members, hits, mean=False)


def noise_kind(record: Record) -> str:
    """Of what kind the real noise of a record is."""
    if record.is_event:
        return f"before P, {record.source}"
    origin = record.origin.split(" (")[0] or "noise"
    place = f", {record.name.rpartition('.')[0]}" if origin.startswith(SURVEY) else ""
    return f"{origin}, {record.source}{place}" + ("" if is_fair(record) else " *")


def table_of_noise(subject: Subject) -> Table:
    """False alarms by kind of noise, that which the comparison leaves out marked and not in the sum."""
    counted = [replace(record, origin="") for record in subject.records]  # all of it is counted here
    evidence = protocol.collect(counted, subject.scores)
    held = [r for r in subject.records if not r.is_event or (not r.is_crowded and _has_quiet(r))]
    kinds = np.array([noise_kind(record) for record in held])
    fair = np.array([is_fair(record) for record in held])
    groups = {**{str(kind): kinds == kind for kind in np.unique(kinds)}, "all that the comparison counts": fair}
    peaks = {n: np.array([(p >= t).sum() for p in evidence.peaks]) for n, t in subject.thresholds.items()}
    columns = ("noise", "hours", *(f"{what} at {name}" for name in peaks for what in ("alarms", "an hour")))
    rows = tuple((kind, *_rates(evidence.hours[m], [n[m] for n in peaks.values()])) for kind, m in groups.items())
    return Table("False alarms by kind of noise (* not counted in the comparison)", columns, rows)


def _rates(hours: Scores, counts: Sequence[NDArray[np.int64]]) -> Iterator[Cell]:
    total = float(hours.sum())
    yield total
    for count in counts:
        yield from (int(count.sum()), poisson(int(count.sum()), total))


def table_of_sums(subject: Subject) -> Table:
    """The comparison's figure of merit, and at each threshold recall, delay and false alarms."""
    summary = protocol.summary(subject.evidence)
    merit = Estimate(summary["mean_recall_10s"], *summary["mean_recall_10s_ci95"])
    sources, hours = by_source(subject.evidence, np.ones_like(subject.evidence.full_view)), subject.evidence.hours
    rows: list[tuple[Cell, ...]] = [("figure of merit", "", merit, "", "", "")]
    for name, threshold in subject.thresholds.items():
        hits = {f"{h:g}": protocol.detected(subject.evidence, threshold, h) for h in (2.0, 10.0)}
        found = recalls(subject.evidence, sources, hits)
        peaks = sum(int((peaks >= threshold).sum()) for peaks in subject.evidence.peaks)
        delay = _median_delay_s(subject, threshold)
        rows.append((name, threshold, found[MEAN, "10"], found[MEAN, "2"], delay, poisson(peaks, float(hours.sum()))))
    columns = (
        "threshold",
        "log-odds",
        "macro recall 10 s",
        "macro recall 2 s",
        "median delay, s",
        "false alarms an hour",
    )
    return Table("In all", columns, tuple(rows))


def table_of_own(subject: Subject) -> Table:
    """What the daemon's alarms are worth: two thresholds, so many windows in a row."""
    rows = tuple((name, *_worth(subject, rule)) for name, rule in rules(subject.model).items())
    columns = ("point", "on", "off", "in a row", "recall", "macro recall", "median delay, s", "false alarms an hour")
    return Table("Alarms by the model's own rules, within 10 s (on and off in log-odds)", columns, rows)


def _worth(subject: Subject, rule: Rule) -> Iterator[Cell]:
    worth = assess(subject.records, subject.scores, rule)
    yield from (rule.on, rule.off, rule.in_a_row, worth.recall, worth.macro_recall, worth.median_delay_s)
    yield poisson(round(worth.false_an_hour * worth.hours), worth.hours)


def table_of_peers(subject: Subject, folder: Path) -> Table:
    """Paired differences of the figure of merit from pickers; they look both ways, the best one first."""
    fair = [record for record in subject.records if is_fair(record)]
    peers = {path: protocol.collect(fair, protocol.read_scores(path), picker=True) for path in folder.glob("*.csv*")}
    merits = {path: protocol.figure_of_merit(theirs) for path, theirs in peers.items()}
    rows = []
    for path in sorted(peers, key=lambda path: (-merits[path], path)):
        found = protocol.difference(subject.evidence, peers[path])
        difference = Estimate(found["difference"], *found["ci95"])
        rows.append((path.name.split(".")[0], merits[path], difference, "yes" if found["better"] else "no"))
    return Table("Figure of merit, paired", ("picker", "its figure", "difference to it", "better than it"), tuple(rows))


def rules(model: CompiledModel) -> dict[str, Rule]:
    """Of the model's operating points, by name, or ``own`` of its thresholds; ValueError for a model without."""
    points: dict[str, tuple[Thresholds, int]] = {
        point.name: (point, point.in_a_row) for point in model.spec.operating_points
    }
    if not points:
        if model.spec.thresholds is None:
            raise ValueError(f"{model.path}: no thresholds: not a detector")
        points = {OWN: (model.spec.thresholds, IN_A_ROW)}
    return {name: Rule(log_odds(limits.on), log_odds(limits.off), row) for name, (limits, row) in points.items()}


def _has_quiet(event: Record) -> bool:
    return event.p - event.lead > QUIET_UNTIL_S * RATE_HZ


def _median_delay_s(subject: Subject, threshold: float) -> float:
    found = delays(subject.events, subject.scores, threshold)
    return float(np.median(found[found <= WITHIN_S])) if (found <= WITHIN_S).any() else float("nan")


def tables(subject: Subject, peers: Path | None) -> Iterator[Table]:
    yield table_of_sums(subject)
    yield table_of_own(subject)
    if peers is not None:
        yield table_of_peers(subject, peers)
    yield from tables_by_seconds(subject)
    yield from tables_by_band(subject)
    yield table_of_noise(subject)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "windows", help="folder in SeisBench's format")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--sources", nargs="+", default=(), help="earthquakes of these alone; all noise stays")
    parser.add_argument("--hop", type=float, help="seconds between windows; the model's own if not given, else 1")
    parser.add_argument("--peers", type=Path, help="folder of pickers' scores of the same records")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    model = CompiledModel.load(chosen.model, "cpu", threads=1)
    hop_s = chosen.hop or model.spec.hop_s or HOP_S
    subject = Subject.of(model, read(chosen.data, chosen.split, chosen.sources), hop_s)
    found = list(tables(subject, chosen.peers))
    print(f"{model.spec.name} {model.spec.version}, {chosen.data.name}, {chosen.split}, hop {hop_s:g} s")
    print("\n".join(table.markdown() for table in found))
    if chosen.json:
        content = {"sha256": model.sha256, "hop_s": hop_s, "tables": [table.content() for table in found]}
        chosen.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
