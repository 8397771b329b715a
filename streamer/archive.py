"""Recordings as a source: miniSEED files, SDS archives, and what else ObsPy reads, in the order of time.

Records are as they lie in the files: nothing is merged, sorted out or packed anew. A file is opened when its time comes
and closed when its last record is out, so that a year needs no more memory than a day. What is not here: decisions, which
are those of the live daemon, and what becomes of alerts (`streamer.scan`).
"""

from __future__ import annotations

import heapq
import mmap
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pymseed import MS3Record

from quake.times import NS
from streamer.server.records import RecordError
from streamer.server.records import read as read_packed
from streamer.source import decode
from streamer.source.records import station_of
from streamer.source.resume import ResumePoint
from streamer.stages import Cursor, Packet, Refused, Subscribed

SERVER = "archive"
"""Of the cursors: resume points belong to one archive and station."""
SDS = re.compile(
    r"(?P<net>[A-Z0-9]{1,8})\.(?P<sta>[A-Z0-9-]{1,8})\.(?P<loc>[A-Z0-9-]{0,8})\.(?P<band>\w)(?P<source>\w)(?P<component>\w)"
    r"\.D\.(?P<year>\d{4})\.(?P<day>\d{3})"
)
"""A file of a SeisComP Data Structure: one channel and day. https://www.seiscomp.de/seiscomp3/doc/applications/slarchive/SDS.html"""
DAY_NS = 86_400 * NS
SLACK_NS = 3_600 * NS
"""A day's file begins with the record that was cut before midnight."""
STEP = 64
"""Bytes from a place that holds no record to the next where one may begin: each length of a record is a multiple."""

Item = Packet | Refused | Subscribed


@dataclass(frozen=True, slots=True)
class Part:
    """One file."""

    path: Path
    begins_ns: int
    """No record of it starts earlier."""
    ends_ns: int | None
    """No record of it ends later, where the name tells; None where only the file does."""
    size: int
    """Bytes."""
    channels: frozenset[tuple[str, str]]
    """(subject, component): ``("FDSN:BW_UH1__S_H", "Z")``."""
    index: Index | None = None
    """Of a file whose name tells nothing, and which was read through for it."""


@dataclass(frozen=True, slots=True)
class Index:
    """Where a file's records lie, in the order in which their last samples were taken."""

    content: mmap.mmap | bytes
    """The file, or records that were packed of it."""
    names: tuple[str, ...]
    name: NDArray[np.int32]
    start_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    offset: NDArray[np.int64]
    length: NDArray[np.int32]
    faults: tuple[str, ...] = ()

    def record(self, n: int) -> bytes:
        first = int(self.offset[n])
        return bytes(self.content[first : first + int(self.length[n])])


def find(paths: Iterable[Path], begin_ns: int | None = None, end_ns: int | None = None) -> tuple[list[Part], list[str]]:
    """The files of archives and single ones, those that hold something of the span, and what is wrong with others.

    A folder is searched to its bottom. Raises FileNotFoundError for a path that is not there.
    """
    parts, faults = [], []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"no such file: {path}")
        for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
            try:
                parts.append(_by_name(file) or _by_content(file))
            except RecordError as error:
                faults.append(str(error))
    begin_ns, end_ns = begin_ns or 0, end_ns or 2**63
    kept = [p for p in parts if p.begins_ns < end_ns and (p.ends_ns is None or p.ends_ns >= begin_ns)]
    return sorted(kept, key=lambda part: (part.begins_ns, part.path)), faults


def _by_name(path: Path) -> Part | None:
    found = SDS.fullmatch(path.name)
    if found is None:
        return None
    day = datetime(int(found["year"]), 1, 1, tzinfo=UTC) + timedelta(days=int(found["day"]) - 1)
    begins_ns = int(day.timestamp()) * NS
    subject = f"FDSN:{found['net']}_{found['sta']}_{found['loc']}_{found['band']}_{found['source']}"
    channels = frozenset({(subject, found["component"])})
    return Part(path, begins_ns - SLACK_NS, begins_ns + DAY_NS + SLACK_NS, path.stat().st_size, channels)


