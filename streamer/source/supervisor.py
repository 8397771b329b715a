"""One configured source: a thread that keeps a connection up for ever, and one that looks after it.

The receiving thread visits one address after the other, backs off, and never ends before it is told to. The caretaker
fetches the server's list now and then, so that a new station that matches a wildcard is added, and tries whether the
preferred address is back; in both cases it ends the visit, and the next one resumes exactly. What happens is told to
the `on_event` hook and, once each, to the log. Where to go next is `Rotation`'s decision, what to do there `Session`'s.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from streamer.source.address import Address
from streamer.source.progress import Progress
from streamer.source.rotation import MOST_DOUBLINGS, Rotation
from streamer.source.selection import NOTHING, Selection
from streamer.source.session import Choice, Deliver, Session, Survey, Visits, survey
from streamer.source.transport import Cause, Interrupted, TransportError
from streamer.stages import NS, Packet, Refused, Subscribed

_log = logging.getLogger(__name__)
STEADY_S = 10.0
"""A connection that gave data for this long was a good one: the next pause is the shortest again."""
OLD_NS = 300 * NS
"""A first server whose newest data are older by this than what the fall-back gives has lost its feed, though it answers."""
LONGEST_FAILBACK_S = 4 * 3600.0
"""Where a server does not say how old its data are, the time between tries doubles up to this while they bring none."""


class EventKind(StrEnum):
    CONNECTED = "connected"
    LOST = "lost"
    """`cause` is a `Cause`."""
    RESTARTED = "restarted"
    """By ourselves; `cause` is a `Restart`."""


class Restart(StrEnum):
    STATIONS = "stations"
    FAILBACK = "failback"


OnEvent = Callable[[EventKind, str, str], None]
"""(kind, server, cause); called from the source's threads, must not block."""


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """For the web page, /readyz and the metrics."""

    servers: tuple[str, ...]
    connected: str | None
    """The server, while a connection stands."""
    since_ns: int | None
    """When it was connected."""
    stations: tuple[str, ...]
    """Asked for: NET_STA."""
    last_packet_ns: int | None
    """When the newest record came, on this machine's clock."""
    last_error: str | None


@dataclass(frozen=True, slots=True)
class Rules:
    """The numbers and choices of one source, as `Supervisor` needs them."""

    addresses: tuple[Address, ...]
    choice: Choice
    refresh_s: float
    failback_s: float
    max_wait_s: float


@dataclass(slots=True)
class _State:
    """Written by the receiving thread, read by all; each field is replaced as a whole."""

    selection: Selection = NOTHING
    refused: bool = False
    connected: Address | None = None
    since_ns: int | None = None
    last_packet_ns: int | None = None
    data_ns: int | None = None
    """End of the newest packet of the present visit, by its own time."""
    barren: int = 0
    """Visits to the first server in a row that stood and brought no data."""
    last_error: str | None = None


