"""What perturbations of the recordings cost a detector, with the operator's threshold left where it was.

    python -m benchmarks.robustness models/zoo/detector.pt [--only NAME ...] [--records N] [--json robustness.json]

Every record goes through the daemon's own way from packets to windows: ring, resampler, and what it does with gaps,
components that are missing and windows without data. A window that the daemon does not score is no alarm. The fixed
threshold is the comparison's at 3 false alarms an hour on the recordings as they are, and a score is as old as the
newest sample that it depends on, the filter's reach included. Beside it stands the model's own rule, the operating
point `standard` where it has one, with the daemon's wait for missing data added. Event records are followed to 10 s
after P. Judges nothing, but marks what falls by more than 5 points. What is not here: the perturbations
(`benchmarks.perturbations`), and the way through the daemon (`benchmarks.daemon_windows`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.daemon_windows import through_daemon
from benchmarks.perturbations import Perturbation, as_it_is, perturbations
from benchmarks.skill import OWN, SHARED, read, rules
from benchmarks.tables import Cell, Estimate, Table, poisson
from quake.artifact import CompiledModel
from quake.data.decision import STANDARD
from quake.data.seisbench import DataError
from streamer.operation import HOP_S
from trainer.data.record import RATE_HZ, Record, Samples
from trainer.evaluation import protocol
from trainer.evaluation.alarms import Rule, Worth, assess
from trainer.evaluation.bootstrap import Rows, intervals
from trainer.evaluation.causality import some_of
from trainer.evaluation.protocol import LOWEST, WITHIN_S, Evidence, is_fair
from trainer.evaluation.scoring import COLUMNS, Scores, score_windows

AS_RECORDED = "as recorded"
FIXED_AN_HOUR = 3.0
COLUMNS_OF_TABLE = (
    "recordings",
    "recall",
    "points lost",
    "alarms an hour",
    "own recall",
    "own alarms an hour",
    "scored",
    "not finite",
    "mark",
)
POINTS = 5.0
"""More than this is marked."""


@dataclass
class Memory:
    """Scores of windows, each made once: most gaps leave most windows as they were."""

    model: CompiledModel
    known: dict[bytes, float] = field(default_factory=dict)

    def __call__(self, windows: Sequence[Samples]) -> Scores:
        """(n,) log-odds of (3, N) each."""
        keys = [hashlib.blake2b(window.tobytes(), digest_size=16).digest() for window in windows]
        new = {key: window for key, window in zip(keys, windows, strict=True) if key not in self.known}
        if new:
            ends = np.arange(1, len(new) + 1) * self.model.spec.window_samples
            scores = score_windows(self.model, np.concatenate(list(new.values()), axis=1), ends)
            self.known.update(zip(new, scores.tolist(), strict=True))
        return np.array([self.known[key] for key in keys])


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one perturbation."""

    evidence: Evidence
    worth: Worth
    scored: float
    """Share of the windows."""
    not_finite: int
    """Scores of windows that were scored."""


def outcome(memory: Memory, change: Perturbation, records: Sequence[Record], hop_s: float, rule: Rule) -> Outcome:
    """What a detector is worth on the changed records; ``rule``: its own."""
    said, rows, scored, not_finite = [], [], [], 0
    for record in records:
        heard = through_daemon(change, record, memory.model.spec.window_samples, hop_s)
        there = np.array([window is not None for window in heard.windows])
        scores = np.full(len(there), np.nan)
        scores[there] = memory([window for window in heard.windows if window is not None])
        not_finite += int((~np.isfinite(scores[there])).sum())
        scored.append(there)
        said.append(_table(record, heard.decided_s, scores))
        rows.append(_table(record, heard.newest_s, np.where(np.isfinite(scores), scores, LOWEST)))
        rows.append(_silence(record, hop_s))
    marked = [replace(record, is_crowded=record.is_event) if change.second else record for record in records]
    evidence = protocol.collect(marked, pd.concat(rows, ignore_index=True))
    worth = assess(marked, pd.concat(said, ignore_index=True), rule)
    return Outcome(evidence, worth, float(np.concatenate(scored).mean()), not_finite)


def lost(base: Evidence, found: Evidence, threshold: float) -> Estimate:
    """Points of macro recall within WITHIN_S that were lost, paired: earthquakes are drawn within sources."""
    before, after = (protocol.detected(one, threshold, WITHIN_S).astype(float) for one in (base, found))

    def points(rows: Rows) -> dict[str, float]:
        weights = base.members * np.bincount(rows, minlength=len(before))[:, None]  # (E, S)
        return {"lost": 100 * float(((before - after) @ weights / weights.sum(axis=0)).mean())}

    interval = intervals(points, base.strata()[:-1])["lost"]
    return Estimate(points(np.arange(len(before)))["lost"], interval.low, interval.high)


