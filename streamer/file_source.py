"""Recordings as packets: the records of all files in the order in which their last samples were taken.

Records are as they lie in the files: nothing is merged, sorted out or packed anew. A file is opened when its time comes,
and what its name told of stays closed until then.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from streamer.archive import END_NS, Part
from streamer.objects import cached_index
from streamer.record_index import Index
from streamer.server.records import RecordError
from streamer.source import decode
from streamer.stages import Packet, Refused, Subscribed

NOTHING = np.zeros(0, np.int64)

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


class ArchiveSource:
    """Packets of an archive's files, from a time on."""

    def __init__(
        self, parts: Sequence[Part], received_ns: int, from_ns: int = 0, begin_ns: int = 0, end_ns: int = END_NS
    ) -> None:
        """``from_ns``: records that end before it, by more than one lasts, are passed over. ``begin_ns``, ``end_ns``: those
        that end before or start after them do not exist."""
        self._parts, self._received_ns = parts, received_ns
        self._from_ns, self._begin_ns, self._end_ns = from_ns, begin_ns, end_ns
        self._items = self._read()
        self._opened: dict[Part, tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.int64]]] = {}
        """Source identifiers; (n,) which of them a wanted record is of, and when it ends."""
        self.faults: list[str] = []
        """What could not be read."""
        self.earlier: dict[str, dict[str, int]] = defaultdict(dict)
        """Subject -> component -> start of the first record that was passed over."""
        self.longest_ns = 0
        """Of a record of the parts opened so far."""

    def take(self, limit: int) -> list[Item]:
        return list(islice(self._items, limit))

    def goes_on(self, subject: str, time_ns: int) -> bool:
        """Whether records of it end after ``time_ns``, read or not. One alone does not count: no clock is set by it."""
        if any(subject in part.subjects for part in self._parts if part not in self._opened):
            return True
        found: Counter[str] = Counter()
        for names, name, end_ns in self._opened.values():
            for n in (n for n, channel in enumerate(names) if channel.rpartition("_")[0] == subject):
                found[names[n]] += int(((name == n) & (end_ns > time_ns)).sum())
        return any(count > 1 for count in found.values())

    def _read(self) -> Iterator[Item]:
        for payload in merged((part.begins_ns, self._records(part)) for part in self._parts):
            yield decode(payload, None, self._received_ns)

    def _records(self, part: Part) -> Iterator[Found]:
        """Those that are wanted; the file is opened with the first."""
        self._opened[part] = (), NOTHING, NOTHING
        try:
            index = cached_index(part.path, part.size)
        except (RecordError, FileNotFoundError) as error:
            self.faults.append(str(error))
            return
        self.faults += index.faults
        first_ns, last_ns = max(self._begin_ns, part.begins_ns), part.ends_ns
        exists = (index.end_ns >= first_ns) & (index.end_ns <= last_ns) & (index.start_ns < self._end_ns)
        longest_ns = int((index.end_ns - index.start_ns)[exists].max(initial=0))
        wanted = exists & (index.end_ns >= self._from_ns - longest_ns)
        self.longest_ns = max(self.longest_ns, longest_ns)
        self._opened[part] = index.names, index.name[wanted], index.end_ns[wanted]
        self._pass_over(index, np.flatnonzero(exists & ~wanted))
        for n in np.flatnonzero(wanted).tolist():
            yield int(index.end_ns[n]), index.names[index.name[n]], int(index.start_ns[n]), index.record(n)

    def _pass_over(self, index: Index, rows: NDArray[np.int64]) -> None:
        names, first = np.unique(index.name[rows], return_index=True)
        for name, n in zip(names, first, strict=True):
            subject, _, component = index.names[name].rpartition("_")
            self.earlier[subject].setdefault(component, int(index.start_ns[rows[n]]))


def merged(files: Iterable[tuple[int, Iterator[Found]]]) -> Iterator[bytes]:
    """The records of files that come in the order of their beginning, each with it.

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
            _, _, _, number, payload, records = heapq.heappop(heap)
            yield payload
            push(number, records)
