"""What the daemon's alarms are worth on labelled records, and the threshold that keeps them to a rate.

So many scores in a row, none below ``off``, open an alarm where their mean reaches ``on``; one below ``off`` closes it.
What is not here: the comparison of detectors, whose alarms have one threshold (`trainer.evaluation.protocol`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from quake.data import decision
from quake.data.seisbench import DataError
from trainer.data.record import RATE_HZ, Record
from trainer.evaluation.protocol import EARLY_S, FRESH_S, QUIET_UNTIL_S, WITHIN_S, is_fair
from trainer.evaluation.scoring import Scores, curves_of, log_odds

SUREST = decision.log_odds(1.0)
"""As the daemon counts them."""
CHOICES = range(500, 1000)
"""Thousandths that ``on`` is chosen from: calibrated probabilities of sure answers crowd near 1."""


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


def openings(scores: Scores, rule: Rule) -> Iterator[tuple[int, int]]:
    """(index that opens an alarm, index that closes it or len) of successive scores."""
    n = rule.in_a_row
    if len(scores) < n:
        return
    rows = sliding_window_view(np.clip(scores, -SUREST, SUREST), n)  # (N - n + 1, n)
    could_open = (
        np.flatnonzero((rows.min(axis=1) >= rule.off) & (rows.mean(axis=1) >= rule.on - decision.ROUNDING)) + n - 1
    )
    could_close = np.flatnonzero(scores < rule.off)
    while len(could_open):
        opened = could_open[0]
        could_close = could_close[np.searchsorted(could_close, opened, "right") :]
        closed = could_close[0] if len(could_close) else len(scores)
        yield int(opened), int(closed)
        could_open = could_open[np.searchsorted(could_open, closed, "right") :]


def assess(records: Sequence[Record], table: pd.DataFrame, rule: Rule) -> Worth:
    """Count detections and false alarms on fair records.

    ``table``: trace_name, time_s from the start of the record's lead, score. DataError where a record has no scores.
    """
    curves = curves_of(table)
    delays: list[float] = []
    sources: list[str] = []
    false, hours = 0, 0.0
    for record in filter(is_fair, records):
        if record.name not in curves:
            raise DataError(f"{record.name}: no scores")
        times = curves[record.name].times_s
        alarms = list(openings(curves[record.name].scores, rule))
        if record.is_event:
            sources.append(record.source)
            delays.append(_delay(record, times, alarms))
        if not record.is_crowded:
            until = record.p / RATE_HZ - QUIET_UNTIL_S if record.is_event else times[-1]
            hours += max(until - record.lead / RATE_HZ, 0.0) / 3600
            # One that opened in the lead and still stands counts too.
            false += sum(times[last - 1] >= record.lead / RATE_HZ and times[first] < until for first, last in alarms)
    return _worth(np.array(delays), sources, false, hours)


def choose_on(records: Sequence[Record], table: pd.DataFrame, false_an_hour: float, in_a_row: int = 2) -> float:
    """The lowest ``on`` among 0.500, 0.501 ... 0.999 from which up all keep to the rate; 0.999 where none does.

    One that keeps to it below others that do not has alarms that never end, and so are few.
    """
    lowest = CHOICES[-1]
    for thousandth in CHOICES[-2::-1]:
        rule = Rule(log_odds(thousandth / 1000), log_odds(thousandth / 2000), in_a_row)
        if not assess(records, table, rule).false_an_hour <= false_an_hour:  # NaN where there is no noise
            break
        lowest = thousandth
    return lowest / 1000


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
