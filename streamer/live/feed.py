"""From the pipeline to Redis for the web page, without ever making the pipeline wait.

`Feed`'s hooks append to a bounded queue, which drops and counts what is too much; its thread does all the work, and writes
with short expiry. Redis down, slow or full costs the page its view, and the daemon nothing.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis

from quake.alerts import Alert, Keys, Kind, ModelIdentity
from quake.connecting import connect
from streamer.composition import Watch
from streamer.hooks import Hooks
from streamer.live.view import KEPT_NS, View
from streamer.seldom import Seldom
from streamer.stages import NS, Packet, Score, Unscored, Unused
from streamer.trigger import Thresholds

QUEUE = 8192
"""What may wait for the thread: some 16 MB of packets."""
ROUND_S = 0.25
"""How often the thread takes what waits."""
VIEWERS_S, STATE_S, HOURS_S = 1.0, 2.0, 30.0
"""How often is asked who looks, and states and helicorders are written."""
STATE_EXPIRES_S = 15
HOUR_EXPIRES_S = 25 * 3600
DATA_EXPIRES_S = 30
"""After the last viewer has gone."""
PICTURE_EXPIRES_S = {Kind.EVENT: 7 * 86_400, Kind.DETECTION: 43_200}
"""At one false alarm an hour, 300 stations make 40 MB of pictures in half a day."""
PICTURES = 4
"""Written in one round."""
ENTRIES = 4_000
"""In the stream of one station: five minutes, however short its records are."""
TIMEOUT_S = 2.0
RETRY_S = 5.0
"""Pause after Redis failed."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class About:
    """What the page says of the daemon itself."""

    daemon: str
    mode: str
    model: ModelIdentity
    device: str
    thresholds: Thresholds
    hop_s: float
    window_s: float


