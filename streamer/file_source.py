"""Files as `streamer.pipeline.Source`: the records of all of them in the order in which their last samples were taken.

Records are as they lie in the files: nothing is merged, sorted out or packed anew. A file is opened when its time comes,
and what its name told of stays closed until then.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np

from streamer.archive import END_NS, Part
from streamer.objects import Place, index_of
from streamer.record_index import Index
from streamer.server.records import RecordError
from streamer.source import decode
from streamer.stages import Cursor, Packet, Refused, Subscribed, station_of

SERVER = "archive"
"""Of the cursors; their numbers count a run's records."""
INDICES = 64
"""Files whose records' places are remembered, a megabyte each: two days of ten stations."""

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
        self.exhausted = False

    @classmethod
    def of(cls, items: Sequence[Item]) -> FileSource:
        """What lies in memory."""
        return cls(items, ((item.subject, item.component) for item in items if isinstance(item, Packet)))

    def take(self, limit: int, timeout_s: float) -> list[Item]:
        taken = [item for _, item in zip(range(limit), self._items, strict=False)]
        self.exhausted = not taken
        return taken

    def expected(self) -> Mapping[str, frozenset[str]]:
        return {subject: frozenset(codes) for subject, codes in self._expected.items()}


class ArchiveSource(FileSource):
    """Packets of an archive's files, from a time on."""

    def __init__(
        self, parts: Sequence[Part], received_ns: int, from_ns: int = 0, begin_ns: int = 0, end_ns: int = END_NS
    ) -> None:
        """``from_ns``: records that end before it are passed over. ``begin_ns``, ``end_ns``: those that end before or start
        after them do not exist."""
        super().__init__(self._read(parts), (channel for part in parts for channel in part.channels))
        self._received_ns, self._from_ns, self._begin_ns, self._end_ns = received_ns, from_ns, begin_ns, end_ns
        self.faults: list[str] = []
        """What could not be read."""
        self.earlier: set[str] = set()
        """Subjects of records that were passed over."""
        self.longest_ns = 0
        """Of a record of the files opened so far."""

    def _read(self, parts: Sequence[Part]) -> Iterator[Item]:
        records = merged((part.begins_ns, self._records(part)) for part in parts)
        for number, (name, payload) in enumerate(records, 1):
            yield decode(payload, Cursor(SERVER, station_of(name), number), self._received_ns)

    def _records(self, part: Part) -> Iterator[Found]:
        """Those that are wanted; the file is opened with the first."""
        try:
            index = part.index or cached_index(part.path)
        except (RecordError, FileNotFoundError) as error:
            self.faults.append(str(error))
            return
        self.faults += index.faults
        self.longest_ns = max(self.longest_ns, int((index.end_ns - index.start_ns).max()))
        exists = (index.end_ns >= self._begin_ns) & (index.start_ns < self._end_ns)
        wanted = index.end_ns >= self._from_ns
        self.earlier |= {index.names[n].rpartition("_")[0] for n in np.unique(index.name[exists & ~wanted])}
        for n in np.flatnonzero(exists & wanted).tolist():
            yield int(index.end_ns[n]), index.names[index.name[n]], int(index.start_ns[n]), index.record(n)


@lru_cache(maxsize=INDICES)
def cached_index(path: Place) -> Index:
    """Pieces of an archive that follow one another share files. Raises as `index_of`."""
    return index_of(path)


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