def _by_content(path: Path) -> Part:
    index = read_index(path)
    split = (name.rpartition("_") for name in index.names)
    channels = frozenset((subject, component) for subject, _, component in split)
    begins_ns, ends_ns = int(index.start_ns.min()), int(index.end_ns.max())
    return Part(path, begins_ns, ends_ns, path.stat().st_size, channels, index)


def read_index(path: Path) -> Index:
    """Raises `RecordError` where there is no record in it, or it cannot be read."""
    try:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise RecordError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    rows, faults = _headers(content, path)
    if rows:
        return _sorted(content, rows, faults)
    packed = read_packed([path])
    ends = np.cumsum([0, *(len(r.data) for r in packed)])
    lines = [
        (f"FDSN:{r.stream_id}", r.start_ns, r.end_ns, int(e), len(r.data)) for r, e in zip(packed, ends, strict=False)
    ]
    return _sorted(b"".join(r.data for r in packed), lines, [])


def _headers(content: mmap.mmap, path: Path) -> tuple[list[tuple[str, int, int, int, int]], list[str]]:
    """(source identifier, start, end, offset, bytes) of each record; bytes between them are passed over and told."""
    rows: list[tuple[str, int, int, int, int]] = []
    faults: list[str] = []
    place, size, view = 0, len(content), memoryview(content)
    while place < size:
        lost = place
        try:
            for record in MS3Record.from_buffer(view[place:]):
                rows.append((record.sourceid, record.starttime, record.endtime, place, record.reclen))
                place += record.reclen
                lost = place
        except (RuntimeError, ValueError):  # pymseed's errors; UnicodeDecodeError is a ValueError
            place = _next_record(view, place + STEP) if rows else size
            faults.append(f"{path}: {place - lost} bytes from {lost} on hold no record")
    return rows, faults if rows else []


def _next_record(view: memoryview, place: int) -> int:
    while place < len(view):
        try:
            MS3Record.parse(view[place:])
        except (RuntimeError, ValueError):
            place += STEP
        else:
            return place
    return len(view)


def _sorted(content: mmap.mmap | bytes, rows: list[tuple[str, int, int, int, int]], faults: list[str]) -> Index:
    names = sorted({row[0] for row in rows})
    numbers = {name: n for n, name in enumerate(names)}
    table = np.array([(numbers[name], *rest) for name, *rest in rows], np.int64)
    name, start_ns, end_ns, offset, length = table[np.lexsort((table[:, 1], table[:, 0], table[:, 2]))].T
    return Index(
        content,
        tuple(names),
        name.astype(np.int32),
        start_ns.copy(),
        end_ns.copy(),
        offset.copy(),
        length.astype(np.int32),
        tuple(faults),
    )


