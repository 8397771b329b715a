"""What tables say of continuous recordings: which data set a file is of, and which times of a station are taken already.

What is not here: the recordings (`trainer.data.waveforms`), and what becomes of them (`trainer.label`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from obspy import UTCDateTime

from quake.data.seisbench import DataError
from trainer.data.record import RATE_HZ
from trainer.data.waveforms import Span

MARGIN_S = 5.0
"""On both sides of a time that is taken."""
TAKEN_COLUMNS = ("trace_name", "station_code", "trace_start_time", "trace_npts", "split")
ORIGIN_COLUMNS = ("file", "source_dataset", "licence")


@dataclass(frozen=True, slots=True)
class Provenance:
    """Of a file."""

    source: str
    licence: str


@dataclass(frozen=True, slots=True)
class Taken:
    """Times of stations that are not to be used again, each with its margin."""

    by_station: Mapping[str, Sequence[Span]]
    undated: int = 0
    """Traces of which the tables do not say when they are: those cannot be kept out."""

    def within(self, station: str, span: Span) -> Sequence[Span]:
        """The parts of ``span`` that are taken."""
        common = (span.within(*times) for times in self.by_station.get(station, ()))
        return [part for part in common if part.duration_s > 0]


def read_taken(tables: Iterable[Path], splits: Sequence[str]) -> Taken:
    """Of the traces of some splits in SeisBench's ``metadata.csv``. DataError, naming file and trace, where it is none."""
    by_station: dict[str, list[Span]] = defaultdict(list)
    undated = 0
    for path in tables:
        table = _read(path, TAKEN_COLUMNS)
        if not table["split"].isin(splits).any():
            known = ", ".join(sorted(table["split"].dropna().unique()))
            raise DataError(f"{path}: no trace of split {' or '.join(splits)} (there are: {known})")
        for _, row in table[table["split"].isin(splits)].iterrows():
            if pd.isna(row["trace_start_time"]) or pd.isna(row["station_code"]):
                undated += 1
                continue
            try:
                by_station[row["station_code"]].append(_span(row))
            except ValueError as error:
                raise DataError(f"{path}: trace {row['trace_name']}: {error}") from error
    return Taken(by_station, undated)


def read_provenance(path: Path) -> Mapping[str, Provenance]:
    """By the file's name. DataError for a table without the columns, or a file that stands twice."""
    table = _read(path, ORIGIN_COLUMNS)
    if repeated := table["file"][table["file"].duplicated()].tolist():
        raise DataError(f"{path}: {repeated[0]} stands twice")
    if empty := table["file"][table["source_dataset"].isna()].tolist():
        raise DataError(f"{path}: {empty[0]}: no source_dataset")
    texts = table.fillna("not stated")
    return {row["file"]: Provenance(row["source_dataset"], row["licence"]) for _, row in texts.iterrows()}


def _read(path: Path, needed: Sequence[str]) -> pd.DataFrame:
    """All columns as text."""
    try:
        table = pd.read_csv(path, dtype=str)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if missing := [name for name in needed if name not in table]:
        raise DataError(f"{path}: no column {', '.join(missing)}")
    return table


def _span(row: pd.Series[str]) -> Span:
    """With the margin; a trace that states no rate has RATE_HZ. ValueError for a time or a length that is none."""
    rate_hz = float(row.get("trace_sampling_rate_hz", "nan"))
    try:
        start = UTCDateTime(row["trace_start_time"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"trace_start_time {row['trace_start_time']} is no time") from error
    duration_s = float(row["trace_npts"]) / (rate_hz if rate_hz > 0 else RATE_HZ)
    if not duration_s > 0:
        raise ValueError(f"trace_npts {row['trace_npts']} is no length")
    return Span(start - MARGIN_S, start + duration_s + MARGIN_S)
