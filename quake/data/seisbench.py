"""Read data sets in SeisBench's format: ``metadata.csv`` and ``waveforms.hdf5``, also in blocks and in chunks.

Read with h5py and pandas, which the training stack has anyway, because the `seisbench` library is GPL-3.0 and makes
folders in the user's home when it is imported. The format is that of SeisBench's documentation
(https://seisbench.readthedocs.io/en/stable/pages/data/data_format.html).

What is not here: resampling, writing, downloading, caching, and traces of other dimensions than components and samples.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from quake.data.errors import DataError

__all__ = ["CHUNK", "DataError", "SeisBenchDataset", "Trace"]

Samples = NDArray[np.float32]

CHUNK = "trace_chunk"
"""Column added to the metadata: the chunk that a trace lies in, empty where the set has none. SeisBench's own name."""


TEXT_COLUMNS = {"trace_name": str, "trace_component_order": str}
"""Never numbers, though they may consist of digits: components 1, 2, 3 are an order of their own."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One station's record of one event, or of noise."""

    name: str
    samples: Samples
    """(components, N) in the order asked for, as stored; a component that was not recorded is zeros."""
    sampling_rate_hz: float
    """NaN where the set does not say."""
    metadata: dict[str, Any]
    """Its row; NaN: not known."""


class SeisBenchDataset:
    """The traces of a folder: ``len(dataset)``, ``dataset[i]``, and iteration.

    The metadata are read at once, a waveform when it is asked for. Each process opens the files for itself, so an
    instance can be pickled and goes into the workers of a torch DataLoader as it is.

    ``components``: order of the components in `Trace.samples`, one letter each. ``assumed_order``: order of the stored
    components in a set that does not state it, against the format's rule; by default such a set is refused. DataError
    where a file cannot be read or a trace is not what the format promises.
    """

    def __init__(self, folder: Path | str, components: str = "ZNE", *, assumed_order: str | None = None) -> None:
        self.folder = Path(folder)
        self.components = components
        self.metadata = _read_metadata(self.folder)
        """One row a trace, in the order of the indices."""
        self._assumed_order = assumed_order
        self._chunks: dict[str, _Chunk] = {}
        self._process = os.getpid()

    def __len__(self) -> int:
        return len(self.metadata)

    def __getitem__(self, index: int) -> Trace:
        """IndexError beyond the last trace."""
        row: dict[str, Any] = {str(key): value for key, value in self.metadata.iloc[index].items()}
        chunk = self._open(row[CHUNK])
        stored = chunk.samples(row["trace_name"])
        order = row.get("trace_component_order")
        if not isinstance(order, str):
            order = chunk.component_order or self._assumed_order
        try:
            samples = _reorder(stored, order, self.components)
        except ValueError as error:
            raise DataError(f"{chunk.path}: trace {row['trace_name']}: {error}") from error
        return Trace(row["trace_name"], samples, _sampling_rate_hz(row, chunk.sampling_rate_hz), row)

    def __iter__(self) -> Iterator[Trace]:
        return (self[index] for index in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_chunks": {}}

    def filter(self, mask: ArrayLike) -> SeisBenchDataset:
        """The traces for which ``mask`` is true: (len,) booleans, such as a comparison of metadata columns."""
        wanted = np.asarray(mask)
        if wanted.dtype != np.bool_ or wanted.shape != (len(self),):
            raise ValueError(f"a mask must be {len(self)} booleans, not {wanted.dtype} of shape {wanted.shape}")
        part = SeisBenchDataset.__new__(SeisBenchDataset)
        part.__dict__.update(self.__getstate__(), metadata=self.metadata[wanted].reset_index(drop=True))
        return part

    def split(self, name: str) -> SeisBenchDataset:
        """The traces of one split, such as ``train``, ``dev`` or ``test``; DataError where there is none."""
        if "split" not in self.metadata:
            raise DataError(f"{self.folder}: the metadata have no column split")
        part = self.filter(self.metadata["split"] == name)
        if not len(part):
            known = ", ".join(sorted(set(self.metadata["split"].dropna().astype(str))))
            raise DataError(f"{self.folder}: no trace of split {name!r} (there are: {known})")
        return part

    def _open(self, chunk: str) -> _Chunk:
        if self._process != os.getpid():  # forked: the parent's file handles share their position with ours
            self._chunks, self._process = {}, os.getpid()
        if chunk not in self._chunks:
            self._chunks[chunk] = _Chunk(self.folder / f"waveforms{chunk}.hdf5")
        return self._chunks[chunk]


class _Chunk:
    """An open file of waveforms; closed when nothing refers to it any more."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = h5py.File(path, "r")
            self._data = self._file["data"]
            layout = {key: value[()] for key, value in self._file.get("data_format", {}).items()}
        except (OSError, KeyError) as error:
            raise DataError(f"{path}: cannot be read: {error}") from error
        self.component_order = _text(layout.get("component_order", ""))
        self.sampling_rate_hz = float(layout.get("sampling_rate", np.nan))
        dimensions = _text(layout.get("dimension_order", "CW"))
        if dimensions not in {"CW", "WC"}:
            raise DataError(f"{path}: dimension_order must be CW or WC, not {dimensions!r}")
        self._samples_first = dimensions == "WC"

    def samples(self, name: str) -> Samples:
        """(components, N) of a trace ``key``, or ``key$slices`` within a block of several traces."""
        key, _, place = name.partition("$")
        try:
            stored = np.asarray(self._data[key][_slices(place) if place else ()], dtype=np.float32)
        except (OSError, KeyError, ValueError, IndexError, TypeError) as error:
            raise DataError(f"{self.path}: trace {name}: cannot be read: {error}") from error
        if stored.ndim != 2:
            raise DataError(f"{self.path}: trace {name}: must be components and samples, not of shape {stored.shape}")
        return stored.T if self._samples_first else stored


def _read_metadata(folder: Path) -> pd.DataFrame:
    tables = []
    for chunk in _chunk_names(folder):
        path = folder / f"metadata{chunk}.csv"
        try:
            table = pd.read_csv(path, dtype=TEXT_COLUMNS, low_memory=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read: {error}") from error
        if "trace_name" not in table:
            raise DataError(f"{path}: no column trace_name")
        tables.append(table.assign(**{CHUNK: chunk}))
    return pd.concat(tables, ignore_index=True)


def _chunk_names(folder: Path) -> Sequence[str]:
    """As the file ``chunks`` lists them; without it, from the names of the files. Sorted, as SeisBench has them."""
    listing = folder / "chunks"
    if listing.is_file() and (names := listing.read_text().split()):
        return sorted(names)
    if (folder / "metadata.csv").is_file():
        return [""]
    found = {path.stem.removeprefix("metadata") for path in folder.glob("metadata*.csv")}
    return sorted(found) or [""]


def _slices(place: str) -> tuple[int | slice, ...]:
    """Numpy's notation for slices: ``3,:3,:1024``. ValueError where it is something else."""
    parts = [[int(bound) if bound.strip() else None for bound in part.split(":")] for part in place.split(",")]
    return tuple(slice(*part) if len(part) > 1 else _index(part[0], place) for part in parts)


def _index(value: int | None, place: str) -> int:
    if value is None:
        raise ValueError(f"{place!r} is no place within a block")
    return value


def _reorder(stored: Samples, order: str | None, components: str) -> Samples:
    """(stored components, N) -> (components, N), zeros for those that are not stored."""
    if not order:
        raise ValueError("the set does not state the order of its components")
    if len(order) != len(stored):
        raise ValueError(f"{len(stored)} components stored, and the order {order!r} has {len(order)}")
    if not set(order) & set(components):
        raise ValueError(f"holds components {order!r}, none of {components!r}")
    samples = np.zeros((len(components), stored.shape[1]), np.float32)
    for place, component in enumerate(components):
        if component in order:
            samples[place] = stored[order.index(component)]
    return samples


def _sampling_rate_hz(row: dict[str, Any], common: float) -> float:
    """Of a trace's own columns first, then the set's."""
    own = float(row.get("trace_sampling_rate_hz", np.nan))
    if np.isnan(own):
        own = 1.0 / float(row.get("trace_dt_s", np.nan))
    return common if np.isnan(own) else own


def _text(value: Any) -> str:
    """A string, or a list of strings, as h5py gives it."""
    letters = np.atleast_1d(value).tolist()
    return "".join(letter.decode() if isinstance(letter, bytes) else str(letter) for letter in letters)
