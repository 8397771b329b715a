"""Which earthquakes are reported, and how soon: recall by SNR, magnitude, distance and source, and by seconds after P.

The rule is that of `trainer.evaluation.protocol`: an earthquake is reported at a threshold by the first score at or
above it from EARLY_S before P on, unless one stood there in the FRESH_S before that, which is not asked where other
earthquakes are known in the record, nor of pickers. What is not here: false alarms, thresholds, and pictures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from quake.data.seisbench import DataError
from trainer.data.record import Record
from trainer.evaluation.protocol import EARLY_S, FRESH_S, WITHIN_S, p_s
from trainer.evaluation.scoring import COLUMNS, Curve, curves_of

Floats = NDArray[np.float64]

AFTER_P_S = tuple(step / 2 for step in range(-2, 41))
"""Where recall against time is stated: 1 s before P to 20 s after."""
EDGES: Mapping[str, tuple[float, ...]] = {
    "SNR of P, dB": (5, 10, 15, 20, 30, 40),
    "magnitude": (0, 1, 2, 3, 4, 5, 6),
    "distance, km": (10, 20, 50, 100, 200),
}
"""What is binned, and where: a bin holds its lower edge."""
Z_95 = 1.959964
"""Normal deviate of a two-sided 95 % interval."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Some event records, and how many of them are reported."""

    label: str
    hits: int
    count: int

    @property
    def recall(self) -> float:
        """NaN where the bin is empty."""
        return self.hits / self.count if self.count else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the recall; it takes records for independent."""
        low, high = wilson(self.hits, self.count)
        return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Recall of one detector; the mappings' inner keys are the names of the thresholds."""

    within_s: float
    count: int
    """Event records."""
    bins: Mapping[str, Mapping[str, tuple[Bin, ...]]]
    """By quantity (the keys of EDGES, and ``source``); left out where it is known of no record."""
    unknown: tuple[str, ...]
    """Quantities that are known of no record."""
    after_p: Mapping[str, NDArray[np.int64]]
    """(len(AFTER_P_S),) records reported by then."""


def wilson(hits: ArrayLike, count: ArrayLike) -> tuple[Floats, Floats]:
    """Lower and upper end of Wilson's 95 % interval of hits / count; 0 and 1 where count is 0."""
    k, n = np.asarray(hits, float), np.asarray(count, float)
    square = Z_95**2
    centre = (k + square / 2) / (n + square)
    half = Z_95 / (n + square) * np.sqrt(np.where(n > 0, k * (n - k) / np.maximum(n, 1), 0) + square / 4)
    return np.where(k == 0, 0.0, centre - half), np.where(k == n, 1.0, centre + half)


def delays(records: Sequence[Record], table: pd.DataFrame, threshold: float, *, picker: bool = False) -> Floats:
    """(events,) seconds from P to the score that reports each event record, infinity where none does.

    ``table``: columns trace_name, time_s (from the start of the record's samples, lead included; of the newest sample
    that a score depends on) and score. Records without P are passed over. DataError where a record has no scores,
    or one that is not finite.
    """
    curves = checked_curves(records, table)
    events = [record for record in records if record.p >= 0]
    return np.array([_delay(record, curves[record.name], threshold, picker) for record in events])


def break_down(
    records: Sequence[Record],
    table: pd.DataFrame,
    thresholds: Mapping[str, float],
    *,
    within_s: float = WITHIN_S,
    picker: bool = False,
) -> Breakdown:
    """Recall of event records at each named threshold; ``table`` and errors as `delays`."""
    events = [record for record in records if record.p >= 0]
    found = {name: delays(events, table, threshold, picker=picker) for name, threshold in thresholds.items()}
    hits = {name: delay <= within_s for name, delay in found.items()}
    values = {name: values_of(events, name) for name in EDGES}
    known = {name: column for name, column in values.items() if np.isfinite(column).any()}
    bins = {
        quantity: {name: by_value(column, hit, EDGES[quantity]) for name, hit in hits.items()}
        for quantity, column in known.items()
    }
    bins["source"] = {name: by_source([event.source for event in events], hit) for name, hit in hits.items()}
    after = {name: np.array([(delay <= second).sum() for second in AFTER_P_S]) for name, delay in found.items()}
    return Breakdown(within_s, len(events), bins, tuple(name for name in EDGES if name not in known), after)


def values_of(events: Sequence[Record], quantity: str) -> Floats:
    """(events,) one of EDGES; NaN where it is not known."""
    field = {"SNR of P, dB": "snr_db", "magnitude": "magnitude", "distance, km": "distance_km"}[quantity]
    return np.array([getattr(event, field) for event in events], dtype=float)


def by_value(values: Floats, hits: NDArray[np.bool_], edges: Sequence[float]) -> tuple[Bin, ...]:
    """Bins that hold something, in the order of `bands`."""
    members = bands(values, edges).items()
    return tuple(Bin(name, int(hits[rows].sum()), int(rows.sum())) for name, rows in members)


def bands(values: Floats, edges: Sequence[float]) -> dict[str, NDArray[np.bool_]]:
    """(events,) members of each band that has any, in the order of ``edges``, open at both ends; last those whose value
    is not known."""
    names = [f"< {edges[0]:g}", *(f"{low:g} to {high:g}" for low, high in pairwise(edges))]
    names += [f"≥ {edges[-1]:g}", "not known"]
    place = np.where(np.isfinite(values), np.searchsorted(edges, values, side="right"), len(names) - 1)
    return {name: place == i for i, name in enumerate(names) if (place == i).any()}


def by_source(sources: Sequence[str], hits: NDArray[np.bool_]) -> tuple[Bin, ...]:
    """One bin a source, in the order of their names."""
    of = np.array(sources)
    return tuple(Bin(str(name), int(hits[of == name].sum()), int((of == name).sum())) for name in np.unique(of))


def checked_curves(records: Sequence[Record], table: pd.DataFrame) -> dict[str, Curve]:
    """Scores by the trace's name; DataError where a column is missing, or a record's scores, or one is not finite."""
    missing = set(COLUMNS) - set(table.columns)
    if missing:
        raise DataError(f"the table of scores has no column {', '.join(sorted(missing))}")
    curves = curves_of(table)
    for record in records:
        if record.name not in curves:
            raise DataError(f"{record.name}: no scores")
        if not np.isfinite(curves[record.name].scores).all():
            raise DataError(f"{record.name}: a score is not finite")
    return curves


def _delay(record: Record, curve: Curve, threshold: float, picker: bool) -> float:
    after_s = curve.times_s - p_s(record)
    alarms = after_s[curve.scores >= threshold]
    stood = ((alarms < -EARLY_S) & (alarms >= -EARLY_S - FRESH_S)).any() and not (picker or record.is_crowded)
    reports = alarms[alarms >= -EARLY_S]
    return float(reports.min()) if len(reports) and not stood else math.inf