def row_of(name: str, found: Outcome, base: Outcome, threshold: float, *, second: bool = False) -> tuple[Cell, ...]:
    """Cells of COLUMNS_OF_TABLE. ``base``: of the recordings as they are; ``second``: only recall is asked."""
    recall = float((protocol.detected(found.evidence, threshold, WITHIN_S) @ _shares(found.evidence)).mean())
    points, worth = lost(base.evidence, found.evidence, threshold), found.worth
    alarms = poisson(sum(int((p >= threshold).sum()) for p in found.evidence.peaks), float(found.evidence.hours.sum()))
    own = (math.nan, Estimate(math.nan)) if second else (worth.macro_recall, _own_alarms(worth))
    mark = "more than 5 points" if points.value > POINTS else ""
    given = Estimate(math.nan) if second else alarms
    return name, recall, points, given, *own, found.scored, found.not_finite, mark


def _own_alarms(worth: Worth) -> Estimate:
    return poisson(round(worth.false_an_hour * worth.hours), worth.hours)


def _shares(evidence: Evidence) -> Scores:
    """(E, S) of each record in its source's recall."""
    return np.asarray(evidence.members / evidence.members.sum(axis=0))


def _table(record: Record, times_s: Scores, scores: Scores) -> pd.DataFrame:
    return pd.DataFrame(dict(zip(COLUMNS, (record.name, times_s, scores), strict=True)))


def _silence(record: Record, hop_s: float) -> pd.DataFrame:
    """No alarm at each hop: where the daemon is silent the comparison misses no score."""
    times_s = np.arange(record.lead, record.samples.shape[1], round(hop_s * RATE_HZ)) / RATE_HZ
    return _table(record, times_s, np.full(len(times_s), LOWEST))


def measure(
    model: CompiledModel, records: Sequence[Record], changes: Sequence[Perturbation], hop_s: float
) -> tuple[float, Table]:
    """The fixed threshold in log-odds, and one row a perturbation, the first of the recordings as they are.

    Rows go to standard error as they come: all of them take long.
    """
    own, memory = rules(model), Memory(model)
    rule = own.get(STANDARD) or own[OWN]
    base = outcome(memory, Perturbation(AS_RECORDED, as_it_is), records, hop_s, rule)
    threshold = fixed_threshold(base.evidence)
    rows = [row_of(AS_RECORDED, base, base, threshold)]
    for change in changes:
        found = outcome(memory, change, records, hop_s, rule)
        rows.append(row_of(change.name, found, base, threshold, second=change.second))
        print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    return threshold, Table("Macro recall within 10 s and false alarms", COLUMNS_OF_TABLE, tuple(rows))


def fixed_threshold(evidence: Evidence) -> float:
    """At FIXED_AN_HOUR; of so few records that this is not one alarm, just above them all."""
    peaks = np.sort(np.concatenate(evidence.peaks))[::-1]
    return protocol.threshold_for(peaks, float(evidence.hours.sum()), FIXED_AN_HOUR)


def some(records: Sequence[Record], count: int | None) -> list[Record]:
    """Fair records: all, or ``count`` of the earthquakes' and as many of noise."""
    kinds = [[r for r in records if is_fair(r) and r.is_event is event] for event in (True, False)]
    return [r for kind in kinds for r in (kind if count is None else some_of(kind, count))]


def wanted(changes: Sequence[Perturbation], only: Sequence[str]) -> list[Perturbation]:
    """Those whose names hold one of ``only``; all where there is none. DataError where nothing is left."""
    found = [change for change in changes if not only or any(part in change.name for part in only)]
    if not found:
        raise DataError(f"no perturbation is called {' or '.join(only)}: {', '.join(c.name for c in changes)}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "windows", help="folder in SeisBench's format")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--hop", type=float, help="seconds between windows; the model's own if not given, else 1")
    parser.add_argument("--only", nargs="+", default=(), help="perturbations whose names hold one of these")
    parser.add_argument("--records", type=int, help="so many of the earthquakes' records and as many of noise")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    model = CompiledModel.load(chosen.model, "cpu", threads=1)
    every, hop_s = read(chosen.data, chosen.split), chosen.hop or model.spec.hop_s or HOP_S
    records, changes = some(every, chosen.records), wanted(perturbations(every), chosen.only)
    threshold, table = measure(model, records, changes, hop_s)
    print(f"{model.spec.name} {model.spec.version}, {chosen.data.name}, {chosen.split}, {len(records)} records")
    print(f"hop {hop_s:g} s, threshold {threshold:.3f} (log-odds)\n{table.markdown()}")
    if chosen.json:
        content = {"sha256": model.sha256, "hop_s": hop_s, "threshold": threshold, **table.content()}
        chosen.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
