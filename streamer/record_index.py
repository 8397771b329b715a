"""Where the records of one file lie, and when they begin and end: their headers alone are read.

miniSEED stays as it is; what ObsPy alone reads is packed into records.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pymseed import MS3Record

from streamer.server.records import RecordError
from streamer.server.records import read as read_packed

STEP = 64
"""Bytes from a place that holds no record to the next where one may begin: each length of a record is a multiple."""

Row = tuple[str, int, int, int, int]
"""Source identifier, start, end, offset and bytes of a record."""


@dataclass(frozen=True, slots=True)
class Index:
    """Where a file's records lie, in the order in which their last samples were taken."""

    content: mmap.mmap | bytes
    """The file, or records that were packed of it."""
    names: tuple[str, ...]
    """Source identifiers."""
    name: NDArray[np.int64]
    """(n,) as all that follow: which of them."""
    start_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    faults: tuple[str, ...] = ()
    """Bytes that hold no record."""

    def record(self, n: int) -> bytes:
        first = int(self.offset[n])
        return bytes(self.content[first : first + int(self.length[n])])


def read_index(path: Path) -> Index:
    """Raises `RecordError` where there is no record in it, or it cannot be read."""
    try:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise RecordError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    rows, faults = _headers(content, path)
    return _sorted(content, rows, faults) if rows else _packed(path)


def _packed(path: Path) -> Index:
    records = read_packed([path])
    offsets = np.cumsum([0, *(len(r.data) for r in records[:-1])]).tolist()
    rows = [
        (f"FDSN:{r.stream_id}", r.start_ns, r.end_ns, at, len(r.data)) for r, at in zip(records, offsets, strict=True)
    ]
    return _sorted(b"".join(r.data for r in records), rows, [])


def _headers(content: mmap.mmap, path: Path) -> tuple[list[Row], list[str]]:
    """Of each record, and where there are none between them; none at all of a file that begins with something else."""
    rows: list[Row] = []
    faults: list[str] = []
    view, place = memoryview(content), 0
    while place < len(view):
        try:
            for record in MS3Record.from_buffer(view[place:]):
                rows.append((record.sourceid, record.starttime, record.endtime, place, record.reclen))
                place += record.reclen
        except (RuntimeError, ValueError):  # pymseed's errors; UnicodeDecodeError is a ValueError
            if not rows:
                break
            following = _next_record(view, place + STEP)
            faults.append(f"{path}: {following - place} bytes from {place} on hold no record")
            place = following
        else:
            break
    return rows, faults


def _next_record(view: memoryview, place: int) -> int:
    while place < len(view):
        try:
            MS3Record.parse(view[place:])
        except (RuntimeError, ValueError):
            place += STEP
        else:
            return place
    return len(view)


def _sorted(content: mmap.mmap | bytes, rows: list[Row], faults: list[str]) -> Index:
    names = sorted({row[0] for row in rows})
    numbers = {name: n for n, name in enumerate(names)}
    table = np.array([(numbers[name], *rest) for name, *rest in rows], np.int64)
    name, start_ns, end_ns = table[:, 0], table[:, 1], table[:, 2]
    name, start_ns, end_ns, offset, length = np.ascontiguousarray(table[np.lexsort((start_ns, name, end_ns))].T)
    return Index(content, tuple(names), name, start_ns, end_ns, offset, length, tuple(faults))
