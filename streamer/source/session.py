"""One visit to one server: list, select, decide where to begin, stream, decode, hand on.

It begins and ends with the connection; whether to come back, when and where is the supervisor's business. No threads
are made here; `Visits.interrupt` may be called from any.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from streamer.source.address import Address, Transport
from streamer.source.listing import Listing, ListingError, counts_for_all
from streamer.source.obspy_transport import ObspyConnection
from streamer.source.progress import Progress
from streamer.source.records import decode, station_of
from streamer.source.resume import Had, Plan, Start, plan
from streamer.source.seedlink_transport import SeedLinkClientConnection
from streamer.source.selection import (
    NOTHING,
    Pattern,
    Selection,
    SelectionError,
    merge,
    select,
    select_unlisted,
    unmatched,
)
from streamer.source.transport import Cause, Connection, Interrupted, Limits, RawPacket, Request, TransportError
from streamer.stages import NS, Cursor, Packet, Refused, Subscribed

_log = logging.getLogger(__name__)

Connect = Callable[[Address, Limits], Connection]
Deliver = Callable[[Packet | Refused | Subscribed], bool]
"""Waits for room; False when nobody wants more."""


def connect(address: Address, limits: Limits) -> Connection:
    if address.transport is Transport.OBSPY:
        return ObspyConnection(address, limits)
    return SeedLinkClientConnection(address, limits)


@dataclass(frozen=True, slots=True)
class Choice:
    """What of a server's stations this process wants."""

    patterns: tuple[Pattern, ...]
    wanted: Callable[[str], bool]
    """NET_STA -> whether it belongs to this shard."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a server says it is and has, and what of it is wanted."""

    shared: bool
    numbers: int
    listing: Listing | None
    selection: Selection


class Visits:
    """The connections of one thread, one after the other; another thread may end the current one."""

    def __init__(self, make: Connect, limits: Limits) -> None:
        self._make = make
        self._limits = limits
        self._lock = threading.Lock()
        self._current: Connection | None = None
        self._closed = False

    @contextmanager
    def to(self, address: Address) -> Iterator[Connection]:
        connection = self._make(address, self._limits)
        with self._lock:
            if self._closed:
                raise Interrupted
            self._current = connection
        try:
            yield connection
        finally:
            with self._lock:
                self._current = None
            connection.close()

    def interrupt(self, *, for_good: bool) -> None:
        with self._lock:
            self._closed = self._closed or for_good
            if self._current is not None:
                self._current.interrupt()


def survey(visits: Visits, address: Address, choice: Choice, before: Selection = NOTHING) -> Survey:
    """A short connection of its own: some servers close after a refused INFO, and streaming knows no way back.

    `before` is what this source asked for earlier in this life; it is asked for again, listed or not.
    """
    with visits.to(address) as connection:
        greeting = connection.open()
        try:
            listing = connection.listing()
        except ListingError as refusal:
            _log.debug("%s: %s", address, refusal)
            selection = _unlisted(address, choice)
            return Survey(counts_for_all(greeting), connection.numbers, None, selection)
        selection = merge(before, _listed(choice, listing))
        if not selection.stations:
            raise TransportError(Cause.EMPTY, f"none of {len(listing.stations)} stations matches the selection")
        for pattern in unmatched(choice.patterns, listing):
            _log.warning("%s: %s matches nothing that the server lists", address, pattern)
        return Survey(counts_for_all(greeting), connection.numbers, listing, selection)


def _listed(choice: Choice, listing: Listing) -> Selection:
    mine = tuple(station for station in listing.stations if choice.wanted(station.name))
    return select(choice.patterns, replace(listing, stations=mine))


def _unlisted(address: Address, choice: Choice) -> Selection:
    mine = [pattern for pattern in choice.patterns if choice.wanted(f"{pattern.network}_{pattern.station}")]
    try:
        selection = select_unlisted(mine, address.server)
    except SelectionError as error:
        raise TransportError(Cause.INFO, str(error)) from None
    if not selection.stations:
        raise TransportError(Cause.EMPTY, "no configured station is wanted here")
    return selection


class Session:
    """The streaming part of a visit."""

    def __init__(
        self, address: Address, found: Survey, progress: Progress, deliver: Deliver, max_wait_s: float
    ) -> None:
        self._server = address.server
        self._found = found
        self._progress = progress
        self._deliver = deliver
        self._max_wait_ns = round(max_wait_s * NS)
        self._had: dict[str, Had] = {}
        """Of the stations that have not yet sent anything new on this connection."""
        self._passed: tuple[Cursor, int | None] | None = None
        self._doubtful: tuple[Cursor, Refused] | None = None
        """A record that cannot be read: the server's own, or bytes of the wire's? The next packet's header tells."""

    def begin(self, connection: Connection) -> None:
        decided = self._plan()
        self._had = dict(decided.had)
        chosen = self._found.selection
        requests = tuple(Request(name, selectors, chosen.channels[name]) for name, selectors in chosen.stations.items())
        connection.open()
        connection.begin(requests, decided.begins)
        self._subscribed(name for name, begin in decided.begins.items() if begin.start is Start.NOW)

    def _subscribed(self, stations: Iterable[str]) -> None:
        """Told before the first packet: a kill, or a lost connection, must not make "from now" out of it once more."""
        listed = self._found.listing.stations if self._found.listing else ()
        newest = {station.name: station.newest_ns for station in listed}
        for name in stations:
            self._progress.subscribed(self._server, name, newest.get(name))
            if not self._deliver(Subscribed(self._server, name, newest.get(name))):
                raise Interrupted

    def _plan(self) -> Plan:
        found = self._found
        known = {name: self._progress.known(self._server, name) for name in found.selection.stations}
        return plan(
            known,
            found.listing,
            shared=found.shared,
            numbers=found.numbers,
            now_ns=time.time_ns(),
            max_wait_ns=self._max_wait_ns,
        )

    def run(self, connection: Connection) -> None:
        """Until the connection ends, which raises TransportError or Interrupted."""
        try:
            for raw in connection.packets():
                self._receive(raw)
        finally:
            if self._found.shared and self._passed is not None:
                beyond = [name for name in self._found.selection.stations if name not in self._had]
                self._progress.passed(beyond, *self._passed)

    def _receive(self, raw: RawPacket) -> None:
        if self._doubtful is not None:
            self._hand_on(*self._doubtful)
            self._doubtful = None
        station = raw.station or station_of(raw.payload)
        cursor = Cursor(self._server, station, raw.sequence) if station else None
        item = decode(raw.payload, cursor, raw.received_ns, raw.size)
        if cursor is not None and isinstance(item, Refused) and not self._progress.doubted(cursor):
            self._doubtful = cursor, item  # if the connection ends here it is asked for once more
            return
        self._hand_on(cursor, item)

    def _hand_on(self, cursor: Cursor | None, item: Packet | Refused) -> None:
        packet = item if isinstance(item, Packet) else None
        again = cursor is not None and self._comes_again(cursor, packet)
        if not again and not self._deliver(item):
            raise Interrupted
        if cursor is None:
            return
        self._passed = cursor, packet.start_ns if packet else None
        if not again:
            self._progress.received(cursor, packet)

    def _comes_again(self, cursor: Cursor, packet: Packet | None) -> bool:
        had = self._had.get(cursor.station)
        if had is None:
            return False
        if had.covers(cursor.sequence, packet.start_ns if packet else None, self._found.numbers):
            return True
        del self._had[cursor.station]
        return False
