"""Follows Redis in two threads, keeps the newest alerts in memory, and tells every browser what is new.

A browser that does not take what it is told is let go: it connects again and asks anew. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import redis

from quake.alerts import Alert, AlertSubscriber, Keys, Kind
from quake.connecting import connect
from streamer.dashboard.marks import Mark, read_all, read_entry
from streamer.dashboard.stations import described
from streamer.mutes import Mute, is_muted, read_mutes
from streamer.seldom import Seldom
from streamer.stages import NS

KEPT = 2_000
"""Alerts of each kind: some days of a large network's."""
ENTRIES = 2 * KEPT
"""Read of each stream at the start: an alert has two revisions and more."""
STATE_S = 2.0
POLL_MS = 250
VIEWER_EXPIRES_S = 10
SILENT_S = 20.0
"""Without a beat for this long no daemon watches: four heartbeats."""
WAITING = 1_000
"""Messages that a browser may be behind."""
TIMEOUT_S = 5.0
RETRY_S = 1.0

log = logging.getLogger(__name__)


def event(name: str, content: Any) -> str:
    """Of server-sent events."""
    return f"event: {name}\ndata: {json.dumps(content, separators=(',', ':'))}\n\n"


@dataclass(eq=False)
class Browser:
    """One that listens. Its queue belongs to the loop of the server; None ends it."""

    subject: str | None
    loop: asyncio.AbstractEventLoop
    queue: asyncio.Queue[str | None] = field(default_factory=lambda: asyncio.Queue(WAITING + 1))
    is_behind: bool = False

    def offer(self, message: str | None) -> None:
        """From any thread."""
        with suppress(RuntimeError):  # the loop has ended
            self.loop.call_soon_threadsafe(self._put, message)

    def _put(self, message: str | None) -> None:
        if self.is_behind:
            return
        self.is_behind = message is None or self.queue.qsize() >= WAITING
        self.queue.put_nowait(None if self.is_behind else message)


