"""Which files an archive has: SDS trees by their names, everything else by its content. https://www.seiscomp.de/seiscomp3/doc/applications/slarchive/SDS.html

What lies in a file is in `streamer.record_index`, the order of all records in `streamer.file_source`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quake.times import NS
from streamer.objects import Place, cached_index, listed, size_of
from streamer.record_index import Index
from streamer.server.records import RecordError

SDS = re.compile(
    r"(?P<net>[A-Z0-9]{1,8})\.(?P<sta>[A-Z0-9-]{1,8})\.(?P<loc>[A-Z0-9-]{0,8})\.(?P<band>\w)(?P<source>\w)(?P<component>\w)"
    r"\.D\.(?P<year>\d{4})\.(?P<day>\d{3})"
)
"""A file of a SeisComP Data Structure: one channel and day."""
DAY_NS = 86_400 * NS
SLACK_NS = 3_600 * NS
"""A day's file begins with the record that was cut before midnight."""
APART_NS = 6 * 3_600 * NS
"""A file that holds nothing for longer is several parts: one record with a wrong year must not span decades."""
END_NS = 2**63 - 1
"""After everything."""


@dataclass(frozen=True, slots=True)
class Part:
    """A file, or a stretch of one."""

    path: Place
    begins_ns: int
    """No record of it starts earlier."""
    ends_ns: int
    """No record of it ends later. What a file holds outside is no part of it."""
    size: int
    """Bytes of the file."""
    channels: frozenset[tuple[str, str]]
    """(subject, component): ``("FDSN:BW_UH1__S_H", "Z")``."""

    @property
    def subjects(self) -> frozenset[str]:
        return frozenset(subject for subject, _ in self.channels)


def find(paths: Iterable[Path | str], begin_ns: int = 0, end_ns: int = END_NS) -> tuple[list[Part], list[str]]:
    """The files of archives and single ones that hold something of the span, in the order in which they begin, and what
    is wrong with others.

    A folder is searched to its bottom; text is the address of one in an object store. Raises FileNotFoundError for a path that
    is not there, and `streamer.objects.StoreError`.
    """
    parts, faults = [], []
    for file in _files(paths):
        try:
            parts += _parts(file, begin_ns, end_ns)
        except RecordError as error:
            faults.append(str(error))
    return sorted(parts, key=lambda part: (part.begins_ns, str(part.path))), faults


def _files(paths: Iterable[Path | str]) -> Iterable[Place]:
    for path in paths:
        if isinstance(path, str):
            yield from listed(path)
            continue
        if not path.exists():
            raise FileNotFoundError(f"no such file: {path}")
        yield from sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def _parts(path: Place, begin_ns: int, end_ns: int) -> list[Part]:
    """Of a day that reaches over an end of the span, the content tells which channels there are in it."""
    part = _by_name(path)
    if part is None or part.size == 0:
        return _by_content(path, begin_ns, end_ns)
    if part.begins_ns >= end_ns or part.ends_ns < begin_ns:
        return []
    whole = part.begins_ns >= begin_ns and part.ends_ns < end_ns
    return [part] if whole else _by_content(path, begin_ns, end_ns)


def _by_name(path: Place) -> Part | None:
    found = SDS.fullmatch(path.name)
    if found is None:
        return None
    day = datetime(int(found["year"]), 1, 1, tzinfo=UTC) + timedelta(days=int(found["day"]) - 1)
    begins_ns = int(day.timestamp()) * NS
    subject = f"FDSN:{found['net']}_{found['sta']}_{found['loc']}_{found['band']}_{found['source']}"
    channels = frozenset({(subject, found["component"])})
    return Part(path, begins_ns - SLACK_NS, begins_ns + DAY_NS + SLACK_NS, size_of(path), channels)


def _by_content(path: Place, begin_ns: int, end_ns: int) -> list[Part]:
    size = size_of(path)
    index = cached_index(path, size)
    rows = np.flatnonzero((index.end_ns >= begin_ns) & (index.start_ns < end_ns))
    starts_ns = np.minimum.accumulate(index.start_ns[rows][::-1])[::-1]  # of each record and of all that end later
    apart = np.flatnonzero(starts_ns[1:] - index.end_ns[rows][:-1] > APART_NS) + 1
    return [
        Part(path, int(first_ns), int(index.end_ns[stretch[-1]]), size, _channels(index, stretch))
        for first_ns, stretch in zip(starts_ns[[0, *apart]] if len(rows) else [], np.split(rows, apart), strict=False)
    ]


def _channels(index: Index, rows: NDArray[np.int64]) -> frozenset[tuple[str, str]]:
    split = (index.names[n].rpartition("_") for n in np.unique(index.name[rows]))
    return frozenset((subject, component) for subject, _, component in split)
