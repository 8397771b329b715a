"""What Prometheus scrapes, and whether the daemon is well: ``/metrics``, ``/healthz`` and ``/readyz`` on one port.

Hangs on `streamer.hooks`; counts, never decides. Label values are bounded: stations beyond the configured number share ``other``.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

from quake.alerts import Alert, ModelIdentity, Status
from streamer.grid import Grid
from streamer.hooks import Hooks
from streamer.stages import NS, Detection, Packet, Refused, Score, Unscored, Unused

STAGE_SECONDS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
LATENCY_SECONDS = (0.05, 0.1, 0.15, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300)
DIFFERENCES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
REDIS_SILENT_S = 20.0
"""Four heartbeats: Redis is not reachable."""
FLOWING_S = 120.0
"""No window of any station scored for this long: data do not flow, or are of no use."""
OVERLOAD_S = 60.0
"""Windows were dropped less than this ago."""
HUNG_S = 60.0
"""The pipeline looks around several times a second: silent for this long, it hangs."""


class Metrics(Hooks):
    """All series of one daemon, in a registry of its own."""

    def __init__(self, max_stations: int, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # restarts, memory, handles
        self._clock_ns, self._max_stations = clock_ns, max_stations
        self._stations: set[str] = set()
        self._up: set[str] = set()
        self._lock = threading.Lock()
        self.last_score_s = self.last_redis_s = self.last_tick_s = -math.inf
        """On the monotonic clock."""
        self.commits = self._is_associated = True
        self._dropping, self.dropped_s = False, -math.inf
        self._make_intake()
        self._make_scoring()
        self._make_alerts()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"quake_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"quake_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"quake_{name}", text, labels, buckets=buckets, registry=self.registry)

    def _make_intake(self) -> None:
        self._packets = self._counter("packets_total", "Records received", "station")
        self._samples = self._counter("samples_total", "Samples received", "station")
        self._bytes = self._counter("received_bytes_total", "Bytes of records received", "station")
        self._samples_unused = self._counter("samples_unused_total", "Samples not used, by reason", "reason")
        self._records_refused = self._counter(
            "records_refused_total", "Records without usable samples, by reason", "reason"
        )
        self._newest = self._gauge(
            "newest_sample_timestamp_seconds", "Time just after a station's newest sample", "station"
        )
        self._latency = self._gauge("data_latency_seconds", "Newest sample against now", "station")
        self._decided = self._gauge("decided_timestamp_seconds", "End of the newest window decided", "station")
        self._fill = self._gauge("ring_fill_ratio", "Share of the ring that holds samples", "station")
        self._reconnects = self._counter("reconnects_total", "Connections lost or not made, by cause", "cause")
        self._connected = self._gauge("connected_servers", "Servers connected now")
        for reason in Unused:
            self._samples_unused.labels(reason), self._records_refused.labels(reason)

    def _make_scoring(self) -> None:
        self._windows = self._counter("windows_total", "Windows cut, scored or not")
        self._scored = self._counter("windows_scored_total", "Windows scored")
        self._incomplete = self._counter(
            "windows_incomplete_total", "Windows scored without a component, or with one that was bridged", "station"
        )
        self._windows_unused = self._counter("windows_unused_total", "Windows not scored, by reason", "reason")
        self._batch = self._histogram("batch_size", "Windows scored at once", (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024))
        self._stage = self._histogram("stage_seconds", "Time of a stage, for each batch", STAGE_SECONDS, "stage")
        self._queue = self._gauge(
            "queue_depth", "What waits: packets and windows; undecided: packets not acknowledged", "queue"
        )
        self._behind = self._gauge(
            "behind_seconds", "Decisions against the newest samples received, of the slowest station"
        )
        self._overload = self._gauge("overloaded", "1 while windows are dropped, and for a minute after")
        self._overload.set_function(lambda: float(self.overloaded))
        for reason in Unused:
            self._windows_unused.labels(reason)

    def _make_alerts(self) -> None:
        self._detections = self._counter("detections_total", "Detections opened or closed", "status")
        self._held = self._counter("detections_held_total", "Openings not told on their own: too many within a minute")
        self._alerts = self._counter("alerts_total", "Alert revisions committed", "kind", "status")
        self._published = self._counter("published_total", "Alert revisions offered to Redis, by outcome", "outcome")
        self._failures = self._counter(
            "publish_failures_total", "Failed tries to publish, or to ask Redis at the start, by cause", "cause"
        )
        self._heartbeat = self._gauge("heartbeat_timestamp_seconds", "When Redis last took this daemon's heartbeat")
        self._associated = self._gauge(
            "associated", "1 while an associator holds the lease; 0 where none does, or where there is to be none"
        )
        self._commit_failures = self._counter("commit_failures_total", "Failed tries to write the outbox")
        self._depth = self._gauge("outbox_depth", "Alert revisions not yet published")
        self._outbox_bytes = self._gauge("outbox_bytes", "What the outbox fills of the disk, looked at once an hour")
        self._age = self._gauge("outbox_age_seconds", "Age of the oldest of them")
        self._to_alert = self._histogram(
            "alert_latency_seconds", "Of openings, from the deciding packet to Redis' answer", LATENCY_SECONDS
        )
        self._info = Info("quake_model", "The model in use", registry=self.registry)
        self._build = Info("quake_build", "The program", registry=self.registry)
        self._synchronised = self._gauge("clock_synchronised", "1 while this machine's clock is disciplined")
        self._clock_error = self._gauge("clock_error_seconds", "Largest error of this machine's clock, by its kernel")
        self._shadow_up = self._gauge("shadow_up", "1 while a model on trial scores")
        self._shadow_difference = self._histogram(
            "shadow_difference", "Probability of the model on trial against the model's", DIFFERENCES
        )
        self._shadow_detections = self._counter("shadow_detections_total", "Openings, by which model has them", "by")
        for whose in ("both", "model", "shadow"):
            self._shadow_detections.labels(whose)
        self._live_dropped = self._counter(
            "live_dropped_total", "Records and news left out of the web page: a full queue"
        )
        self._reloads = self._counter("reloads_total", "Configurations read anew, by outcome", "outcome")
        for outcome in ("done", "refused"):
            self._reloads.labels(outcome)

    def describe(self, build: Mapping[str, str]) -> None:
        self._build.info(dict(build))

    def began(self, model: ModelIdentity, grid: Grid, expected: Callable[[], Mapping[str, object]]) -> None:
        """Series of stations that are no longer watched would stand still, and look like an outage."""
        self._info.info(model.model_dump())
        for gauge in (self._newest, self._latency, self._decided, self._fill):
            gauge.clear()
        self._stations.clear()
        with self._lock:
            self._up.clear()
            self._connected.set(0)
        self._shadow_up.set(0)
        self._dropping, self.dropped_s = False, -math.inf

    def host_clock(self, is_synchronised: bool, largest_error_s: float) -> None:
        self._synchronised.set(is_synchronised)
        self._clock_error.set(largest_error_s)

    def shadow_scored(self, ours: Score, shadows: Score) -> None:
        self._shadow_up.set(1)
        self._shadow_difference.observe(abs(ours.probability - shadows.probability))

    def shadow_detected(self, whose: str) -> None:
        self._shadow_detections.labels(whose).inc()

    def shadow_ended(self) -> None:
        self._shadow_up.set(0)

    def reloaded(self, outcome: str) -> None:
        self._reloads.labels(outcome).inc()

    def _name(self, subject: str) -> str:
        if subject not in self._stations and len(self._stations) >= self._max_stations:
            return "other"
        self._stations.add(subject)
        return subject.removeprefix("FDSN:")

    def packet(self, packet: Packet) -> None:
        name = self._name(packet.subject)
        self._packets.labels(name).inc()
        self._samples.labels(name).inc(len(packet.samples))
        self._bytes.labels(name).inc(packet.size)

    def refused(self, refused: Refused) -> None:
        self._records_refused.labels(refused.reason).inc()

    def samples_unused(self, channel: str, reason: Unused, count: int) -> None:
        self._samples_unused.labels(reason).inc(count)

    def windows_unused(self, unscored: Unscored) -> None:
        count = unscored.last - unscored.first + 1
        self._windows.inc(count)
        self._windows_unused.labels(unscored.reason).inc(count)

    def scored(self, scores: list[Score]) -> None:
        self.last_score_s = time.monotonic()
        self._windows.inc(len(scores))
        self._scored.inc(len(scores))
        self._batch.observe(len(scores))
        for score in scores:
            if not score.window.complete:
                self._incomplete.labels(self._name(score.window.subject)).inc()

    def detected(self, detection: Detection) -> None:
        self._detections.labels("open" if detection.off_ns is None else "closed").inc()

    def held(self, detection: Detection) -> None:
        self._held.inc()

    def stage(self, name: str, seconds: float) -> None:
        self._stage.labels(name).observe(seconds)

    def state(self, station: str, newest_ns: int, decided_ns: int, fill: float) -> None:
        name = self._name(station)
        self._newest.labels(name).set(newest_ns / NS)
        self._latency.labels(name).set((self._clock_ns() - newest_ns) / NS)
        self._decided.labels(name).set(decided_ns / NS)
        self._fill.labels(name).set(fill)

    def queue(self, packets: int, windows: int, undecided: int) -> None:
        for name, depth in (("packets", packets), ("windows", windows), ("undecided", undecided)):
            self._queue.labels(name).set(depth)

    def behind(self, seconds: float) -> None:
        self._behind.set(seconds)

    def overload(self, dropping: bool) -> None:
        if self._dropping and not dropping:
            self.dropped_s = time.monotonic()
        self._dropping = dropping

    @property
    def overloaded(self) -> bool:
        """Dropping empties a queue in a moment, and a machine that is too slow fills it again: between the two it is as bad."""
        return self._dropping or time.monotonic() - self.dropped_s < OVERLOAD_S

    def committed(self, alerts: list[Alert]) -> None:
        self.commits = True
        for alert in alerts:
            self._alerts.labels(alert.kind, alert.status).inc()

    def commit_failed(self, cause: str) -> None:
        self.commits = False
        self._commit_failures.inc()

    def published(self, alert: Alert, outcome: str) -> None:
        self._published.labels(outcome).inc()
        if outcome == "sent" and alert.status is Status.OPEN:  # what follows is due by data time; no packet decides it
            self._to_alert.observe(max(0.0, (self._clock_ns() - alert.created) / NS + alert.latency.processing_s))

    def publish_failed(self, cause: str) -> None:
        self._failures.labels(cause).inc()

    def redis_reachable(self, time_ns: int) -> None:
        self.last_redis_s = time.monotonic()
        self._heartbeat.set(time_ns / NS)

    def associated(self, is_there: bool) -> None:
        self.last_redis_s = time.monotonic()
        self._is_associated = is_there
        self._associated.set(is_there)

    def backlog(self, depth: int, oldest_ns: int | None) -> None:
        self._depth.set(depth)
        self._age.set(0.0 if oldest_ns is None else (self._clock_ns() - oldest_ns) / NS)

    def outbox_size(self, used_bytes: int) -> None:
        self._outbox_bytes.set(used_bytes)

    def live_dropped(self, count: int) -> None:
        self._live_dropped.inc(count)

    def source(self, kind: str, server: str, cause: str) -> None:
        with self._lock:  # sources have a thread each
            if kind == "connected":
                self._up.add(server)
            else:
                self._up.discard(server)
            self._connected.set(len(self._up))
        if kind != "connected":
            self._reconnects.labels(cause).inc()

    def tick(self) -> None:
        self.last_tick_s = time.monotonic()

    def alive(self) -> bool:
        """False once the pipeline, having begun, does not come round any more."""
        return math.isinf(self.last_tick_s) or time.monotonic() - self.last_tick_s < HUNG_S

    def faults(self, ready: bool) -> dict[str, str]:
        """Why the daemon is not ready: empty when it is."""
        now_s = time.monotonic()
        return {
            name: text
            for name, wrong, text in (
                ("model", not ready, "not yet loaded and warmed up"),
                ("data", now_s - self.last_score_s > FLOWING_S, "no window was scored for two minutes"),
                ("redis", now_s - self.last_redis_s > REDIS_SILENT_S, "not reachable"),
                ("associator", not self._is_associated, "none holds the lease: nobody decides events"),
                ("outbox", not self.commits, "cannot be written"),
                ("load", self.overloaded, "windows are being dropped"),
            )
            if wrong
        }
