"""The thread of a sink: takes its alerts one by one and lets go of each only once it is delivered, refused or left out.

At least once. What is acknowledged was remembered as told before, so an alert comes twice only where the process ends
between its delivery and that.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Mapping

import redis

from quake.alerts import Alert, AlertSubscriber, Keys
from quake.times import NS, format_ns
from streamer.mutes import Mute, is_muted, read_mutes
from streamer.notify.deciding import Bucket, LeftOut, Told, decide
from streamer.notify.memory import Memory
from streamer.notify.metrics import SinkMetrics
from streamer.notify.sink import DeferredError, RefusedError, Sink
from streamer.notify.wording import of_alert
from streamer.seldom import Seldom

RETRY_S = (1.0, 60.0)
"""First and longest pause after a failure; doubled each time, with jitter."""
REDIS_RETRY_S = 1.0
TOLD_LATER = {LeftOut.QUIET, LeftOut.RATE}
"""Left out although they were wanted: the next message tells how many."""

log = logging.getLogger(__name__)


class StoppedError(Exception):
    """Asked to end in the midst of a delivery: the alert stays with the group."""


class Delivery(threading.Thread):
    """Runs until `stop`; outlives every failure of Redis and of the sink."""

    def __init__(self, name: str, sink: Sink, url: str, prefix: str, metrics: SinkMetrics) -> None:
        super().__init__(name=f"to.{name}", daemon=True)
        keys = Keys.of(sink.mode, prefix)
        self._subscriber = AlertSubscriber(url, keys=keys, kinds=sink.kinds, group=f"notify-{name}", heartbeat_s=None)
        self._sink, self._metrics, self._memory = sink, metrics, Memory(url, keys, name)
        self._bucket = Bucket(sink.rate) if sink.rate else None
        self._stopping, self._seldom = threading.Event(), Seldom(log)

    def stop(self) -> None:
        self._stopping.set()
        self._subscriber.stop()

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    for alert in self._subscriber:
                        self._handle(alert)
                except redis.RedisError as error:
                    self._seldom.warning("redis", time.monotonic(), f"{self.name}: Redis: {error}; trying again")
                    self._stopping.wait(REDIS_RETRY_S)
        except StoppedError:
            log.info("%s: stopped within a delivery, which is tried again at the next start", self.name)
        finally:
            self._subscriber.close()
            self._memory.close()

    def _handle(self, alert: Alert) -> None:
        told, now_ns = self._memory.told(alert.id), time.time_ns()
        mutes = read_mutes(self._memory.mutes(), now_ns)
        muted = is_muted(alert, mutes)
        reason = decide(self._sink, alert, told, self._bucket, now_ns, time.monotonic(), muted=muted)
        if reason is LeftOut.MUTED:
            log.info("%s: not told, muted %s: %s", self.name, _by_whom(alert, mutes), alert.summary())
        if reason in TOLD_LATER:
            self._memory.leave_out(str(reason))
        if reason is not None:
            self._metrics.left_out(reason)
        elif self._is_delivered(alert, told):
            self._memory.tell(alert.id, (*told, (alert.revision, alert.created)))
        else:
            self._memory.leave_out("failed")

    def _is_delivered(self, alert: Alert, told: Told) -> bool:
        """Until it is, or never will be."""
        left_out, pause_s = self._memory.left_out(), RETRY_S[0]
        with self._metrics.holding(alert.created):
            while True:
                try:
                    self._sink.send(of_alert(self._sink.title, self._sink.text, alert, told, left_out), time.time_ns())
                    return self._succeeded(alert)
                except DeferredError as error:
                    self._metrics.deferred()
                    text = f"{self.name}: {error}; trying again"
                    self._seldom.warning(str(error), time.monotonic(), text)
                    if time.time_ns() - alert.created > self._sink.give_up_s * NS:
                        return self._failed(alert, "late", error)
                    if self._stopping.wait(max(error.after_s, pause_s * random.uniform(0.5, 1.0))):
                        raise StoppedError from error
                    pause_s = min(2 * pause_s, RETRY_S[1])
                except RefusedError as error:
                    return self._failed(alert, "refused", error)
                except Exception as error:  # one such must not hold up all that follow
                    log.exception("%s: a fault", self.name)
                    return self._failed(alert, "fault", error)

    def _succeeded(self, alert: Alert) -> bool:
        self._metrics.delivered()
        log.info("%s: told of %s", self.name, alert.summary())
        return True

    def _failed(self, alert: Alert, reason: str, error: Exception) -> bool:
        self._metrics.failed(reason)
        log.error("%s: given up (%s: %s): %s", self.name, reason, error, alert.summary())
        return False


def _by_whom(alert: Alert, mutes: Mapping[str, Mute]) -> str:
    """Of the mute that ends first. Quoted: people typed it."""
    mute = min((mutes[station.source_id] for station in alert.stations), key=lambda mute: mute.until)
    return f"until {format_ns(mute.until)} by {mute.by!r} ({mute.why!r})"
