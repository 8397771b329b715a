"""Files as `streamer.pipeline.Source`: the records of all of them in the order in which their last samples were taken.

Records are as they lie in the files: nothing is merged, sorted out or packed anew. A file is opened when its time comes,
and what its name told of stays closed until then, so that a year needs no more memory than a day.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from streamer.archive import END_NS, Part
from streamer.record_index import read_index
from streamer.server.records import RecordError
from streamer.source import decode
from streamer.source.resume import ResumePoint
from streamer.stages import Cursor, Packet, Refused, Subscribed, station_of

SERVER = "archive"
"""Of the cursors: resume points belong to an archive and a station. They go by time; numbers count a run's records."""

Item = Packet | Refused | Subscribed
Found = tuple[int, str, int, bytes]
"""A record: end, source identifier, start, bytes."""


class FileSource:
    """Packets that lie ready, and the components that each subject is known to have."""

    def __init__(self, items: Iterable[Item], channels: Iterable[tuple[str, str]]) -> None:
        self._items = iter(items)
        self._expected: dict[str, set[str]] = defaultdict(set)
        for subject, component in channels:
            self._expected[subject].add(component)
        self.queued = 0
        self.exhausted = self.stopped = False

    @classmethod
    def of(cls, items: Sequence[Item]) -> FileSource:
        """What lies in memory."""
        return cls(items, ((item.subject, item.component) for item in items if isinstance(item, Packet)))

    def stop(self) -> None:
        """Hand out no more: what was is decided, and the rest is for another run."""
        self.stopped = self.exhausted = True

    def take(self, limit: int, timeout_s: float) -> list[Item]:
        taken = [] if self.stopped else [item for _, item in zip(range(limit), self._items, strict=False)]
        self.exhausted = not taken
        return taken

    def expected(self) -> Mapping[str, frozenset[str]]:
        return {subject: frozenset(codes) for subject, codes in self._expected.items()}


class ArchiveSource(FileSource):
    """Packets of an archive's files; goes on from resume points."""

    def __init__(
        self,
        parts: Sequence[Part],
        received_ns: int,
        resume: Mapping[tuple[str, str], ResumePoint],
        begin_ns: int = 0,
        end_ns: int = END_NS,
    ) -> None:
        """``begin_ns``, ``end_ns``: records that end before or start after them are left out."""
        super().__init__(self._read(parts), (channel for part in parts for channel in part.channels))
        self._received_ns, self._begin_ns, self._end_ns = received_ns, begin_ns, end_ns
        self._from_ns = {station: p.time_ns or 0 for (server, station), p in resume.items() if server == SERVER}
        self.faults: list[str] = []
        """What could not be read."""
        self.data_s = 0.0
        """Seconds of stations handed out: of their vertical components."""
        self.bytes_all, self.bytes_before = sum(part.size for part in parts), 0
        """Of the files, and of those that an earlier run was done with; about, of files that are not miniSEED."""
        self.bytes_done = 0

    def _read(self, parts: Sequence[Part]) -> Iterator[Item]:
        left = [part for part in parts if part.ends_ns >= min(self._needed_ns(subject) for subject, _ in part.channels)]
        self.bytes_done = self.bytes_before = self.bytes_all - sum(part.size for part in left)
        for number, (name, payload) in enumerate(merged((part.begins_ns, self._records(part)) for part in left), 1):
            item = decode(payload, Cursor(SERVER, station_of(name), number), self._received_ns)
            if isinstance(item, Packet) and item.component == "Z":
                self.data_s += len(item.samples) / float(item.rate)
            yield item

    def _needed_ns(self, name: str) -> int:
        """Records of a channel or subject that end earlier are not wanted, or were decided before."""
        return max(self._begin_ns, self._from_ns.get(station_of(name), 0))

    def _records(self, part: Part) -> Iterator[Found]:
        """Those that are wanted; the file is opened with the first."""
        try:
            index = part.index or read_index(part.path)
        except (RecordError, FileNotFoundError) as error:
            self.faults.append(str(error))
            return
        self.faults += index.faults
        left = part.size
        needed_ns = np.array([self._needed_ns(name) for name in index.names], np.int64)[index.name]
        for n in np.flatnonzero((index.end_ns >= needed_ns) & (index.start_ns < self._end_ns)).tolist():
            yield int(index.end_ns[n]), index.names[index.name[n]], int(index.start_ns[n]), index.record(n)
            self.bytes_done += int(index.length[n])
            left -= int(index.length[n])
        self.bytes_done += left  # what was passed over


def merged(files: Iterable[tuple[int, Iterator[Found]]]) -> Iterator[tuple[str, bytes]]:
    """(source identifier, bytes) of the records of files that come in the order of their beginning, each with it.

    Records of one time, channel and start keep the order of their files.
    """
    waiting = enumerate(files)
    following = next(waiting, None)
    heap: list[tuple[int, str, int, int, bytes, Iterator[Found]]] = []

    def push(number: int, records: Iterator[Found]) -> None:
        if (first := next(records, None)) is not None:
            heapq.heappush(heap, (*first[:3], number, first[3], records))

    while following is not None or heap:
        while following is not None and (not heap or following[1][0] <= heap[0][0]):
            push(following[0], following[1][1])
            following = next(waiting, None)
        if heap:
            _, name, _, number, payload, records = heapq.heappop(heap)
            yield name, payload
            push(number, records)
