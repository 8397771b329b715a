"""Tells a sink, once, that no daemon beats any more, and once that one does again.

On a thread beside the sink's deliveries, so that an alert which cannot be delivered does not hide the silence.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from typing import Any

import redis

from quake.alerts import Keys
from quake.connecting import connect
from streamer.notify.delivery import RETRY_S
from streamer.notify.memory import TIMEOUT_S, Memory
from streamer.notify.metrics import SinkMetrics
from streamer.notify.sink import DeferredError, Sink
from streamer.notify.wording import Notice, of_heartbeat
from streamer.seldom import Seldom

LOOK_S = 1.0

log = logging.getLogger(__name__)


class Pulse:
    """Whether daemons beat, from what is seen of their beats. Only a change counts, for clocks differ."""

    def __init__(self, silent_s: float, now_s: float) -> None:
        self._silent_s, self._since_s = silent_s, now_s
        self._beats: frozenset[str] | None = None
        self.lost: bool | None = None
        """None while it is not known yet."""

    def look(self, beats: frozenset[str], now_s: float) -> None:
        """``beats``: every daemon's newest; empty where Redis cannot be asked, or has none."""
        if beats and beats != self._beats:
            self.lost = False if self._beats is not None else self.lost
            self._beats, self._since_s = beats, now_s
        elif now_s - self._since_s > self._silent_s:
            self.lost = True


class HeartbeatWatch(threading.Thread):
    def __init__(self, name: str, sink: Sink, url: str, prefix: str, silent_s: float, metrics: SinkMetrics) -> None:
        super().__init__(name=f"heartbeat to.{name}", daemon=True)
        self._sink, self._metrics, self._silent_s = sink.model_copy(), metrics, silent_s
        keys = Keys.of(sink.mode, prefix)
        self._client, self._key, self._memory = connect(url, TIMEOUT_S), keys.heartbeat, Memory(url, keys, name)
        self._stopping, self._seldom = threading.Event(), Seldom(log)
        self.pulse = Pulse(silent_s, time.monotonic())
        self._told: bool | None = None
        """What the sink heard last; None until Redis could be asked."""
        self._saved: bool | None = None
        self._notice: Notice | None = None
        """On its way."""
        self._due_s, self._pause_s = 0.0, RETRY_S[0]

    def stop(self) -> None:
        self._stopping.set()

    def run(self) -> None:
        while not self._stopping.wait(LOOK_S):
            self.pulse.look(self._beats(), time.monotonic())
            if self.pulse.lost is None or self.pulse.lost == bool(self._told):
                self._notice = None  # what was on its way is no longer so
            elif time.monotonic() >= self._due_s:
                self._tell(self.pulse.lost)
        self._client.close()
        self._memory.close()

    def _beats(self) -> frozenset[str]:
        """Empty where Redis does not answer."""
        try:
            self._remember()
            beats: Any = self._client.hvals(self._key)
            return frozenset(map(str, beats))
        except redis.RedisError as error:
            self._seldom.warning("redis", time.monotonic(), f"{self.name}: Redis: {error}; trying again")
            return frozenset()

    def _remember(self) -> None:
        """Brings what is remembered in line; what cannot be saved now is saved by the next look."""
        if self._told is None:
            self._told = self._saved = self._memory.is_lost()
        elif self._told != self._saved:
            self._memory.set_lost(self._told)
            self._saved = self._told

    def _tell(self, lost: bool) -> None:
        self._notice = self._notice or of_heartbeat(lost, time.time_ns(), self._silent_s)
        try:
            self._sink.send(self._notice, time.time_ns())
        except DeferredError as error:
            self._metrics.deferred()
            self._seldom.warning(str(error), time.monotonic(), f"{self.name}: {error}; trying again")
            self._due_s, self._pause_s = time.monotonic() + self._pause_s, min(2 * self._pause_s, RETRY_S[1])
            return
        except Exception:  # refused, or a fault: another try would end in the same way
            log.exception("%s: cannot be told", self.name)
        else:
            self._metrics.delivered()
            log.warning("%s: %s", self.name, self._notice.title)
        self._told, self._notice, self._due_s, self._pause_s = lost, None, 0.0, RETRY_S[0]
        with suppress(redis.RedisError):
            self._remember()
