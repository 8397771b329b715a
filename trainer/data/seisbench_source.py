"""Recordings of a folder in SeisBench's format (`quake.data.seisbench`), at any rate.

Only ``trace_name`` must be there, and for earthquakes a column of P times. What a column does not say stays unknown:
a magnitude counts only where the gain is known, a back-azimuth only where the horizontals point north and east.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from quake.data.seisbench import CHUNK, DataError, SeisBenchDataset
from trainer.data.finding import NOT_READ, Find, Findings, Raw, Shares, SourceSection, unreadable
from trainer.data.record import BY_PICKERS, COMPONENTS, RATE_HZ, UNKNOWN, Record
from trainer.section import Positive

Row = Mapping[str, Any]

P_COLUMNS = tuple(f"trace_{phase}_arrival_sample" for phase in ("p", "P", "Pg", "Pn"))
S_COLUMNS = tuple(f"trace_{phase}_arrival_sample" for phase in ("s", "S", "Sg", "Sn"))
"""Names that SeisBench's sets give to the phases; the earliest of a row counts."""
SNR_COLUMNS = ("trace_snr_p", "trace_snr_db", "trace_Z_snr_db")
TEACHER = "teacher"
"""Status of a P that another network picked."""
UNORIENTED = "Z12"
"""Horizontals of unknown direction, read in the places of N and E."""


class SeisBench(SourceSection):
    """A folder with ``metadata.csv`` and ``waveforms.hdf5``, in chunks where it has them."""

    type: Literal["seisbench"]
    path: Path = Field(description="folder of the data set")
    assume_order: str = Field(
        default=COMPONENTS, pattern="^[A-Z0-9]+$", description="of the components, where the set states none"
    )
    assume_rate_hz: Positive = Field(default=RATE_HZ, description="of traces that state none")
    gain_known: bool = Field(default=False, description="amplitudes are comparable between stations, all of them")
    splits: Mapping[str, str] = Field(
        default={}, description="names of the set's splits that are called otherwise here"
    )
    split: Shares | None = Field(default=None, description="divide by earthquake, whatever the set's own split is")

    def find(self, folder: Path) -> Findings:
        dataset = SeisBenchDataset(folder / self.path, COMPONENTS, assumed_order=self.assume_order)
        rows = [{str(key): value for key, value in row.items()} for row in dataset.metadata.to_dict("records")]
        if any(is_event(row) for row in rows) and not set(P_COLUMNS) & set(dataset.metadata):
            raise DataError(f"{folder / self.path}: the metadata have earthquakes, and no column {P_COLUMNS[0]}")
        has_split = "split" in dataset.metadata and self.split is None
        turned = dataset.filter(np.ones(len(dataset), np.bool_))
        turned.components = UNORIENTED
        earthquakes = {row["trace_name"]: _earthquake(row) for row in rows}
        return Findings(
            tuple(
                Find(
                    record=self._record(row),
                    read=self._reader(turned if _is_turned(row) else dataset, index, row),
                    split=self._split(row) if has_split else "",
                    group=_earthquake(row) if is_event(row) else earthquakes.get(row.get("parent_trace"), ""),
                )
                for index, row in enumerate(rows)
            ),
            shares=None if has_split else self.split or Shares(),
            files=_files(self.path, folder, dataset.metadata[CHUNK].unique()),
        )

    def _split(self, row: Row) -> str:
        stated = _text(row, "split")
        return self.splits.get(stated, stated)

    def _record(self, row: Row) -> Record:
        label = self.name or self.path.name
        name = str(row["trace_name"])
        event = is_event(row)
        return Record(
            # A place within a block ("bucket0$3,:3,:6000") is the same in every set.
            name=f"{label}{row[CHUNK]}:{name}" if "$" in name else name,
            source=_text(row, "source_dataset") or label,
            source_id=_earthquake(row) if event else "",
            samples=NOT_READ,
            kind="earthquake" if event else "noise",
            is_crowded=_is_true(row, "multi_event"),
            origin=_origin(row),
            magnitude=_number(row, "source_magnitude") if self._has_gain(row) and event else UNKNOWN,
            back_azimuth_deg=_number(row, "path_back_azimuth_deg") % 360 if _is_oriented(row) and event else UNKNOWN,
            distance_km=_number(row, "path_ep_distance_km") if event else UNKNOWN,
            snr_db=_number(row, *SNR_COLUMNS) if event else UNKNOWN,
            licence=_text(row, "licence") or self.licence,
            weight=self.weight,
        )

    def _has_gain(self, row: Row) -> bool:
        return self.gain_known or _is_true(row, "trace_gain_known")

    def _reader(self, dataset: SeisBenchDataset, index: int, row: Row) -> Callable[[], Raw]:
        if not is_event(row) and _is_true(row, "noise_suspect"):
            return unreadable("suspect", "the set calls this noise suspicious")
        if is_event(row) and not np.isfinite(_earliest(row, P_COLUMNS)):
            return unreadable("no_p", "an earthquake without a time of P")
        return partial(self._read, dataset, index)

    def _read(self, dataset: SeisBenchDataset, index: int) -> Raw:
        trace = dataset[index]
        rate_hz = self.assume_rate_hz if np.isnan(trace.sampling_rate_hz) else trace.sampling_rate_hz
        if not is_event(trace.metadata):
            return Raw(trace.samples, rate_hz)
        return Raw(trace.samples, rate_hz, *(_earliest(trace.metadata, names) for names in (P_COLUMNS, S_COLUMNS)))


def is_event(row: Row) -> bool:
    """What is not called noise: without a category, a recording whose P is not known may hold an earthquake."""
    return _text(row, "trace_category") != "noise"


def _origin(row: Row) -> str:
    if not is_event(row):
        return _text(row, "noise_origin")
    return BY_PICKERS if _text(row, "trace_p_status") == TEACHER else ""


def _files(path: Path, folder: Path, chunks: Iterable[str]) -> dict[str, Path]:
    names = [
        f"{kind}{chunk}.{suffix}" for chunk in chunks for kind, suffix in (("metadata", "csv"), ("waveforms", "hdf5"))
    ]
    return {str(path / name): folder / path / name for name in (*names, "chunks") if (folder / path / name).is_file()}


def _earthquake(row: Row) -> str:
    """One without an id is an earthquake of its own."""
    return _text(row, "source_id") or str(row["trace_name"])


def _is_oriented(row: Row) -> bool:
    """North and east are recorded, and point there as far as the set says."""
    order = row.get("trace_component_order")
    stored = not isinstance(order, str) or {"N", "E"} <= set(order)
    return stored and ("trace_horizontals" not in row or _text(row, "trace_horizontals") in {"NE", "EN"})


def _is_turned(row: Row) -> bool:
    order = row.get("trace_component_order")
    return isinstance(order, str) and {"1", "2"} <= set(order)


def _earliest(row: Row, columns: Iterable[str]) -> float:
    times = [time for column in columns if np.isfinite(time := _number(row, column))]
    return min(times, default=UNKNOWN)


def _number(row: Row, *columns: str) -> float:
    """Of the first column that is there; NaN where it holds no number."""
    value = next((row[column] for column in columns if column in row), UNKNOWN)
    try:
        return float(value)
    except (TypeError, ValueError):
        return UNKNOWN


def _text(row: Row, column: str) -> str:
    """Empty where there is none. Numbers that a gap in their column made floats are whole again."""
    value = row.get(column)
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.0f}" if value.is_integer() else str(value)
    return "" if value is None else str(value)


def _is_true(row: Row, column: str) -> bool:
    return _text(row, column).lower() in {"true", "1"}
