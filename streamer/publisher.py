"""Empties the outbox into Redis: at least once from here, at most once on the stream.

One atomic script writes the stream and the channel and refuses what is there. A fail-over or an emptied Redis is
noticed by the marker ``{quake}:epoch`` and by the server's run id, both checked inside the script; then the outbox's last
hours are offered again, in their order, and the script drops what Redis still has. Decides nothing about alerts.
"""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import redis
from pydantic import ValidationError

from quake.alerts import Alert, Keys
from quake.connecting import connect
from streamer.alerting import aged
from streamer.epoch import here
from streamer.hooks import Hooks
from streamer.outbox import Outbox, OutboxError, Unsent
from streamer.seldom import Seldom
from streamer.shard import WHOLE, Shard
from streamer.stages import NS
from streamer.teller import Teller

HEARTBEAT_S = 5.0
FORGET_NS = 86_400 * NS
"""A daemon that has not beaten for this long is struck off."""
BATCH = 64
"""Alerts marked as sent together."""
RETRY_S = (0.2, 4.0)
"""First and longest pause after Redis failed; doubled each time, with jitter so that many daemons do not return at
once. An alert that waits is late by the longest, so it is short."""
PRUNE_S = 3600.0
TIMEOUT_S = 5.0
"""Redis that says nothing for this long is taken for gone."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PublishSettings:
    url: str
    keys: Keys
    daemon: str
    """Names this process in the heartbeat."""
    dead_ms: int
    """Openings of one station nearer to one another than this are of one earthquake."""
    retention_ns: int
    """How long alerts stay on the stream."""
    again_ns: int
    """How much of the outbox is offered again to a Redis that lost its data."""
    most_bytes: int
    """What the outbox may fill of the disk: of what was sent, the oldest is forgotten earlier then."""
    max_age_ns: int
    """An alert older than this when it leaves is marked stale."""
    shard: Shard = WHOLE
    fingerprint: str = ""
    """Of the triggers' states."""
    has_associator: bool = False
    """Events are its: without it nobody tells of an earthquake, and the heartbeat is silent."""