class Supervisor:
    def __init__(
        self,
        rules: Rules,
        *,
        rotation: Rotation,
        progress: Progress,
        deliver: Deliver,
        on_event: OnEvent,
        visits: Visits,
        probes: Visits,
        pause: Callable[[float], bool] | None = None,
    ) -> None:
        """`visits` and `probes` make the connections of the two threads; `pause` waits, True when told to stop."""
        self._rules = rules
        self._rotation = rotation
        self._progress = progress
        self._deliver = deliver
        self._on_event = on_event
        self._visits = visits
        self._probes = probes
        self._stop = threading.Event()
        self._pause = pause or self._stop.wait
        self._state = _State()
        self._restart: Restart | None = None
        self._up_s: float | None = None
        """When the present visit began to stream, and (`_data_s`) when data came last: written by the receiving thread alone."""
        self._data_s = 0.0
        name = rules.addresses[0].server
        self._threads = (
            threading.Thread(target=self._receive, name=f"receive {name}", daemon=True),
            threading.Thread(target=self._care, name=f"care {name}", daemon=True),
        )

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Tells the threads to end; does not wait."""
        self._stop.set()
        self._visits.interrupt(for_good=True)
        self._probes.interrupt(for_good=True)

    def join(self, deadline_s: float) -> bool:
        """Whether both threads ended before this moment of the monotonic clock."""
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline_s - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def status(self) -> SourceStatus:
        state, connected = self._state, self._state.connected
        return SourceStatus(
            servers=tuple(address.server for address in self._rules.addresses),
            connected=connected.server if connected else None,
            since_ns=state.since_ns if connected else None,
            stations=tuple(state.selection.stations),
            last_packet_ns=state.last_packet_ns,
            last_error=state.last_error,
        )

    def expected(self) -> Mapping[str, frozenset[str]]:
        return self._state.selection.expected

    # -- the receiving thread

    def _receive(self) -> None:
        while not self._stop.is_set():
            address = self._rules.addresses[self._rotation.index]
            self._up_s = None
            try:
                self._visit(address)
            except Interrupted:
                self._restarted(address)
            except TransportError as error:
                self._lost(address, error)
            except Exception as error:
                _log.exception("%s: fault in the source", address)
                self._lost(address, TransportError(Cause.INTERNAL, repr(error)))

    def _visit(self, address: Address) -> None:
        found = survey(self._visits, address, self._rules.choice, self._state.selection)
        self._state.selection, self._state.refused = found.selection, found.listing is None
        session = Session(address, found, self._progress, self._deliver_and_note, self._rules.max_wait_s)
        with self._visits.to(address) as connection:
            session.begin(connection)
            self._connected(address, found)
            try:
                session.run(connection)
            finally:
                self._state.connected = None

    def _deliver_and_note(self, item: Packet | Refused | Subscribed) -> bool:
        if not isinstance(item, Subscribed):
            self._state.last_packet_ns = time.time_ns()
            self._data_s = time.monotonic()
        if isinstance(item, Packet):
            self._state.data_ns = item.end_ns
        return self._deliver(item)

    def _connected(self, address: Address, found: Survey) -> None:
        self._up_s = time.monotonic()
        self._state.data_ns = None
        self._state.since_ns = time.time_ns()
        self._state.connected = address
        unlisted = "" if found.listing else ", as configured: the server refuses INFO STREAMS"
        _log.info("%s: connected, %d stations%s", address, len(found.selection.stations), unlisted)
        self._on_event(EventKind.CONNECTED, address.server, "")

    def _restarted(self, address: Address) -> None:
        reason, self._restart = self._restart, None
        if self._stop.is_set() or reason is None:
            return
        if reason is Restart.FAILBACK:
            self._rotation.first()
        self._on_event(EventKind.RESTARTED, address.server, reason)

    def _lost(self, address: Address, error: TransportError) -> None:
        steady = self._up_s is not None and self._data_s - self._up_s > STEADY_S
        delay_s = self._rotation.lost(error.cause, steady=steady)
        if self._up_s is not None and address == self._rules.addresses[0]:
            self._state.barren = 0 if self._data_s > self._up_s else self._state.barren + 1
        self._state.last_error = str(error)
        following = self._rules.addresses[self._rotation.index]
        _log.warning("%s: %s; next %s in %.1f s", address, error, following, delay_s)
        self._on_event(EventKind.LOST, address.server, error.cause)
        if delay_s > 0:
            self._pause(delay_s)

    # -- the caretaker

    def _care(self) -> None:
        now_s = time.monotonic()
        refresh_at_s, failback_at_s = now_s + self._rules.refresh_s, now_s + self._rules.failback_s
        while not self._stop.wait(max(0.0, min(refresh_at_s, failback_at_s) - time.monotonic())):
            now_s = time.monotonic()
            if now_s >= refresh_at_s:
                self._attempt(self._refresh)
                refresh_at_s = time.monotonic() + self._rules.refresh_s
            if now_s >= failback_at_s:
                self._attempt(self._failback)
                failback_at_s = time.monotonic() + self._rules.failback_s

    def _attempt(self, errand: Callable[[], None]) -> None:
        try:
            errand()
        except Interrupted:
            pass
        except TransportError as error:
            _log.info("caretaker: %s", error)
        except Exception:
            _log.exception("fault in the caretaker")

    def _refresh(self) -> None:
        """A station or channel that the list did not have is a reason to connect anew; one that has gone is not."""
        address = self._state.connected
        if address is None or self._state.refused:
            return
        found = survey(self._probes, address, self._rules.choice)
        new = _gained(self._state.selection, found.selection)
        if new:
            _log.info("%s: new on the server: %s", address, ", ".join(new))
            self._end_visit(Restart.STATIONS)

    def _failback(self) -> None:
        address = self._state.connected
        first = self._rules.addresses[0]
        if address is None or address == first or self._is_early():
            return
        found = survey(self._probes, first, self._rules.choice)
        if _is_old(found, self._state.data_ns):
            _log.info("%s: answers, and has nothing new: staying with %s", first, address)
            return
        _log.info("%s: back again, leaving %s", first, address)
        self._end_visit(Restart.FAILBACK)

    def _is_early(self) -> bool:
        """Whether the first server brought nothing last time, and the fall-back is to be left in peace for longer."""
        up_s, barren = self._up_s, self._state.barren
        longest_s = max(self._rules.failback_s, LONGEST_FAILBACK_S)
        wait_s = min(longest_s, self._rules.failback_s * 2.0 ** min(barren, MOST_DOUBLINGS))
        return barren > 0 and (up_s is None or time.monotonic() - up_s < wait_s)

    def _end_visit(self, reason: Restart) -> None:
        self._restart = reason
        self._visits.interrupt(for_good=False)


def _is_old(found: Survey, data_ns: int | None) -> bool:
    """Whether none of the stations that are wanted has data as new as those that come."""
    listed = found.listing.stations if found.listing else ()
    times = [one.newest_ns for one in listed if one.name in found.selection.stations and one.newest_ns is not None]
    return bool(times) and data_ns is not None and max(times) < data_ns - OLD_NS


def _gained(old: Selection, new: Selection) -> list[str]:
    return [
        station
        for station, channels in new.channels.items()
        if station not in old.channels or set(channels) - set(old.channels[station])
    ]
