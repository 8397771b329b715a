"""From packets to alerts, in the order of the data. `Pipeline.run` is the function to read first.

One thread owns all of it, so that what was decided together is committed together; receiving and publishing have threads of their own.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import median
from typing import Protocol

from quake.alerts import Characterisation, Status
from quake.times import format_ns
from streamer.acknowledge import Acknowledgement
from streamer.alerting import Alerting
from streamer.association.notes import Notes
from streamer.characteriser import Characteriser
from streamer.coincidence import Coincidence, Event
from streamer.hooks import Hooks
from streamer.outbox import Outbox, Produced, Progress
from streamer.overload import Overload
from streamer.seldom import Seldom
from streamer.stages import NS, Cursor, Detection, Packet, Refused, Score, Subscribed, Unscored, Unused
from streamer.station import Station
from streamer.storm import Limit
from streamer.trigger import Trigger, TriggerState
from streamer.worker import Batcher, Cut, Decided, Worker

EXPECTED = (Unused.OVERLAP, Unused.PHASE)
"""Reasons that a server's repeats or a digitiser's clock give every day: counted, not written to the log."""
SENDING_NS = 60 * NS
"""A station that has sent nothing for this long says nothing about how far this machine is behind."""
TICK_S = 0.2
"""Longest wait for packets: how soon a stop, an idle network and the metrics are noticed."""
PACKETS = 256
"""Packets taken at once: some milliseconds of work between two looks at the batch."""
COMMIT_NS = NS
"""States and resume points are committed this often where no alert makes it sooner. A restart decides again what came since."""
NOTE_NS = NS // 4
"""The same where an associator is told with it: its events wait for what every shard has decided."""
MANY_NOTES, SELDOM_NS = 1_000, 10 * NS
"""With more notes that wait, as of a Redis that is away, how far the stations are is told this seldom: the disk is to last for weeks."""
STATE_NS = 2 * NS
"""How often the hooks hear how far each station is."""
IDLE_NS = 10 * NS
"""With no decision for this long beyond the hold, waiting detections are released: the stations that lag may be gone."""
DRAIN_NS = 10 * NS
"""Longest time that what was received is still decided after a stop; the server is asked again for the rest."""
RETRY_S = 1.0
"""Pause after the outbox could not be written."""

log = logging.getLogger(__name__)


class Source(Protocol):
    """Where packets come from: `streamer.source.SeedLinkSource`, or files."""

    def take(self, limit: int, timeout_s: float) -> list[Packet | Refused | Subscribed]:
        """Up to ``limit`` packets, at least one unless the time runs out."""

    def expected(self) -> Mapping[str, frozenset[str]]:
        """Subject -> SEED orientation codes that are known to come."""

    @property
    def queued(self) -> int:
        """Packets that wait to be taken."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What `Pipeline` is composed of; made from the configuration by `streamer.daemon`."""

    source: Source
    station: Callable[[str, frozenset[str], int | None], Station]
    """Subject, expected components, first window -> a station."""
    worker: Worker
    batcher: Batcher
    trigger: Callable[[str, TriggerState | None], Trigger]
    characteriser: Characteriser | None
    """None: alerts say nothing of size and direction."""
    coincidence: Coincidence | None
    notes: Notes | None
    """For the associator, in place of a coincidence of its own."""
    alerting: Alerting
    acknowledgement: Acknowledgement
    overload: Overload | None
    """None: never drop; the server waits."""
    limit: Limit
    outbox: Outbox
    wake_publisher: Callable[[], None]
    hooks: Hooks
    hold_ns: int
    """Of the coincidence."""
    queue_packets: int
    """How many the source holds before its servers have to wait."""