class Feed(Hooks):
    """Hangs on the daemon's hooks. ``told`` hears how much was dropped."""

    def __init__(self, client: redis.Redis, keys: Keys, about: About, view: View, told: Hooks) -> None:
        self._client, self._keys, self._about, self._view, self._told = client, keys, about, view, told
        self._queue: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._dropped = 0
        self._expected: Callable[[], Mapping[str, object]] = dict
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live", daemon=True)
        self._seldom = Seldom(log)
        self._viewers_due_s = self._state_due_s = self._hours_due_s = self._retry_s = 0.0

    def start(self, expected: Callable[[], Mapping[str, object]]) -> None:
        """``expected``: subjects that are known to come."""
        self._expected = expected
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(2 * TIMEOUT_S)
        self._client.close()

    # -- of the pipeline's thread: nothing here waits --------------------------------------------------------------------------

    def _put(self, call: Callable[..., None], *arguments: Any) -> None:
        if len(self._queue) >= QUEUE:
            self._dropped += 1
        else:
            self._queue.append((call, arguments))

    def packet(self, packet: Packet) -> None:
        self._put(self._view.packet, packet)

    def scored(self, scores: list[Score]) -> None:
        # Without the windows: their samples are large.
        self._put(self._view.scored, [(s.window.subject, s.window.k, s.probability) for s in scores])

    def samples_unused(self, channel: str, reason: Unused, count: int) -> None:
        self._put(self._view.unused, channel.rpartition("_")[0], reason, count)

    def windows_unused(self, unscored: Unscored) -> None:
        self._put(self._view.unused, unscored.subject, unscored.reason, unscored.last - unscored.first + 1)

    def state(self, station: str, newest_ns: int, decided_ns: int, fill: float) -> None:
        self._put(self._view.state, station, newest_ns, decided_ns, fill)

    def behind(self, seconds: float) -> None:
        self._put(self._view.tell, "behind_s", seconds)

    def queue(self, packets: int, windows: int, undecided: int) -> None:
        self._put(self._view.tell, "packets_waiting", packets)
        self._put(self._view.tell, "windows_waiting", windows)

    def overload(self, dropping: bool) -> None:
        self._put(self._view.tell, "dropping_windows", float(dropping))

    def backlog(self, depth: int, oldest_ns: int | None) -> None:
        self._put(self._view.tell, "outbox_depth", depth)

    def source(self, kind: str, server: str, cause: str) -> None:
        self._put(self._view.source, kind, server)

    def committed(self, alerts: list[Alert]) -> None:
        if alerts:
            self._put(self._view.alerts, alerts)

    # -- of its own thread -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.wait(ROUND_S):
            self._take()
            try:
                if time.monotonic() >= self._retry_s:
                    self._write()
            except redis.RedisError as error:
                self._seldom.warning(type(error).__name__, time.monotonic(), f"the web page gets nothing: {error}")
                self._failed()
            except Exception:
                log.exception("a fault in what the web page is told; trying again")
                self._failed()

    def _failed(self) -> None:
        self._retry_s = time.monotonic() + RETRY_S
        self._view.fresh.clear()  # who looks gets the newest minutes anew
        self._client.connection_pool.disconnect()

    def _take(self) -> None:
        self._view.now_s = time.monotonic()
        for _ in range(len(self._queue)):
            call, arguments = self._queue.popleft()
            call(*arguments)
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self._told.live_dropped(dropped)

    def _write(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._viewers_due_s:
            self._viewers_due_s = now_s + VIEWERS_S
            self._view.watch(self._looked_at())
        with self._client.pipeline(transaction=False) as pipe:
            self._write_data(pipe)
            for alert, picture in self._view.take_pictures(PICTURES):
                pipe.set(self._keys.picture(alert.id), json.dumps(picture), ex=PICTURE_EXPIRES_S[alert.kind])
            if self._view.has_helicorder and now_s >= self._hours_due_s:
                self._hours_due_s = now_s + HOURS_S
                self._write_hours(pipe)
            if now_s >= self._state_due_s:
                self._state_due_s = now_s + STATE_S
                pipe.set(self._keys.live_state(self._about.daemon), self._state(), ex=STATE_EXPIRES_S)
            if len(pipe):
                pipe.execute()

    def _looked_at(self) -> Iterable[str]:
        subjects = list(self._view.sights)
        found: Any = self._client.mget([self._keys.viewer(name) for name in subjects]) if subjects else []
        return [subject for subject, value in zip(subjects, found, strict=True) if value is not None]

    def _write_data(self, pipe: Any) -> None:
        oldest_ms = (time.time_ns() - KEPT_NS) // 1_000_000
        for subject, items in self._view.take_fresh().items():
            name = self._keys.live_data(subject)
            for field, content in items[-ENTRIES:]:
                pipe.xadd(name, {field: json.dumps(content)})
            pipe.xtrim(name, minid=oldest_ms)
            pipe.xtrim(name, maxlen=ENTRIES)
            pipe.expire(name, DATA_EXPIRES_S)

    def _write_hours(self, pipe: Any) -> None:
        for subject, hour, place, text in self._view.take_hours():
            pipe.setrange(self._keys.hour(subject, hour), place, text)
            pipe.expire(self._keys.hour(subject, hour), HOUR_EXPIRES_S)

    def _state(self) -> str:
        about, t = self._about, self._about.thresholds
        return json.dumps(
            {
                "daemon": about.daemon,
                "mode": about.mode,
                "written_s": time.time_ns() / NS,
                "model": about.model.model_dump() | {"device": about.device},
                "on": t.on,
                "off": t.off,
                "in_a_row": t.in_a_row,
                "hop_s": about.hop_s,
                "window_s": about.window_s,
                "helicorder": self._view.has_helicorder,
                "health": self._view.health,
                "servers": len(self._view.up),
                "stations": self._view.stations(self._expected()),
            }
        )


@contextmanager
def feeding(watch: Watch, told: Hooks) -> Iterator[Feed | None]:
    """For as long as the stages of one configuration live; None where it wants no page."""
    config, scorer = watch.config, watch.scorer
    if not config.live.enabled:
        yield None
        return
    about = About(
        daemon=config.daemon,
        mode=config.mode,
        model=scorer.identity,
        device=scorer.model.device,
        thresholds=scorer.thresholds,
        hop_s=scorer.grid.hop_ns / NS,
        window_s=scorer.grid.window_ns / NS,
    )
    keys = Keys.of(config.mode, config.redis.prefix)
    view = View(scorer.grid, watch.stations, has_helicorder=config.live.helicorder)
    feed = Feed(connect(config.redis.url, TIMEOUT_S), keys, about, view, told)
    try:
        yield feed
    finally:
        feed.stop()