class Hub:
    def __init__(self, url: str, keys: Keys, clock_ns: Callable[[], int] = time.time_ns) -> None:
        """Raises ValueError for an address that means nothing."""
        self.keys, self._clock_ns = keys, clock_ns
        self.client = connect(url, TIMEOUT_S)
        self._subscriber = AlertSubscriber(
            url, keys=keys, kinds=(Kind.EVENT, Kind.DETECTION), last_id="0", heartbeat_s=None
        )
        self._lock = threading.Lock()
        self._alerts: dict[Kind, OrderedDict[str, Alert]] = {kind: OrderedDict() for kind in Kind}
        self._marks: dict[str, list[Mark]] = {}
        self._mutes: dict[str, Mute] = {}
        self._browsers: set[Browser] = set()
        self._after: dict[str, str] = {}
        """Subject that somebody looks at -> the entry to go on after."""
        self._marks_after: str | None = None
        self._beats: dict[str, tuple[str, float]] = {}
        """Daemon -> its newest beat, and when it was seen to change."""
        self.state: dict[str, Any] = {"redis": False, "beating": False, "daemons": [], "stations": {}}
        self._stopping = threading.Event()
        self._seldom = Seldom(log)
        self._threads = [
            threading.Thread(target=self._follow_alerts, name="alerts", daemon=True),
            threading.Thread(target=self._follow_rest, name="hub", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Browsers first: a server waits for them."""
        self._stopping.set()
        self._subscriber.stop()
        for browser in self._listening():
            browser.offer(None)

    def close(self) -> None:
        self.stop()
        for thread in self._threads:
            thread.join(TIMEOUT_S)
        self._subscriber.close()
        self.client.close()

    # -- browsers --------------------------------------------------------------------------------------------------------------

    def join(self, browser: Browser) -> list[str]:
        """What it is told first; what is new follows in its queue."""
        with self._lock:
            self._browsers.add(browser)
        first = [event("state", self.state)]
        if browser.subject is not None:
            entries: Any = self._look_at(browser.subject)
            first += [event(name, fields) for name, fields in map(_data, entries)]
        return first

    def leave(self, browser: Browser) -> None:
        with self._lock:
            self._browsers.discard(browser)

    def _look_at(self, subject: str) -> Any:
        entries: Any = []
        with suppress(redis.RedisError):  # without Redis there are no samples yet, and the state says so
            self.client.set(self.keys.viewer(subject), 1, ex=VIEWER_EXPIRES_S)
            entries = self.client.xrange(self.keys.live_data(subject))
        with self._lock:
            self._after.setdefault(subject, entries[-1][0] if entries else "0-0")
        return entries

    @property
    def listening(self) -> int:
        return len(self._browsers)

    def _listening(self) -> list[Browser]:
        with self._lock:
            return list(self._browsers)

    def _tell(self, message: str, subject: str | None = None) -> None:
        for browser in self._listening():
            if subject is None or browser.subject == subject:
                browser.offer(message)

    # -- what is known ---------------------------------------------------------------------------------------------------------

    def alerts(self, wanted: Callable[[Alert], bool], most: int) -> list[dict[str, Any]]:
        """The newest by onset."""
        with self._lock:
            known = [alert for kept in self._alerts.values() for alert in kept.values() if wanted(alert)]
        known.sort(key=lambda alert: alert.onset, reverse=True)
        return [self.shown(alert) for alert in known[:most]]

    def alert(self, ident: str) -> Alert | None:
        with self._lock:
            return next((kept[ident] for kept in self._alerts.values() if ident in kept), None)

    def shown(self, alert: Alert) -> dict[str, Any]:
        """For the page: with its marks, and whether all its stations are muted."""
        muted = is_muted(alert, self._mutes)
        marks = [mark.model_dump(mode="json", exclude={"stations", "id"}) for mark in self._marks.get(alert.id, ())]
        return alert.model_dump(mode="json") | {"marks": marks, "muted": muted}

    # -- threads ---------------------------------------------------------------------------------------------------------------

    def _follow_alerts(self) -> None:
        while not self._stopping.is_set():
            try:
                self._begin_lately()
                for alert in self._subscriber:
                    self._came(alert)
            except redis.RedisError as error:
                self._failed(error)
            except Exception:
                log.exception("a fault in reading alerts; trying again")
                self._stopping.wait(RETRY_S)

    def _begin_lately(self) -> None:
        """A month of a large network's detections would take minutes to read."""
        for stream, last_id in self._subscriber.last_ids.items():
            if last_id == "0":
                entries: Any = self.client.xrevrange(stream, count=ENTRIES)
                if len(entries) == ENTRIES:
                    self._subscriber.last_ids[stream] = entries[-1][0]

    def _came(self, alert: Alert) -> None:
        with self._lock:
            kept = self._alerts[alert.kind]
            kept[alert.id] = alert
            if len(kept) > KEPT:
                kept.popitem(last=False)
        self._tell(event("alert", self.shown(alert)))

    def _follow_rest(self) -> None:
        due_s = 0.0
        while not self._stopping.is_set():
            try:
                if self._marks_after is None:
                    self._read_marks()
                if time.monotonic() >= due_s:
                    due_s = time.monotonic() + STATE_S
                    self._read_state()
                self._read_news()
            except redis.RedisError as error:
                self._failed(error)
            except Exception:
                log.exception("a fault in reading states; trying again")
                self._stopping.wait(RETRY_S)

    def _failed(self, error: redis.RedisError) -> None:
        self._seldom.warning(type(error).__name__, time.monotonic(), f"Redis: {error}; trying again")
        self._marks_after = None  # it may come back without its data
        self._show({**self.state, "redis": False})
        self.client.connection_pool.disconnect()
        self._stopping.wait(RETRY_S)

    def _read_marks(self) -> None:
        said, self._marks_after = read_all(self.client, self.keys)
        marks: dict[str, list[Mark]] = {}
        for mark in said:
            marks.setdefault(mark.id, []).append(mark)
        self._marks = marks

    def _read_state(self) -> None:
        looked_at = {browser.subject for browser in self._listening() if browser.subject is not None}
        with self._lock:
            self._after = {subject: after for subject, after in self._after.items() if subject in looked_at}
        with self.client.pipeline(transaction=False) as pipe:
            for subject in looked_at:
                pipe.set(self.keys.viewer(subject), 1, ex=VIEWER_EXPIRES_S)
            pipe.hgetall(self.keys.heartbeat)
            pipe.hgetall(self.keys.mutes)
            *_, beats, mutes = pipe.execute()
        now_ns = self._clock_ns()
        self._mutes = read_mutes(mutes, now_ns)
        if past := mutes.keys() - self._mutes.keys():
            self.client.hdel(self.keys.mutes, *past)
        written: Any = self.client.mget([self.keys.live_state(name) for name in beats]) if beats else []
        states = [json.loads(text) for text in written if text]
        self._show(
            {
                "redis": True,
                "now_s": now_ns / NS,
                "beating": self._is_beating(beats, now_ns),
                "daemons": [{key: state[key] for key in state if key != "stations"} for state in states],
                "stations": described(states, self._mutes, now_ns / NS),
            }
        )

    def _is_beating(self, beats: Mapping[str, str], now_ns: int) -> bool:
        """By what changes, for clocks differ; a beat that was there before is judged by its age."""
        now_s = time.monotonic()
        for name, beat in beats.items():
            if name not in self._beats or self._beats[name][0] != beat:
                is_old = name not in self._beats and beat.isdigit() and now_ns - int(beat) > SILENT_S * NS
                self._beats[name] = beat, now_s - SILENT_S if is_old else now_s
        return any(now_s - seen_s < SILENT_S for _, seen_s in self._beats.values())

    def _show(self, state: dict[str, Any]) -> None:
        self.state = state
        self._tell(event("state", state))

    def _read_news(self) -> None:
        marks_after = self._marks_after or "0-0"
        with self._lock:
            names = {self.keys.live_data(subject): subject for subject in self._after}
            after: Any = {self.keys.live_data(subject): entry for subject, entry in self._after.items()}
        answer: Any = self.client.xread({self.keys.marks: marks_after, **after}, block=POLL_MS)
        for stream, entries in answer or ():
            for entry, fields in entries:
                if stream == self.keys.marks:
                    self._marks_after = entry
                    self._said(read_entry(fields))
                else:
                    self._after[names[stream]] = entry
                    self._tell(event(*_data((entry, fields))), names[stream])

    def _said(self, mark: Mark | None) -> None:
        if mark is None:
            return
        self._marks.setdefault(mark.id, []).append(mark)
        if alert := self.alert(mark.id):
            self._tell(event("alert", self.shown(alert)))


def _data(entry: tuple[str, dict[str, str]]) -> tuple[str, Any]:
    """``samples`` or ``window``, and its content."""
    name, text = next(iter(entry[1].items()))
    return name, json.loads(text)
