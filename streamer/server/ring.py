"""The packets a server still holds: bounded, in order of release, found by number or by time.

Two ways of numbering are in the field, and a client must live with both. ``Numbering.STATION`` counts each station for
itself and lets each station of a request begin at its own number, as SeisComP does. ``Numbering.SERVER`` counts all
packets of the server together and begins a whole connection at the *newest* number that any of its stations asked for,
as ringserver does: there a station that is behind the others loses what lies between.

It copies no bytes, knows no clients and no clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from .records import Record
from .selection import Request, StationRequest

SEQUENCES = 1 << 24
"""Six hexadecimal digits; after FFFFFF comes 000000."""
NS = 1_000_000_000


class Numbering(StrEnum):
    STATION = "station"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Held:
    """A packet in the ring."""

    index: int
    """Counts all packets from 0 and never wraps: a place in the stream, for this server's own use."""
    sequence: int
    record: Record


@dataclass(slots=True)
class Span:
    """What the ring holds of one stream or one station."""

    first: Held
    last: Held


class Ring:
    """The newest ``capacity`` packets."""

    def __init__(self, capacity: int, begin: int = 1, numbering: Numbering = Numbering.STATION) -> None:
        if capacity < 1:
            raise ValueError(f"a ring of {capacity} packets holds nothing")
        self.capacity, self.begin, self.numbering = capacity, begin % SEQUENCES, numbering
        self._held: OrderedDict[int, Held] = OrderedDict()
        self._places: dict[tuple[str, int], int] = {}
        self._next_sequence: dict[str, int] = {}
        self.next_index = 0

    @property
    def first_index(self) -> int:
        """The place of the oldest packet held; ``next_index`` when none is."""
        return next(iter(self._held), self.next_index)

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(self._held.values())

    def get(self, index: int) -> Held | None:
        return self._held.get(index)

    def append(self, record: Record) -> Held:
        """Number a record and hold it; the oldest leaves when the ring is full."""
        key = self._key(record.station_id)
        held = Held(self.next_index, self.next_sequence(record.station_id), record)
        self._next_sequence[key] = (held.sequence + 1) % SEQUENCES
        self._held[held.index] = held
        self._places[key, held.sequence] = held.index
        self.next_index += 1
        if len(self._held) > self.capacity:
            self._drop_oldest()
        return held

    def renumber(self, begin: int) -> None:
        """Lose everything and count from ``begin`` again, as a server does whose ring was deleted."""
        self.begin = begin % SEQUENCES
        self._held.clear()
        self._places.clear()
        self._next_sequence.clear()

    def next_sequence(self, station_id: str) -> int:
        """The number of the next packet of a station."""
        return self._next_sequence.get(self._key(station_id), self.begin)

    def positions(self, request: Request) -> list[int]:
        """For each station of the request the index of the first packet to send."""
        if self.numbering is Numbering.SERVER:
            return [self._server_position(request)] * len(request.stations)
        return self._station_positions(request.stations)

    def _station_positions(self, stations: tuple[StationRequest, ...]) -> list[int]:
        """Each by number, else by time, else the next new packet."""
        found = [self._find(station) for station in stations]
        timed = [i for i, station in enumerate(stations) if found[i] is None and station.begin_ns is not None]
        for i, index in self._after_each({i: stations[i] for i in timed}).items():
            found[i] = index
        return [self.next_index if index is None else index for index in found]

    def _after_each(self, stations: dict[int, StationRequest]) -> dict[int, int]:
        """For each the first packet held that ends at or after its time: one look through the ring for all of them."""
        found: dict[int, int] = {}
        wanting: dict[str, list[tuple[int, int]]] = {}
        for held in self if stations else ():
            name = held.record.stream_id
            if name not in wanting:
                wanting[name] = [(i, s.begin_ns or 0) for i, s in stations.items() if s.accepts(name)]
            for i, begin_ns in wanting[name]:
                if i not in found and held.record.end_ns >= begin_ns:
                    found[i] = held.index
        return found

    def _server_position(self, request: Request) -> int:
        found = [index for index in map(self._find, request.stations) if index is not None]
        if found:
            return max(found)
        begins = [station.begin_ns for station in request.stations if station.begin_ns is not None]
        index = self._after(min(begins), lambda s: any(r.accepts(s) for r in request.stations)) if begins else None
        return self.next_index if index is None else index

    def _find(self, station: StationRequest) -> int | None:
        """Where to begin for a number; None if there is none, it is not held, or the packet before it does not fit."""
        if station.sequence is None:
            return None
        places = [p for key in self._keys(station) if (p := self._place(key, station.sequence)) is not None]
        if not places or not self._trusted(station):
            return None
        return min(places)

    def _place(self, key: str, sequence: int) -> int | None:
        if sequence == self._next_sequence.get(key):
            return self.next_index
        return self._places.get((key, sequence))

    def _trusted(self, station: StationRequest) -> bool:
        """Whether the packet before starts in the second the client says; one that left the ring is not asked."""
        if station.last_start_ns is None:
            return True
        before = (station.sequence or 0) - 1
        places = [self._places.get((key, before % SEQUENCES)) for key in self._keys(station)]
        held = [self._held[place] for place in places if place is not None]
        wanted_s = station.last_start_ns // NS
        return not held or any(packet.record.start_ns // NS == wanted_s for packet in held)

    def _after(self, begin_ns: int, accepts: Callable[[str], bool]) -> int | None:
        """The first packet held that ends at or after a time."""
        accepts = cache(accepts)
        return next((h.index for h in self if h.record.end_ns >= begin_ns and accepts(h.record.stream_id)), None)

    def _keys(self, station: StationRequest) -> list[str]:
        """Whose numbers a request speaks of: with a wildcard, those of every station that matches."""
        if self.numbering is Numbering.SERVER:
            return [""]
        if station.literal:
            return [station.station] if station.station in self._next_sequence else []
        plain = StationRequest(station.station)
        return [key for key in self._next_sequence if plain.accepts(f"{key}_")]

    def _key(self, station_id: str) -> str:
        return "" if self.numbering is Numbering.SERVER else station_id

    def _drop_oldest(self) -> None:
        _, held = self._held.popitem(last=False)
        place = self._key(held.record.station_id), held.sequence
        if self._places.get(place) == held.index:  # after 2^24 packets the number may be a younger one's
            del self._places[place]


def spans(ring: Ring, name: Callable[[Record], str]) -> dict[str, Span]:
    """First and last packet held under each name, sorted by name."""
    found: dict[str, Span] = {}
    for held in ring:
        span = found.setdefault(name(held.record), Span(held, held))
        span.last = held
    return dict(sorted(found.items()))