class ArchiveSource:
    """Packets of files, as `streamer.pipeline.Source`; goes on from resume points."""

    def __init__(
        self,
        parts: Sequence[Part],
        received_ns: int,
        resume: Mapping[tuple[str, str], ResumePoint] | None = None,
        begin_ns: int | None = None,
        end_ns: int | None = None,
    ) -> None:
        """``begin_ns``, ``end_ns``: records that end before or start after them are left out."""
        self._received_ns, self._begin_ns, self._end_ns = received_ns, begin_ns or 0, end_ns or 2**63
        self._from_ns = {
            station: point.time_ns for (server, station), point in (resume or {}).items() if server == SERVER
        }
        self._expected: dict[str, set[str]] = defaultdict(set)
        for subject, component in frozenset().union(*(part.channels for part in parts)):
            self._expected[subject].add(component)
        self.faults: list[str] = []
        """What could not be read."""
        self.exhausted = self.stopped = False
        self.queued = 0
        self.data_s = 0.0
        """Seconds of stations handed out, a component of three counted as a third."""
        self.bytes_done, self.bytes_all = 0, sum(part.size for part in parts)
        """How far it has come; of files that are not miniSEED, about."""
        self.share_before = 0.0
        """Of it, what an earlier run did."""
        self._count = 0
        self._items = self._read(parts)

    def stop(self) -> None:
        """Hand out no more: what was is decided, and the rest is for another run."""
        self.stopped = self.exhausted = True

    def take(self, limit: int, timeout_s: float) -> list[Item]:
        if self.stopped:
            return []
        taken = [item for _, item in zip(range(limit), self._items, strict=False)]
        self.exhausted = not taken
        return taken

    def expected(self) -> Mapping[str, frozenset[str]]:
        return {subject: frozenset(codes) for subject, codes in self._expected.items()}

    def _read(self, parts: Sequence[Part]) -> Iterator[Item]:
        left = [part for part in parts if not self._is_done(part)]
        self.bytes_done = self.bytes_all - sum(part.size for part in left)
        self.share_before = self.bytes_done / self.bytes_all
        for payload in merged(Opened(part, self.faults) for part in left):
            self.bytes_done += len(payload)
            yield from self._item(payload)

    def _is_done(self, part: Part) -> bool:
        """Whether all of it was decided before: such a file is not even opened."""
        stations = {"_".join(subject.removeprefix("FDSN:").split("_")[:2]) for subject, _ in part.channels}
        points = [self._from_ns.get(station) for station in stations]
        return part.ends_ns is not None and all(ns is not None and part.ends_ns < ns for ns in points)

    def _item(self, payload: bytes) -> Iterator[Item]:
        station = station_of(payload) or ""
        self._count += 1
        item = decode(payload, Cursor(SERVER, station, self._count), self._received_ns)
        if isinstance(item, Packet):
            if item.end_ns < max(self._begin_ns, self._from_ns.get(station) or 0) or item.start_ns >= self._end_ns:
                return
            self.data_s += len(item.samples) / float(item.rate) / len(self._expected.get(item.subject, "Z") or "Z")
        yield item


class Opened:
    """A file whose records come one after the other; opened with the first."""

    def __init__(self, part: Part, faults: list[str]) -> None:
        self.begins_ns, self._part, self._faults = part.begins_ns, part, faults

    def __iter__(self) -> Iterator[tuple[int, str, int, bytes]]:
        """(end, source identifier, start, bytes)."""
        try:
            index = self._part.index or read_index(self._part.path)
        except (RecordError, FileNotFoundError) as error:
            self._faults.append(str(error))
            return
        self._faults += index.faults
        for n, end_ns in enumerate(index.end_ns):
            yield int(end_ns), index.names[index.name[n]], int(index.start_ns[n]), index.record(n)


def merged(files: Iterable[Opened]) -> Iterator[bytes]:
    """The records of files that are sorted by their beginning, in the order in which their last samples were taken."""
    waiting = iter(files)
    following = next(waiting, None)
    heap: list[tuple[int, str, int, int, bytes, Iterator[tuple[int, str, int, bytes]]]] = []
    opened = 0
    while following is not None or heap:
        while following is not None and (not heap or following.begins_ns <= heap[0][0]):
            opened += 1
            _push(heap, opened, iter(following))
            following = next(waiting, None)
        if heap:
            *_, number, payload, records = heapq.heappop(heap)
            yield payload
            _push(heap, number, records)


def _push(
    heap: list[tuple[int, str, int, int, bytes, Iterator[tuple[int, str, int, bytes]]]],
    number: int,
    records: Iterator[tuple[int, str, int, bytes]],
) -> None:
    """``number`` keeps records of the same time, channel and start in the order of their files."""
    if (first := next(records, None)) is not None:
        heapq.heappush(heap, (*first[:3], number, first[3], records))
