"""Score labelled records with a compiled detector, and say what its alarms are worth.

Scores are log-odds, stamped with the time of the newest sample they depend on, as the comparison of detectors asks for.
Alarms here are the daemon's: so many windows in a row at or above ``on`` open one, a window below ``off`` closes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from quake.artifact import CompiledModel
from trainer.augment import through
from trainer.windows import RATE_HZ, Record, Samples

Scores = NDArray[np.float64]

BATCH = 32
EARLY_S = 1.0
"""An alarm this much before P still counts as a detection: picks are not exact."""
FRESH_S = 5.0
"""An alarm that stands already this long before counts for nothing: it tells nobody that an earthquake began."""
WITHIN_S = 10.0
QUIET_UNTIL_S = 2.0
"""Noise of an event record ends this long before P."""


@dataclass(frozen=True, slots=True)
class Rule:
    """When an alarm opens and closes."""

    on: float
    """Log-odds."""
    off: float
    """Log-odds."""
    in_a_row: int = 2


@dataclass(frozen=True, slots=True)
class Worth:
    """What a rule gives on a set."""

    recall: float
    """Share of event records with an alarm that opens EARLY_S before P to WITHIN_S after, none standing before."""
    macro_recall: float
    """Its mean over sources."""
    false_an_hour: float
    """Alarms an hour of real noise of one station."""
    hours: float
    median_delay_s: float
    """From P to the newest sample of the window that opened the alarm; NaN without detections."""


def as_recorded(samples: Samples) -> Samples:
    return samples


def vertical_alone(samples: Samples) -> Samples:
    """As of a station with a vertical component only."""
    only = samples.copy()
    only[1:] = 0
    return only


def at_50_hz(samples: Samples) -> Samples:
    """As of a station of 50 Hz, resampled to the model's rate."""
    return through(samples, 1, 2)


VARIANTS: dict[str, Callable[[Samples], Samples]] = {
    "recorded": as_recorded,
    "z-only": vertical_alone,
    "50-hz": at_50_hz,
    "z-only-50-hz": lambda samples: vertical_alone(at_50_hz(samples)),
}


def log_odds(probability: float) -> float:
    return float(np.log(probability) - np.log1p(-probability))


def score_windows(model: CompiledModel, samples: Samples, ends: NDArray[np.int64]) -> Scores:
    """Log-odds of an earthquake in the windows of (3, N) that end before each index of ``ends``."""
    length = model.spec.window_samples
    windows = sliding_window_view(samples, length, axis=1)  # (3, N - length + 1, length), a view
    parts = [ends[i : i + BATCH] - length for i in range(0, len(ends), BATCH)]
    answers = [model.predict(np.ascontiguousarray(windows[:, part].swapaxes(0, 1))) for part in parts]  # each (B, 2)
    odds = np.log(np.concatenate(answers).astype(np.float64) + 1e-30)
    earthquake = model.spec.classes.index("earthquake")
    return np.asarray(odds[:, earthquake] - odds[:, 1 - earthquake])


def score_records(
    model: CompiledModel, records: Sequence[Record], hop_s: float, variant: str = "recorded"
) -> pd.DataFrame:
    """Columns trace_name, time_s (from the start of the record's lead) and score, every ``hop_s`` of each record."""
    hop = round(hop_s * RATE_HZ)
    tables = []
    for record in records:
        samples = VARIANTS[variant](record.samples)
        first = record.lead - round((FRESH_S + EARLY_S + 1) * RATE_HZ)
        ends = np.arange(first, samples.shape[1] + 1, hop)
        scores = score_windows(model, samples, ends)
        tables.append(pd.DataFrame({"trace_name": record.name, "time_s": (ends - 1) / RATE_HZ, "score": scores}))
    return pd.concat(tables, ignore_index=True)


def is_fair(record: Record) -> bool:
    """Whether its alarms may be counted: events, and noise that no detector chose and no event record holds."""
    return record.is_event or not (record.origin.startswith("continuous_quiet") or record.origin == "pre_p")


def openings(scores: Scores, rule: Rule) -> Iterator[tuple[int, int]]:
    """(index that opens an alarm, index that closes it or len) of successive scores."""
    run, opened = 0, -1
    for index, score in enumerate(scores):
        run = run + 1 if score >= rule.on else 0
        if opened < 0 and run >= rule.in_a_row:
            opened = index
        elif opened >= 0 and score < rule.off:
            yield opened, index
            opened = -1
    if opened >= 0:
        yield opened, len(scores)


def assess(records: Sequence[Record], table: pd.DataFrame, rule: Rule) -> Worth:
    """Count detections and false alarms on fair records."""
    by_name = {str(name): rows for name, rows in table.groupby("trace_name", sort=False)}
    delays: list[float] = []
    sources: list[str] = []
    false, hours = 0, 0.0
    for record in filter(is_fair, records):
        rows = by_name[record.name]
        times, scores = rows["time_s"].to_numpy(float), rows["score"].to_numpy(float)
        alarms = list(openings(scores, rule))
        if record.is_event:
            sources.append(record.source)
            delays.append(_delay(record, times, alarms))
        if not record.is_crowded:
            until = record.p / RATE_HZ - QUIET_UNTIL_S if record.is_event else times[-1]
            hours += max(until - record.lead / RATE_HZ, 0.0) / 3600
            # One that opened in the lead and still stands counts too.
            false += sum(times[last - 1] >= record.lead / RATE_HZ and times[first] < until for first, last in alarms)
    return _worth(np.array(delays), sources, false, hours)


def _delay(record: Record, times: Scores, alarms: Sequence[tuple[int, int]]) -> float:
    """Seconds from P to the alarm that reports it; NaN where none does."""
    after = times - record.p / RATE_HZ
    stands = any(after[opened] < -EARLY_S and after[closed - 1] >= -EARLY_S - FRESH_S for opened, closed in alarms)
    fresh = [after[opened] for opened, _ in alarms if -EARLY_S <= after[opened] <= WITHIN_S]
    return float("nan") if (stands and not record.is_crowded) or not fresh else float(fresh[0])


def _worth(delays: Scores, sources: Sequence[str], false: int, hours: float) -> Worth:
    hits = np.isfinite(delays)
    by_source = pd.Series(hits.astype(float)).groupby(list(sources)).mean() if len(sources) else pd.Series([np.nan])
    return Worth(
        recall=float(hits.mean()) if len(hits) else float("nan"),
        macro_recall=float(by_source.mean()),
        false_an_hour=float(false / hours) if hours else float("nan"),
        hours=float(hours),
        median_delay_s=float(np.median(delays[hits])) if hits.any() else float("nan"),
    )


def choose_on(records: Sequence[Record], table: pd.DataFrame, false_an_hour: float) -> float:
    """The lowest ``on`` among 0.50, 0.51 ... 0.99 whose false alarms keep to the rate; 0.99 where none does."""
    for percent in range(50, 99):
        rule = Rule(log_odds(percent / 100), log_odds(percent / 200))
        if assess(records, table, rule).false_an_hour <= false_an_hour:
            return percent / 100
    return 0.99
