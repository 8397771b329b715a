"""One associator: stands by, takes the lease, goes on from the checkpoint, and publishes what the notes come to.

One thread; `step` is one round. Whatever goes wrong ends in standing by, and every way to begin is the same: the lease, then the
checkpoint, then the notes after it. Events that were published before the other one died come out again, and the script drops
them.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import redis
from pydantic import ValidationError

from quake.alerts import Alert, Mode
from streamer.alerting import aged, event_alert
from streamer.association.association import Association
from streamer.association.desk import START, Checkpoint, Desk, Entry, FencedError
from streamer.association.metrics import AssociatorMetrics
from streamer.association.notes import Note
from streamer.coincidence import Event, Rules
from streamer.pipeline import IDLE_NS
from streamer.stages import NS

COUNT = 500
"""Notes read at once."""
WAIT_MS = 200
"""Longest wait for them: how soon a stop is noticed, and the lease kept."""
STAND_BY_S = 0.25
"""Between two looks at whether the lease is free."""
CHECKPOINT_S = 5.0
"""A take-over takes the notes of so long again."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    mode: Mode
    rules: Rules
    places: Mapping[str, tuple[float, float]]
    lease_s: float
    retention_ns: int
    """How long alerts stay on the stream."""
    again_ns: int
    """Of events published by this one, how much is offered again to a Redis that lost its data."""
    max_age_ns: int
    """An alert older than this when it leaves is marked stale."""


class Associator:
    def __init__(
        self,
        settings: Settings,
        desk: Desk,
        metrics: AssociatorMetrics,
        clock_ns: Callable[[], int] = time.time_ns,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._settings, self._desk, self._metrics = settings, desk, metrics
        self._clock_ns, self._pause = clock_ns, pause
        self._association: Association | None = None
        """None where another one has gone on since, or nobody knows."""
        self._entry, self._saved = START, START
        """Of the stream of notes: what was applied last, and what the checkpoint goes up to."""
        self._published: deque[Alert] = deque()
        self._kept_s = self._saved_s = 0.0
        self._told_s: float | None = None
        """When the newest note came; None once what waited was released. On the monotonic clock, all three."""

    @property
    def holds(self) -> bool:
        return bool(self._desk.token)

    def step(self) -> None:
        """One round. Raises `redis.RedisError` and `EpochError`; `fail` is then what to do."""
        try:
            if not self.holds and not self._take_over():
                self._pause(STAND_BY_S)
                return
            self._keep()
            self._take(self._desk.read(self._entry, COUNT, WAIT_MS))
            self._release()
            if time.monotonic() - self._saved_s >= CHECKPOINT_S:
                self._save()
        except FencedError:
            log.warning("the lease is no longer this one's")
            self._metrics.fenced()
            self.fail()

    def fail(self) -> None:
        """Redis is not to be relied on: what is known is kept, in case that Redis comes back without it."""
        self._desk.token = ""
        self._metrics.holds(False)

    def stop(self) -> None:
        """Leave everything to whoever comes next, at once."""
        if self.holds:
            with suppress(FencedError):
                self._save()
                self._desk.leave()
            self.fail()

    def give_up(self) -> None:
        """A fault of this one: another may do better, from the checkpoint."""
        if self.holds:
            with suppress(FencedError, redis.RedisError):
                self._desk.leave()
        self._stand_by()

    def _stand_by(self) -> None:
        self.fail()
        self._association = None
        self._published.clear()

    # -- the lease -------------------------------------------------------------------------------------------------------------

    def _take_over(self) -> bool:
        before = self._desk.here
        if not self._desk.take():
            self._stand_by()  # who holds it goes on from here
            return False
        self._kept_s = self._saved_s = self._told_s = time.monotonic()
        try:
            checkpoint = self._desk.load()
        except ValueError as error:
            log.error("standing by: the checkpoint cannot be read, another release may have written it: %s", error)
            self._desk.leave()
            self._stand_by()
            return False
        self._begin(checkpoint)
        self._metrics.holds(True)
        log.info("associating, token %s, after note %s", self._desk.token.partition(" ")[0], self._entry)
        if checkpoint is None or before != self._desk.here:
            self._offer_again()
        return True

    def _begin(self, checkpoint: Checkpoint | None) -> None:
        """From the checkpoint; from what is known where Redis has lost it; from nothing where nobody was there before."""
        if checkpoint is not None:
            self._association = Association(self._settings.rules, checkpoint.state)
            self._entry = checkpoint.entry
        else:
            self._association = self._association or Association(self._settings.rules)
            self._entry = START
        self._saved = self._entry

    def _offer_again(self) -> None:
        """Those of this one's own time: Redis may have lost them, or never have had the last of them."""
        if self._published:
            log.info("offering %d event revision(s) again", len(self._published))
        for alert in self._published:
            self._send(alert)

    def _keep(self) -> None:
        if time.monotonic() - self._kept_s >= self._settings.lease_s / 3:
            self._desk.keep()
            self._kept_s = time.monotonic()

    # -- notes -----------------------------------------------------------------------------------------------------------------

    def _take(self, entries: Iterable[Entry]) -> None:
        entry = None
        for entry in entries:
            self._apply(entry)
            self._entry = entry.id
            self._keep()
        behind_ns = 0 if entry is None else self._clock_ns() - entry.time_ms * 1_000_000
        self._metrics.round(self._required.reached_ns, behind_ns)

    @property
    def _required(self) -> Association:
        assert self._association is not None, "who holds the lease has begun"
        return self._association

    def _apply(self, entry: Entry) -> None:
        association = self._required
        if entry.note is None:
            self._tell(association.release())
            return
        try:
            note = Note.model_validate_json(entry.note)
        except ValidationError as error:  # one such must not hold up all that follow
            self._metrics.unreadable()
            log.error("note %s is passed over, it cannot be read: %s", entry.id, error)
            return
        self._told_s = time.monotonic()
        self._metrics.note()
        self._tell(association.apply(note))

    def _release(self) -> None:
        """If no shard has told anything for long, what waits for other stations is told: by a note of its own, so that
        whoever takes over does the same at the same place."""
        idle_s = (IDLE_NS + self._settings.rules.hold_ns) / NS
        if self._told_s is not None and time.monotonic() - self._told_s > idle_s and self._required.is_waiting:
            self._told_s = None
            self._desk.release()

    def _save(self) -> None:
        """Only here, between two rounds: all events up to the entry are published."""
        self._saved_s = time.monotonic()
        if self._entry != self._saved:
            self._desk.save(Checkpoint(entry=self._entry, state=self._required.state))
            self._saved = self._entry

    # -- events ----------------------------------------------------------------------------------------------------------------

    def _tell(self, events: Iterable[Event]) -> None:
        """All are kept before the first leaves: the association has told of them, and does so once."""
        alerts = [self._alert(event) for event in events]
        self._published.extend(alerts)
        for alert in alerts:
            self._send(alert)
        while self._published and self._published[0].created < self._clock_ns() - self._settings.again_ns:
            self._published.popleft()

    def _alert(self, event: Event) -> Alert:
        model, now_ns = self._required.model, self._clock_ns()
        assert model is not None, "events come of notes, which tell it"
        alert = event_alert(event, self._settings.mode, model, self._settings.places, {}, now_ns)
        return aged(alert, self._settings.max_age_ns, now_ns)

    def _send(self, alert: Alert) -> None:
        self._metrics.publishing(alert)
        outcome = self._desk.publish(alert, (self._clock_ns() - self._settings.retention_ns) // 1_000_000)
        self._metrics.published(outcome)
        if outcome == "sent":
            log.info("alert %s", alert.summary())