class Pipeline:
    def __init__(
        self,
        parts: Parts,
        triggers: Mapping[str, TriggerState],
        clock_ns: Callable[[], int] = time.time_ns,
        tick_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """``clock_ns``: this machine's clock, for stamps; ``tick_ns``: one that nobody sets, for what is due."""
        self._p, self.clock_ns, self.tick_ns = parts, clock_ns, tick_ns
        self._seldom = Seldom(log)
        self._stations: dict[str, Station] = {}
        self._triggers = {subject: parts.trigger(subject, state) for subject, state in triggers.items()}
        self._decided_ns = {subject: trigger.decided_ns for subject, trigger in self._triggers.items()}
        """Of each trigger, kept here: it is asked for with every batch."""
        self._dirty: set[str] = set()
        self._alerts: list[Produced] = []
        self._commit_due_ns = self._state_due_ns = self._note_due_ns = 0
        self._decided_at_ns: int | None = None
        """When the newest decision was made; None before the first of this run."""
        self._stopping: Callable[[], bool] = lambda: False

    @property
    def shapes(self) -> tuple[int, ...]:
        """Batch sizes that the model will see."""
        return self._p.worker.shapes

    def run(self, stopping: Callable[[], bool]) -> None:
        """Until ``stopping``; then decide what has been received, for `DRAIN_NS` at most, and commit."""
        self._stopping, end_ns = stopping, None
        while True:
            last = end_ns is not None
            packets = self._receive(0.0 if last else TICK_S)  # SeedLink -> packets
            self._p.batcher.add(self._cut(packets), self.tick_ns())  # ring -> windows on the grid
            while batch := self._batch(flush=last):
                self._decide(self._p.worker.score(batch))  # scores -> detections -> events -> alerts
                self._commit(soon=False)  # outbox, before anything leaves
                self._p.hooks.tick()  # a long backlog is no hanging
            self._tick()
            self._commit(soon=last)
            if end_ns is not None and (not packets or self.tick_ns() > end_ns):
                return
            if end_ns is None and stopping():
                end_ns = self.tick_ns() + DRAIN_NS

    def take(self, items: Iterable[Decided]) -> None:
        """What was scored elsewhere, in the order of the data."""
        self._decide(items)
        self._commit(soon=False)
        self._p.hooks.tick()

    def settle(self) -> None:
        """Commit what was decided."""
        self._commit(soon=True)

    def finish(self) -> None:
        """No more data will ever come: what waits for other stations is told, and what is over closed."""
        self._associate(hold=False)
        if self._p.coincidence is not None:
            self._tell_events(self._p.coincidence.finish())
        self._commit(soon=True)

    # -- packets ---------------------------------------------------------------------------------------------------------------

    def _receive(self, otherwise_s: float) -> list[Packet | Refused | Subscribed]:
        return self._p.source.take(PACKETS, self._p.batcher.wait_s(self.tick_ns(), otherwise_s))

    def _cut(self, items: Iterable[Packet | Refused | Subscribed]) -> Iterable[Cut]:
        start_s, touched = time.perf_counter(), {}
        for item in items:
            if isinstance(item, Subscribed):
                self._p.acknowledgement.subscribed(item.server, item.station, item.newest_ns)
                self._commit_due_ns = 0
            elif isinstance(item, Refused):
                self._refuse(item)
            else:
                station = self._insert(item)
                touched[station.subject] = station
        middle_s = time.perf_counter()
        # In the order of the data, not of the stations: after an outage one look brings minutes of each.
        windows = sorted((w for station in touched.values() for w in station.cut()), key=lambda w: (w.k, w.subject))
        if touched:
            self._p.hooks.stage("ring", middle_s - start_s)
            self._p.hooks.stage("cutter", time.perf_counter() - middle_s)
        return windows

    def _refuse(self, item: Refused) -> None:
        station = item.cursor.station if item.cursor else ""
        self._seldom.warning((station, item.reason), self.tick_ns() / NS, f"record refused: {item.detail}")
        self._p.hooks.refused(item)
        if item.cursor is not None:
            self._acknowledge(item.cursor, None)

    def _insert(self, packet: Packet) -> Station:
        self._p.hooks.packet(packet)
        station = self._station(packet.subject)
        refused = station.insert(packet, lambda reason, count: self._unused(packet, reason, count))
        if packet.cursor is not None:
            used = all(packet is not other for other in refused)
            self._acknowledge(packet.cursor, packet.subject if used else None, packet.start_ns, packet.end_ns)
        return station

    def _unused(self, packet: Packet, reason: Unused, count: int) -> None:
        self._p.hooks.samples_unused(packet.channel, reason, count)
        if reason not in EXPECTED:
            text = f"{packet.channel}: {count} samples from {format_ns(packet.start_ns)} not used: {reason}"
            self._seldom.warning((packet.channel, reason), self.tick_ns() / NS, text)

    def _acknowledge(self, cursor: Cursor, subject: str | None, start_ns: int = 0, end_ns: int = 0) -> None:
        if self._p.acknowledgement.received(cursor, subject, start_ns, end_ns):
            self._commit_due_ns = 0  # a station's first packet: from here on it is never "from now" again

    def _station(self, subject: str) -> Station:
        station = self._stations.get(subject)
        if station is None:
            decided = self._trigger(subject).state.last_k
            expected = self._p.source.expected().get(subject, frozenset())
            station = self._p.station(subject, expected, None if decided is None else decided + 1)
            self._stations[subject] = station
        return station

    # -- windows ---------------------------------------------------------------------------------------------------------------

    def _batch(self, *, flush: bool) -> list[Cut]:
        now_ns = self.tick_ns()
        if self._overloaded():
            self._decide(self._p.batcher.drop())
        return self._p.batcher.take(now_ns + IDLE_NS if flush else now_ns)

    def _overloaded(self) -> bool:
        overload = self._p.overload
        if overload is None:
            return False
        before, fullness = overload.dropping, self._p.source.queued / self._p.queue_packets
        empty = fullness < 0.1
        # With an empty queue nobody asks how far behind it is: a look at every station, for each batch.
        lag_ns = 0 if empty else self._median_lag_ns()
        if lag_ns is None:
            return False
        dropping = overload.update(self.clock_ns(), lag_ns, fullness > 0.9, empty)
        if dropping != before:
            self._p.hooks.overload(dropping)
            log.warning(
                "%s: %.0f s behind",
                "cannot keep up, dropping the oldest windows" if dropping else "keeping up",
                lag_ns / NS,
            )
        return dropping

    def _median_lag_ns(self) -> int | None:
        """Of the stations that send."""
        lags = [lag_ns for lag_ns in map(self._lag_ns, self._stations.values()) if lag_ns is not None]
        return int(median(lags)) if lags else None

    def _lag_ns(self, station: Station) -> int | None:
        """How far a station's decisions lie behind this machine's clock; None for one that sends nothing, or is new."""
        decided_ns, now_ns = self._trigger(station.subject).decided_ns, self.clock_ns()
        return now_ns - decided_ns if decided_ns and now_ns - station.received_ns < SENDING_NS else None

    def _trigger(self, subject: str) -> Trigger:
        if subject not in self._triggers:
            self._triggers[subject] = self._p.trigger(subject, None)
            self._decided_ns[subject] = 0
        return self._triggers[subject]

    # -- decisions -------------------------------------------------------------------------------------------------------------

    def _decide(self, items: Iterable[Decided]) -> None:
        start_s, any_item = time.perf_counter(), False
        for item in items:
            any_item = True
            self._decide_one(item)
        if any_item:
            self._decided_at_ns = self.tick_ns()
            self._associate(hold=True)
            self._p.hooks.stage("decide", time.perf_counter() - start_s)

    def _decide_one(self, item: Decided) -> None:
        subject = item.subject
        trigger = self._trigger(subject)
        if (
            isinstance(item, Unscored) and trigger.state.last_k is not None
        ):  # what lies before the first data was not missed
            self._p.hooks.windows_unused(item)
            self._p.alerting.unused[item.reason] += item.last - item.first + 1
        detection = trigger.decide(item)
        self._decided_ns[subject] = trigger.decided_ns
        if isinstance(item, Score) and self._p.characteriser is not None and trigger.asks(item.window.k):
            detection = self._characterise(subject, self._p.characteriser.ask(item.window), trigger, detection)
        self._dirty.add(subject)
        if detection is not None:
            self._detected(detection)

    def _characterise(
        self, subject: str, found: Characterisation, trigger: Trigger, decided: Detection | None
    ) -> Detection | None:
        """``decided``: the opening, where it was just decided, which then tells of it too."""
        opened = trigger.characterise(found)
        if opened.characterisation is not None:
            if self._p.coincidence is not None:
                self._p.coincidence.characterise(opened.id, trigger.decided_ns, opened.characterisation)
            if self._p.notes is not None:
                self._p.notes.characterise(opened.id, subject, trigger.decided_ns, opened.characterisation)
        return decided and replace(decided, characterisation=opened.characterisation)

    def _detected(self, detection: Detection) -> None:
        self._p.hooks.detected(detection)
        if self._is_told(detection):
            self._alerts.append(Produced(self._p.alerting.detection(detection, self.clock_ns()), detection.k))
        if self._p.coincidence is not None:
            self._p.coincidence.add(detection)
        if self._p.notes is not None:
            self._p.notes.add(detection)

    def _is_told(self, detection: Detection) -> bool:
        """An opening within the limit, and the closing of one that was."""
        if detection.off_ns is not None or self._p.limit.allows(detection):
            return not detection.held
        self._trigger(detection.subject).hold()
        self._p.hooks.held(detection)
        text = "more stations open within a minute than trigger.most_a_minute: some are told in events alone"
        self._seldom.warning("storm", self.tick_ns() / NS, text)
        return False

    def _associate(self, *, hold: bool) -> None:
        """Let the coincidence's data time run as far as the stations have decided."""
        if self._p.coincidence is None:
            return
        decided_ns = self._reached_ns()
        until_ns = self._p.coincidence.watermark_ns(decided_ns) if hold else max(decided_ns.values(), default=0)
        self._tell_events(self._p.coincidence.advance(until_ns))

    def _tell_events(self, events: Iterable[Event]) -> None:
        self._alerts += (Produced(self._p.alerting.event(event, self.clock_ns())) for event in events)

    def _reached_ns(self) -> Mapping[str, int]:
        """How far each station is, for coincidence."""
        begun_ns = {subject: self._begun_ns(subject) for subject, ns in self._decided_ns.items() if not ns}
        return {**self._decided_ns, **begun_ns} if begun_ns else self._decided_ns

    def _begun_ns(self, subject: str) -> int:
        """A station that has data and no window yet is waited for as well."""
        station = self._stations.get(subject)
        return (
            self._p.alerting.grid.start_ns(station.next_k) if station is not None and station.next_k is not None else 0
        )

    # -- acknowledgement -------------------------------------------------------------------------------------------------------

    def _commit(self, *, soon: bool) -> None:
        now_ns = self.tick_ns()
        if not (self._alerts or soon or now_ns >= self._commit_due_ns):
            return
        self._commit_due_ns = now_ns + (COMMIT_NS if self._p.notes is None else NOTE_NS)
        start_s = time.perf_counter()
        progress = Progress(
            alerts=self._alerts,
            triggers={subject: self._triggers[subject].state for subject in self._dirty},
            coincidence=self._p.coincidence.state
            if self._p.coincidence is not None and (self._dirty or self._alerts)
            else None,
            resume=dict(self._p.acknowledgement.points(self._undecided_from)),
            note=self._note(now_ns),
        )
        alerts = [produced.alert for produced in self._alerts]
        if not (progress.alerts or progress.triggers or progress.resume or progress.note):
            return
        self._p.hooks.committing(alerts)
        self._write(progress)
        self._alerts, self._dirty = [], set()
        self._p.hooks.committed(alerts)
        for alert in alerts:
            if alert.status is not Status.UPDATE:
                log.info("alert %s", alert.summary())
        self._p.hooks.stage("commit", time.perf_counter() - start_s)
        if alerts or progress.note:
            self._p.wake_publisher()

    def _note(self, now_ns: int) -> str | None:
        notes = self._p.notes
        if notes is None or not (notes.is_urgent or now_ns >= self._note_due_ns):
            return None
        with suppress(sqlite3.Error):  # the commit that follows says what is wrong
            self._note_due_ns = now_ns + (SELDOM_NS if self._p.outbox.notes_waiting() > MANY_NOTES else 0)
        return notes.take(self._reached_ns())

    def _write(self, progress: Progress) -> None:
        """Nothing goes on until it is written: packets wait at the server, alerts here."""
        while True:
            try:
                self._p.outbox.commit(progress)
                return
            except sqlite3.Error as error:
                self._p.hooks.commit_failed(str(error))
                self._p.hooks.tick()
                if self._stopping():
                    raise
                text = f"outbox {self._p.outbox.path} cannot be written: {error}; alerts wait, nothing is read"
                self._seldom.warning("outbox", self.tick_ns() / NS, text)
                time.sleep(RETRY_S)

    def _undecided_from(self, subject: str) -> int:
        """Time of the oldest sample that a window still to be decided needs."""
        trigger, station = self._triggers.get(subject), self._stations.get(subject)
        if trigger is None or station is None or trigger.state.last_k is None:
            return 0
        return self._p.alerting.grid.start_ns(trigger.state.last_k + 1) - station.reach_ns

    # -- now and then ----------------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._p.hooks.tick()
        now_ns = self.tick_ns()
        if self._decided_at_ns is not None and now_ns - self._decided_at_ns > IDLE_NS + self._p.hold_ns:
            self._decided_at_ns = None
            self._associate(hold=False)
        if now_ns >= self._state_due_ns:
            self._state_due_ns = now_ns + STATE_NS
            self._tell()

    def _tell(self) -> None:
        behind_ns = 0
        for subject, station in self._stations.items():
            decided_ns = self._trigger(subject).decided_ns
            behind_ns = max(behind_ns, station.newest_ns - (decided_ns or station.newest_ns))
            self._p.hooks.state(subject, station.newest_ns, decided_ns, station.fill)
        self._p.hooks.behind(behind_ns / NS)
        self._p.hooks.queue(self._p.source.queued, self._p.batcher.windows, self._p.acknowledgement.waiting)
        with suppress(sqlite3.Error):  # a metric is no reason to end
            self._p.hooks.backlog(*self._p.outbox.backlog())
