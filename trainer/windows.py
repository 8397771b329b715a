"""Read labelled records and cut training windows out of them.

A data set is a folder in SeisBench's format (`quake.data.seisbench`), raw, at 100 Hz, in Z, N, E where it states no order.
Many records begin only seconds before P, so each is led in by its own noise, mirrored back and forth; the comparison of
detectors does the same. What is not here: changing what a window looks like (`trainer.augment`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from quake.data.seisbench import DataError, SeisBenchDataset, Trace

Samples = NDArray[np.float32]

COMPONENTS = "ZNE"
RATE_HZ = 100
LEAD_S = 60
"""Seconds of mirrored noise in front of each record: the longest look-back among the detectors compared."""
GUARD_S = 1.0
"""Seconds before P that are not mirrored, nor cut as noise: picks are not exact."""
MIN_AGE_S = 0.5
"""A window whose end is closer to P than this is left out: neither answer would be fair."""
FRESH_S = 4.0
"""Early warning lives on the first seconds: half of the windows end within these after P."""
OLDEST_S = 20.0
BEFORE_P_SHARE = 0.3
"""Of the noise windows, cut from before P of event records: the same stations, the same mirrored lead."""
COLUMNS = (
    "trace_name",
    "trace_category",
    "trace_p_arrival_sample",
    "trace_s_arrival_sample",
    "source_id",
    "source_dataset",
    "split",
)


@dataclass(frozen=True, slots=True)
class Record:
    """One station's record, with its lead."""

    name: str
    source: str
    """Data set that it comes from."""
    source_id: str
    """Earthquake; records of one earthquake never lie in two splits."""
    samples: Samples
    """(3, N) Z, N, E, mean of the part before P removed."""
    p: int
    """Index of P; -1 for noise."""
    s: int
    """Index of S; -1 where it is not known."""
    is_crowded: bool
    """Other earthquakes are known in it."""
    origin: str
    """How a noise record was chosen; empty for events."""

    @property
    def is_event(self) -> bool:
        return self.p >= 0

    @property
    def lead(self) -> int:
        return LEAD_S * RATE_HZ


@dataclass(frozen=True, slots=True)
class Cut:
    """Samples for one training window, longer than it where it will be resampled."""

    samples: Samples
    """(3, n), its own copy."""
    onset: int
    """Index of P within it (negative: before it); n for noise."""


def read_records(folder: Path | str, split: str) -> list[Record]:
    """All noise records and event records with a P time of one split; noise with a suspicious transient is left out.

    DataError for a folder that is not such a data set, or a split that holds nothing.
    """
    dataset = SeisBenchDataset(folder, COMPONENTS, assumed_order=COMPONENTS)
    table = dataset.metadata
    missing = set(COLUMNS) - set(table.columns)
    if missing:
        raise DataError(f"{folder}: the metadata have no column {', '.join(sorted(missing))}")
    if "trace_sampling_rate_hz" in table and (table["trace_sampling_rate_hz"] != RATE_HZ).any():
        raise DataError(f"{folder}: traces must have {RATE_HZ} Hz")
    usable = [row.split == split and _usable(row) for row in table.itertuples()]
    records = [_record(trace) for trace in dataset.filter(usable)]
    if not records:
        raise DataError(f"{folder}: no usable trace of split {split!r}")
    return records


def _usable(row: Any) -> bool:
    if row.trace_category == "noise":
        return not bool(getattr(row, "noise_suspect", False))
    return bool(np.isfinite(row.trace_p_arrival_sample))


def _record(trace: Trace) -> Record:
    row, samples = trace.metadata, trace.samples
    is_event = row["trace_category"] != "noise"
    p = round(row["trace_p_arrival_sample"]) if is_event else -1
    known_s = is_event and np.isfinite(row["trace_s_arrival_sample"])
    quiet = max(p - round(GUARD_S * RATE_HZ), RATE_HZ) if is_event else samples.shape[1]
    lead = LEAD_S * RATE_HZ
    return Record(
        name=trace.name,
        source=str(row["source_dataset"]),
        source_id=str(row["source_id"]),
        samples=with_lead(samples, quiet, lead),
        p=p + lead if is_event else -1,
        s=round(row["trace_s_arrival_sample"]) + lead if known_s else -1,
        is_crowded=str(row.get("multi_event", False)).lower() == "true",
        origin="" if is_event else str(row.get("noise_origin", "")),
    )


def with_lead(samples: Samples, quiet: int, lead: int) -> Samples:
    """(3, N) -> (3, lead + N): led in by the first ``quiet`` samples, there and back, whose mean is removed."""
    mean = samples[:, :quiet].mean(axis=1, keepdims=True)  # of the quiet part: nothing after P may show before it
    samples = samples - mean
    noise = samples[:, :quiet]
    period = np.concatenate([noise, noise[:, ::-1]], axis=1)  # (3, 2 quiet): no step at the joints
    copies = -(-lead // period.shape[1])
    return np.concatenate([np.tile(period, (1, copies))[:, -lead:], samples], axis=1)


@dataclass(frozen=True, slots=True)
class _Group:
    """Records to draw from."""

    records: Sequence[Record]
    weights: NDArray[np.float64]
    """Probability of each."""

    @classmethod
    def of(cls, records: Sequence[Record]) -> _Group:
        """A source's share goes with the root of its size."""
        sizes = pd.Series([record.source for record in records]).value_counts()
        weights = np.array([sizes[record.source] ** -0.5 for record in records])
        return cls(records, np.asarray(weights / weights.sum()))


class Drawer:
    """Draws records so that large sources do not drown small ones, and cuts windows out of them."""

    def __init__(self, records: Sequence[Record], rng: np.random.Generator) -> None:
        self._rng = rng
        events = [record for record in records if record.is_event]
        noise = [record for record in records if not record.is_event]
        if not events or not noise:
            raise DataError("a detector is fitted on earthquakes and noise: the split has only one of them")
        quiet = [r for r in events if not r.is_crowded and r.p - r.lead > 2 * GUARD_S * RATE_HZ]
        self._events, self._noise = _Group.of(events), _Group.of(noise)
        self._quiet = _Group.of(quiet) if quiet else None

    def event(self, length: int) -> Cut:
        """(3, length) that holds P or S of an earthquake."""
        record = self._pick(self._events)
        end = self._event_end(record)
        return Cut(record.samples[:, end - length : end].copy(), record.p - (end - length))

    def noise(self, length: int) -> Cut:
        """(3, length) from a noise record, or from before P of an event record."""
        quiet = self._quiet if self._quiet and self._rng.random() < BEFORE_P_SHARE else None
        record = self._pick(quiet or self._noise)
        last = record.p - round(GUARD_S * RATE_HZ) if quiet else record.samples.shape[1]
        end = int(self._rng.integers(record.lead, last + 1))
        return Cut(record.samples[:, end - length : end].copy(), length)

    def _pick(self, group: _Group) -> Record:
        return group.records[int(self._rng.choice(len(group.records), p=group.weights))]

    def _event_end(self, record: Record) -> int:
        """Index after the window's last sample."""
        rng = self._rng
        kind = rng.random()
        if kind < 0.15 and record.s > 0:
            end = record.s + round(rng.uniform(1.0, 17.0) * RATE_HZ)
        else:
            age_s = rng.uniform(MIN_AGE_S, FRESH_S) if kind < 0.6 else rng.uniform(FRESH_S, OLDEST_S)
            end = record.p + round(age_s * RATE_HZ)
        return min(end, int(record.samples.shape[1]))
