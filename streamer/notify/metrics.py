"""What Prometheus scrapes of the notifier, and whether it is well: the face of `streamer.http`. Counts, never decides."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge

from quake.times import NS
from streamer.notify.deciding import LeftOut

STUCK_S = 300.0
"""An alert that is not delivered for this long is a fault of its sink."""
FAILURES = ("refused", "late", "fault")


class NotifierMetrics:
    """All series of one notifier, in a registry of its own."""

    def __init__(self, sinks: Sequence[str], alive: Callable[[], bool], lost: Callable[[], bool]) -> None:
        self.registry, self.alive, self._lost = CollectorRegistry(), alive, lost
        beats = Gauge("quake_notify_heartbeat_lost", "Whether no daemon beats", registry=self.registry)
        beats.set_function(lost)
        self._counters = {
            name: Counter(f"quake_notify_{name}_total", text, ["to", *more], registry=self.registry)
            for name, text, *more in (
                ("delivered", "Messages delivered"),
                ("deferred", "Tries that failed and are made again"),
                ("failed", "Alerts given up, by reason", "reason"),
                ("left_out", "Alerts not sent on purpose, by reason", "reason"),
            )
        }
        self._oldest = Gauge(
            "quake_notify_oldest_undelivered_seconds",
            "Age of the alert that is being delivered; what follows is younger. 0: none",
            ["to"],
            registry=self.registry,
        )
        self.sinks = {name: SinkMetrics(name, self._counters, self._oldest) for name in sinks}

    def faults(self, ready: bool) -> dict[str, str]:
        """Why the notifier is not ready: empty when it is."""
        stuck = {
            f"to.{name}": f"an alert is not delivered for {age_s:.0f} s"
            for name, sink in self.sinks.items()
            if (age_s := sink.oldest_s()) > STUCK_S
        }
        start = {} if ready else {"start": "not yet"}
        return start | stuck | ({"heartbeat": "lost"} if self._lost() else {})


class SinkMetrics:
    def __init__(self, name: str, counters: dict[str, Counter], oldest: Gauge) -> None:
        self._name, self._counters = name, counters
        self._held_ns: int | None = None
        oldest.labels(name).set_function(self.oldest_s)
        counters["delivered"].labels(name), counters["deferred"].labels(name)
        for failure in FAILURES:
            counters["failed"].labels(name, failure)
        for reason in LeftOut:
            counters["left_out"].labels(name, reason)

    def delivered(self) -> None:
        self._counters["delivered"].labels(self._name).inc()

    def deferred(self) -> None:
        self._counters["deferred"].labels(self._name).inc()

    def failed(self, reason: str) -> None:
        self._counters["failed"].labels(self._name, reason).inc()

    def left_out(self, reason: LeftOut) -> None:
        self._counters["left_out"].labels(self._name, reason).inc()

    @contextmanager
    def holding(self, created_ns: int) -> Iterator[None]:
        """An alert made then is being delivered."""
        self._held_ns = created_ns
        try:
            yield
        finally:
            self._held_ns = None

    def oldest_s(self) -> float:
        held_ns = self._held_ns
        return 0.0 if held_ns is None else max(0.0, (time.time_ns() - held_ns) / NS)
