"""Reads alerts from Redis: each one once, in order, through restarts of the subscriber and of Redis.

With a ``group`` (at least once): an alert is acknowledged when the next one is asked for, so one whose handling was
cut off comes again. Without: from ``last_id`` on, which the caller may keep. Repeats (same id, revision not higher)
are dropped either way.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

import redis
from pydantic import ValidationError

from quake.alerts import Alert, Keys, Kind
from quake.connecting import connect

REMEMBERED = 100_000
"""Alert ids whose revisions are remembered: a month of false alarms of a large network."""
POLL_S = 1.0
"""Longest wait inside one read, so that a stop or a silent heartbeat is noticed."""
RETRY_S = (0.1, 5.0)
"""First and longest pause after Redis failed."""

log = logging.getLogger(__name__)


class HeartbeatLostError(Exception):
    """No daemon has said for too long that it lives: silence no longer means that there was no earthquake."""


class AlertSubscriber:
    """Iterate over it: ``for alert in AlertSubscriber("redis://localhost"): ...``

    Events alone unless ``kinds`` asks for detections as well. ``last_id`` is ``"$"`` for what comes from now on,
    also where Redis is away and comes back later, ``"0"`` for all that is still there, or the entry to go on after. Raises
    `HeartbeatLostError` where no daemon has beaten for ``heartbeat_s`` (None: never).
    """

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        *,
        keys: Keys | None = None,
        kinds: Sequence[Kind] = (Kind.EVENT,),
        group: str | None = None,
        consumer: str = "1",
        last_id: str = "$",
        heartbeat_s: float | None = 20.0,
    ) -> None:
        self.keys = keys or Keys()
        self._client = connect(url, POLL_S + 5.0, self._connected)
        self._group, self._consumer, self._heartbeat_s = group, consumer, heartbeat_s
        self.last_ids = {self.keys.stream(kind): last_id for kind in kinds}
        """Stream -> the newest entry that was handed out; what to keep for the next start."""
        self._begin: dict[str, str] = {}
        """Stream -> the entry after which this subscriber began: what lies before it was never its own."""
        self._pending = dict.fromkeys(self.last_ids, "0")
        """Stream -> where to go on among the group's entries handed out and not acknowledged; absent when done."""
        self._revisions: OrderedDict[str, int] = OrderedDict()
        self._ready, self._stopped = False, threading.Event()
        self._beats: frozenset[str] | None = None
        """Every daemon's newest beat, on its own clock: only that one changes counts, for clocks differ."""
        self._alive_s = time.monotonic()
        self._waits_since_s: float | None = None
        """When the iteration began that found Redis away before ``$`` was pinned."""

    def __enter__(self) -> AlertSubscriber:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """What was handed out last stays unacknowledged, as after a crash."""
        self._stopped.set()
        self._client.close()

    def stop(self) -> None:
        """End the iteration within `POLL_S`; callable from another thread."""
        self._stopped.set()

    def __iter__(self) -> Iterator[Alert]:
        self._start_over()
        began_s, pause_s = time.monotonic(), RETRY_S[0]
        while not self._stopped.is_set():
            try:
                self._prepare()
                for stream, entry, fields in self._read():
                    alert = self._new(stream, entry, fields)
                    if alert is not None:
                        given_s = time.monotonic()
                        yield alert
                        self._alive_s += time.monotonic() - given_s  # nobody looked meanwhile
                    self._handled(stream, entry, alert)
                self._check_heartbeat()
                pause_s = RETRY_S[0]
            except redis.RedisError as error:
                if self._stopped.is_set():
                    return
                log.warning("Redis: %s; trying again", error)
                self._waits_since_s = self._waits_since_s or began_s
                self._read_again()
                self._client.connection_pool.disconnect()  # a server that was demoted keeps its connections
                self._stopped.wait(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(2 * pause_s, RETRY_S[1])
                self._check_silence(time.monotonic())

    def _connected(self) -> None:
        """It may be another server, or the same one without its data."""
        self._ready = False

    def _prepare(self) -> None:
        """Once for each connection: pin ``$``, make the group, notice a stream that began again."""
        if self._ready:
            return
        self._ready = True  # first, for a connection made from here on undoes it
        for stream, last_id in self.last_ids.items():
            newest = self._newest(stream)
            if last_id == "$":
                self.last_ids[stream] = self._now(newest)
            elif _order(last_id) > _order(newest):
                self._go_back(stream, newest)
            self._begin.setdefault(stream, self.last_ids[stream])
            if self._group is not None:
                self._make_group(stream, self._group)

    def _now(self, newest: str) -> str:
        """The entry that ``$`` stands for: what came while this subscriber paused before a Redis that is back comes after it.

        Entries are numbered by the server's clock, so that one is asked; this machine's may be another.
        """
        if self._waits_since_s is None:
            return newest
        try:
            seconds, microseconds = self._client.time()
        except redis.ResponseError as error:  # a user who may not ask
            log.warning("Redis does not tell its time (%s): what came before the first connection is not read", error)
            return newest
        began_ms = 1000 * (seconds + microseconds / 1e6 - (time.monotonic() - self._waits_since_s))
        return min(newest, f"{int(began_ms) - 1}-0", key=_order)

    def _go_back(self, stream: str, newest: str) -> None:
        """Redis lost data: to where this subscriber began, or to the stream's start if that was lost too."""
        begin = self._begin.get(stream, "0-0")
        back = begin if _order(begin) <= _order(newest) else "0-0"
        text = "%s ends at %s, before the last entry seen, %s: Redis lost data; reading it again from %s"
        log.warning(text, stream, newest, self.last_ids[stream], back)
        self.last_ids[stream] = back

    def _newest(self, stream: str) -> str:
        entries: Any = self._client.xrevrange(stream, count=1)
        return str(entries[0][0]) if entries else "0-0"

    def _make_group(self, stream: str, group: str) -> None:
        try:
            self._client.xgroup_create(stream, group, id=self.last_ids[stream], mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
            self._mend_group(stream, group)

    def _mend_group(self, stream: str, group: str) -> None:
        """A fail-over that lost entries leaves a group that stands past the stream's end: it would see nothing."""
        infos: Any = self._client.xinfo_groups(stream)
        last_id = next(str(info["last-delivered-id"]) for info in infos if info["name"] == group)
        if _order(last_id) > _order(self._newest(stream)):
            log.warning("group %s of %s stands at %s, past the stream's end: reading it again", group, stream, last_id)
            self._client.xgroup_setid(stream, group, "0-0")

    def _read(self) -> list[tuple[str, str, dict[str, str]]]:
        block_ms = int(POLL_S * 1000)
        answer: Any
        if self._group is None:
            answer = self._client.xread(self.last_ids, count=100, block=block_ms)  # type: ignore[arg-type]
        elif self._pending:
            answer = self._client.xreadgroup(self._group, self._consumer, dict(self._pending), count=100)  # type: ignore[arg-type]
            self._advance_pending(answer)
        else:
            news = dict.fromkeys(self.last_ids, ">")
            answer = self._client.xreadgroup(self._group, self._consumer, news, count=100, block=block_ms)  # type: ignore[arg-type]
        # As a list of pairs or, from the third protocol on, as a mapping.
        streams = answer.items() if isinstance(answer, dict) else answer or ()
        return [(stream, entry, fields or {}) for stream, entries in streams for entry, fields in _flat(entries)]

    def _advance_pending(self, answer: Any) -> None:
        streams = dict(answer.items() if isinstance(answer, dict) else answer or ())
        for stream in list(self._pending):
            entries = list(_flat(streams.get(stream) or ()))
            if entries:
                self._pending[stream] = entries[-1][0]
            else:
                del self._pending[stream]

    def _new(self, stream: str, entry: str, fields: dict[str, str]) -> Alert | None:
        """The entry's alert; None for a repeat and for one that cannot be read, which is said loudly."""
        try:
            alert = Alert.model_validate_json(fields.get("alert", ""))
        except ValidationError as error:
            log.error("%s entry %s is not an alert that this version can read: %s", stream, entry, error)
            return None
        if self._revisions.get(alert.id, -1) >= alert.revision:
            return None
        return alert

    def _handled(self, stream: str, entry: str, alert: Alert | None) -> None:
        if alert is not None:
            self._revisions[alert.id] = alert.revision
            self._revisions.move_to_end(alert.id)
            if len(self._revisions) > REMEMBERED:
                self._revisions.popitem(last=False)
        self.last_ids[stream] = entry
        if self._group is not None:
            self._client.xack(stream, self._group, entry)

    def _start_over(self) -> None:
        """Also after an iteration that was left: what was handed out last and not handled comes again."""
        self._alive_s = time.monotonic()
        self._read_again()

    def _read_again(self) -> None:
        self._ready = False
        if self._group is not None:
            self._pending = dict.fromkeys(self.last_ids, "0")

    def _check_heartbeat(self) -> None:
        if self._heartbeat_s is None:
            return
        beats: Any = self._client.hvals(self.keys.heartbeat)
        seen, now_s = frozenset(map(str, beats)), time.monotonic()
        if seen != self._beats:
            self._beats, self._alive_s = seen, now_s
        self._check_silence(now_s)

    def _check_silence(self, now_s: float) -> None:
        if self._heartbeat_s is not None and now_s - self._alive_s > self._heartbeat_s:
            raise HeartbeatLostError(f"no daemon has beaten on {self.keys.heartbeat} for {now_s - self._alive_s:.0f} s")


def _flat(entries: Any) -> Iterator[tuple[str, dict[str, str]]]:
    """Entries of one stream; the third protocol nests them once more."""
    for item in entries:
        if isinstance(item, (list, tuple)) and len(item) == 2 and isinstance(item[0], str):
            yield item[0], item[1]
        else:
            yield from _flat(item)


def _order(entry: str) -> tuple[int, int]:
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds or 0), int(number or 0)
