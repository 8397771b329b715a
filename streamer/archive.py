"""Which files an archive has: SDS trees by their names, everything else by its content. https://www.seiscomp.de/seiscomp3/doc/applications/slarchive/SDS.html

What lies in a file is in `streamer.record_index`, the order of all records in `streamer.file_source`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from quake.times import NS
from streamer.objects import Object, Place, index_of, listed, size_of
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
END_NS = 2**63 - 1
"""After everything."""


@dataclass(frozen=True, slots=True)
class Part:
    """One file."""

    path: Place
    begins_ns: int
    """No record of it starts earlier."""
    ends_ns: int
    """No record of it ends later."""
    size: int
    """Bytes."""
    channels: frozenset[tuple[str, str]]
    """(subject, component): ``("FDSN:BW_UH1__S_H", "Z")``."""
    index: Index | None = None
    """Of a file whose name tells nothing, and which was read through for it."""


def find(paths: Iterable[Path | str], begin_ns: int = 0, end_ns: int = END_NS) -> tuple[list[Part], list[str]]:
    """The files of archives and single ones that hold something of the span, in the order in which they begin, and what
    is wrong with others.

    A folder is searched to its bottom; text is the address of one in an object store. Raises FileNotFoundError for a path that
    is not there, and `streamer.objects.StoreError`.
    """
    parts, faults = [], []
    for file in _files(paths):
        try:
            part = _by_name(file) or _by_content(file)
        except RecordError as error:
            faults.append(str(error))
        else:
            if part.begins_ns < end_ns and part.ends_ns >= begin_ns:
                parts.append(part)
    return sorted(parts, key=lambda part: (part.begins_ns, str(part.path))), faults


def _files(paths: Iterable[Path | str]) -> Iterable[Place]:
    for path in paths:
        if isinstance(path, str):
            yield from listed(path)
            continue
        if not path.exists():
            raise FileNotFoundError(f"no such file: {path}")
        yield from sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def _by_name(path: Place) -> Part | None:
    found = SDS.fullmatch(path.name)
    if found is None:
        return None
    day = datetime(int(found["year"]), 1, 1, tzinfo=UTC) + timedelta(days=int(found["day"]) - 1)
    begins_ns = int(day.timestamp()) * NS
    subject = f"FDSN:{found['net']}_{found['sta']}_{found['loc']}_{found['band']}_{found['source']}"
    channels = frozenset({(subject, found["component"])})
    return Part(path, begins_ns - SLACK_NS, begins_ns + DAY_NS + SLACK_NS, size_of(path), channels)


def _by_content(path: Place) -> Part:
    index = index_of(path)
    split = (name.rpartition("_") for name in index.names)
    channels = frozenset((subject, component) for subject, _, component in split)
    begins_ns, ends_ns = int(index.start_ns.min()), int(index.end_ns.max())
    kept = None if isinstance(path, Object) else index  # a copy of a store's file would stay for as long
    return Part(path, begins_ns, ends_ns, size_of(path), channels, kept)
