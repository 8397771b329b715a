"""What Prometheus scrapes of an associator, and whether it is well: the face of `streamer.http`. Counts, never decides."""

from __future__ import annotations

import math
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector

from quake.alerts import Alert
from quake.times import NS

HUNG_S = 60.0
"""It comes round several times a second: silent for this long, it hangs."""
REDIS_SILENT_S = 20.0
BEHIND_S = 60.0
"""Events are later by this than they could be."""


class AssociatorMetrics:
    """All series of one associator, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._tick_s = self._redis_s = -math.inf
        self._behind_s = 0.0
        self._holds = self._gauge("holds_lease", "1 while this one associates, 0 while it stands by")
        self._takeovers = self._counter("takeovers", "How often it took the lease")
        self._notes = self._counter("notes", "Notes of shards taken")
        self._unreadable = self._counter("notes_unreadable", "Notes passed over because they cannot be read")
        self._reached = self._gauge("data_timestamp_seconds", "Data time up to which events are decided")
        self._behind = self._gauge("behind_seconds", "Age of the newest note taken in the last round; 0: none waits")
        self._events = Counter(
            "quake_associator_published_total",
            "Event revisions offered to Redis, by outcome",
            ["outcome"],
            registry=self.registry,
        )
        self._fenced = self._counter("fenced", "How often it found another one at work where it thought to be the one")
        self._failures = Counter(
            "quake_associator_failures_total", "Failures of Redis, by cause", ["cause"], registry=self.registry
        )
        for outcome in ("sent", "repeat"):
            self._events.labels(outcome)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"quake_associator_{name}", text, registry=self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"quake_associator_{name}_total", text, registry=self.registry)

    def tick(self) -> None:
        self._tick_s = time.monotonic()

    def reachable(self) -> None:
        """Redis has answered."""
        self._redis_s = time.monotonic()

    def holds(self, now: bool) -> None:
        if now:
            self._takeovers.inc()
        self._holds.set(now)
        self._tell_behind(0)

    def round(self, reached_ns: int, behind_ns: int) -> None:
        self._reached.set(reached_ns / NS)
        self._tell_behind(behind_ns)

    def _tell_behind(self, behind_ns: int) -> None:
        self._behind_s = behind_ns / NS
        self._behind.set(self._behind_s)

    def note(self) -> None:
        self._notes.inc()

    def unreadable(self) -> None:
        self._unreadable.inc()

    def publishing(self, alert: Alert) -> None:
        """About to offer it."""

    def published(self, outcome: str) -> None:
        self._events.labels(outcome).inc()

    def fenced(self) -> None:
        self._fenced.inc()

    def failed(self, cause: str) -> None:
        self._failures.labels(cause).inc()

    def alive(self) -> bool:
        """False once it, having begun, does not come round any more."""
        return math.isinf(self._tick_s) or time.monotonic() - self._tick_s < HUNG_S

    def faults(self, ready: bool) -> dict[str, str]:
        """Why it is not ready: empty when it is. One that stands by is."""
        told = (
            ("start", not ready, "not yet"),
            ("redis", time.monotonic() - self._redis_s > REDIS_SILENT_S, "not reachable"),
            ("load", self._behind_s > BEHIND_S, f"{self._behind_s:.0f} s behind what the shards tell"),
        )
        return {name: text for name, wrong, text in told if wrong}