class Publisher(threading.Thread):
    """Runs until `stop`; outlives every failure of Redis."""

    def __init__(
        self, settings: PublishSettings, outbox: Path, hooks: Hooks, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        super().__init__(name="publisher", daemon=True)
        self._settings, self._path, self._hooks, self._clock_ns = settings, outbox, hooks, clock_ns
        self._client = connect(settings.url, TIMEOUT_S)
        self._wake, self._stopping, self._abandoned = threading.Event(), threading.Event(), threading.Event()
        self._heartbeat_due_s = self._prune_due_s = 0.0
        """On the monotonic clock: a wall clock that is set back must not silence the heartbeat."""
        self._pause_s = RETRY_S[0]
        self._failing_since_s: float | None = None
        self._seldom = Seldom(log)
        """Of the present outage: a line for each kind of failure, and one an hour."""
        self._random = random.Random()

    def wake(self) -> None:
        """There is something new in the outbox."""
        self._wake.set()

    def stop(self, drain_s: float) -> None:
        """End once the outbox is empty, or after ``drain_s``: what is left then goes out at the next start."""
        self._stopping.set()
        self._wake.set()
        self.join(drain_s)
        self._abandoned.set()
        self.join(TIMEOUT_S)

    def run(self) -> None:
        script = self._client.register_script(files("streamer").joinpath("publish.lua").read_text())
        teller = Teller(self._settings, self._client)
        outbox: Outbox | None = None
        try:
            while not self._abandoned.is_set():
                try:
                    outbox = outbox or Outbox(self._path)
                    if self._stopping.is_set() and outbox.backlog()[0] == 0 and teller.tell(outbox, last=True):
                        return
                    self._beat(self._client, outbox)
                    more = self._drain(script, outbox)
                    if not teller.tell(outbox):
                        self._heartbeat_due_s = 0.0  # it looks at which Redis this is
                    self._recovered()
                    if not more:
                        self._wake.wait(HEARTBEAT_S / 5)
                        self._wake.clear()
                except (redis.RedisError, sqlite3.Error, OutboxError) as error:
                    text = f"publishing: {error}; trying again, alerts wait in the outbox"
                    self._seldom.warning(str(error), time.monotonic(), text)
                    self._back_off(type(error).__name__)
                except Exception:
                    log.exception("a fault in the publisher; trying again, alerts wait in the outbox")
                    self._back_off("internal")
        finally:
            self._client.close()
            if outbox is not None:
                outbox.close()

    def _recovered(self) -> None:
        self._pause_s = RETRY_S[0]
        if self._failing_since_s is not None:
            log.info("publishing again, after %.1f s", time.monotonic() - self._failing_since_s)
            self._failing_since_s, self._seldom = None, Seldom(log)

    def _back_off(self, cause: str) -> None:
        if self._failing_since_s is None:
            self._failing_since_s = time.monotonic()
        self._hooks.publish_failed(cause)
        self._client.connection_pool.disconnect()  # a server that was demoted keeps its connections and refuses writes
        self._abandoned.wait(self._pause_s * self._random.uniform(0.5, 1.0))
        self._pause_s = min(2 * self._pause_s, RETRY_S[0] if self._stopping.is_set() else RETRY_S[1])

    def _beat(self, client: redis.Redis, outbox: Outbox) -> None:
        if time.monotonic() < self._heartbeat_due_s:
            return
        now_ns = self._clock_ns()
        self._check_epoch(client, outbox)
        if not self._settings.has_associator or self._is_associated(client):
            self._say_alive(client, now_ns)
        self._heartbeat_due_s = time.monotonic() + HEARTBEAT_S
        if time.monotonic() >= self._prune_due_s:
            self._prune_due_s = time.monotonic() + PRUNE_S
            self._prune(outbox, now_ns)

    def _say_alive(self, client: redis.Redis, now_ns: int) -> None:
        heartbeat, daemon = self._settings.keys.heartbeat, self._settings.daemon
        with client.pipeline(transaction=False) as pipe:  # one way there and back: Redis may be far, or slow
            pipe.hset(heartbeat, daemon, str(now_ns))
            pipe.publish(heartbeat, daemon)
            pipe.hgetall(heartbeat)
            beats = pipe.execute()[-1]
        self._forget_the_dead(client, beats, now_ns)
        self._hooks.redis_reachable(now_ns)

    def _prune(self, outbox: Outbox, now_ns: int) -> None:
        outbox.prune(now_ns - self._settings.again_ns)  # nobody needs them any longer: Redis holds them
        if forgotten := outbox.shrink(self._settings.most_bytes):
            log.warning("the outbox is full (outbox_mb): %d alert(s) that were sent cannot be offered again", forgotten)
        self._hooks.outbox_size(outbox.used_bytes())

    def _is_associated(self, client: redis.Redis) -> bool:
        """Whether somebody decides events now."""
        is_there = bool(client.exists(self._settings.keys.lease))
        self._hooks.associated(is_there)
        if not is_there:
            text = "no associator holds the lease: nobody decides events, and this daemon does not beat"
            self._seldom.warning("associator", time.monotonic(), text)
        return is_there

    def _forget_the_dead(self, client: redis.Redis, beats: dict[str, str], now_ns: int) -> None:
        """A daemon has another name after each restart: without this the hash grows for ever."""
        if dead := [name for name, beat in beats.items() if not beat.isdigit() or int(beat) < now_ns - FORGET_NS]:
            client.hdel(self._settings.keys.heartbeat, *dead)

    def _check_epoch(self, client: redis.Redis, outbox: Outbox) -> None:
        """Notice another Redis, or the same one without its data, and offer the last hours again."""
        found, known = here(client, self._settings.keys.epoch), outbox.get("redis")
        if found == known:
            return
        if known is not None:
            count = outbox.send_again(self._clock_ns() - self._settings.again_ns)
            log.warning("Redis was restarted, emptied or replaced: offering %d alert(s) again", count)
            outbox.send_notes_again()
        outbox.set("redis", found)  # last: a crash in between offers twice, which the script drops, rather than never

    def _drain(self, script: redis.commands.core.Script, outbox: Outbox) -> bool:
        """Send what waits, until a heartbeat is due: True then, for it waits for no backlog, however slow Redis is.

        Marked together, since a mark costs a disk's flush and one that is missing only a refusal.
        """
        while waiting := outbox.unsent(BATCH):
            sent: list[int] = []
            try:
                for unsent in waiting:
                    if not self._send(script, outbox, unsent):
                        return False
                    sent.append(unsent.sequence)
                    if time.monotonic() >= self._heartbeat_due_s:
                        return True
            finally:
                outbox.mark_sent(sent)
                self._hooks.marked_sent(len(sent))
        return False

    def _send(self, script: redis.commands.core.Script, outbox: Outbox, unsent: Unsent) -> bool:
        alert = self._read(unsent)
        if alert is None:
            return True
        keys, now_ns = self._settings.keys, self._clock_ns()
        stream = keys.stream(alert.kind)
        names = [stream, keys.seen(alert.id), keys.opened(alert.stations[0].source_id), keys.epoch, keys.lease_token]
        outcome = str(
            script(
                keys=names,
                args=[
                    outbox.get("redis") or "",
                    alert.id,
                    alert.revision,
                    alert.model_dump_json(),
                    stream,
                    max(1, self._settings.retention_ns // NS),
                    (now_ns - self._settings.retention_ns) // 1_000_000,
                    "" if unsent.k is None or alert.revision else alert.on_time // 1_000_000,  # of whichever grid
                    self._settings.dead_ms,
                    "",
                ],
            )
        )
        if outcome == "epoch":
            self._heartbeat_due_s = 0.0
            return False
        self._hooks.published(alert, outcome)
        return True

    def _read(self, unsent: Unsent) -> Alert | None:
        """None for a body that this release cannot read: one such must not hold up all that follow."""
        try:
            return aged(Alert.model_validate_json(unsent.body), self._settings.max_age_ns, self._clock_ns())
        except ValidationError as error:
            self._hooks.publish_failed("unreadable")
            log.error("outbox %s: alert %d is given up, it cannot be read: %s", self._path, unsent.sequence, error)
            return None
