"""What the table of ``quake-streamer run`` says: seen on the daemon's hooks and not on Redis, whose faults are told too."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence

from quake.alerts import Alert, Mode, ModelIdentity
from streamer.dashboard.stations import described
from streamer.grid import Grid
from streamer.hooks import Hooks
from streamer.inventory import Stations
from streamer.live.view import View
from streamer.stages import NS, Packet, Refused, Score, Unscored, Unused
from streamer.terminal.table import Fact, Shown

ALERTS = 4
"""The newest that are shown."""
REDIS_SILENT_S = 20.0
"""Four heartbeats."""


class Seen(Hooks):
    """Called from threads of the daemon and of the screen; what each does under the lock is short."""

    def __init__(self, mode: Mode, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._mode, self._clock_s, self._lock = mode, clock_s, threading.Lock()
        self._title, self._grid = "starting", Grid(1, 1, 1)
        self._view = View(self._grid, Stations({}, {}))
        self._expected: Callable[[], Mapping[str, object]] = dict
        self._packets = 0
        self._left_out: dict[str, Counter[str]] = {what: Counter() for what in ("records", "samples", "windows")}
        self._lost: dict[str, str] = {}
        """Server -> why."""
        self._redis_s: float | None = None
        self._redis_fault = ""
        self._alerts: OrderedDict[str, Alert] = OrderedDict()

    def began(self, model: ModelIdentity, grid: Grid, expected: Callable[[], Mapping[str, object]]) -> None:
        with self._lock:
            self._title, self._grid, self._expected = f"{model.name} {model.version}, {self._mode}", grid, expected
            self._view = View(grid, Stations({}, {}))
            self._lost.clear()

    def packet(self, packet: Packet) -> None:
        with self._lock:
            self._packets += 1
            self._view.now_s = self._clock_s()
            self._view.came(packet)

    def refused(self, refused: Refused) -> None:
        with self._lock:
            self._left_out["records"][refused.reason] += 1

    def scored(self, scores: list[Score]) -> None:
        with self._lock:
            self._view.scored((s.window.subject, s.window.k, s.probability) for s in scores)

    def samples_unused(self, channel: str, reason: Unused, count: int) -> None:
        self._unused("samples", channel.rpartition("_")[0], reason, count)

    def windows_unused(self, unscored: Unscored) -> None:
        self._unused("windows", unscored.subject, unscored.reason, unscored.last - unscored.first + 1)

    def _unused(self, what: str, subject: str, reason: Unused, count: int) -> None:
        with self._lock:
            self._left_out[what][reason] += count
            self._view.now_s = self._clock_s()
            self._view.unused(subject, reason, count)

    def state(self, station: str, newest_ns: int, decided_ns: int, fill: float) -> None:
        with self._lock:
            self._view.state(station, newest_ns, decided_ns, fill)

    def behind(self, seconds: float) -> None:
        with self._lock:
            self._view.tell("behind", seconds)

    def overload(self, dropping: bool) -> None:
        with self._lock:
            self._view.tell("dropping", float(dropping))

    def backlog(self, depth: int, oldest_ns: int | None) -> None:
        with self._lock:
            self._view.tell("outbox", depth)

    def source(self, kind: str, server: str, cause: str) -> None:
        with self._lock:
            self._view.source(kind, server)
            if kind == "lost":
                self._lost[server] = cause
            else:
                self._lost.pop(server, None)

    def redis_reachable(self, time_ns: int) -> None:
        self._redis_s, self._redis_fault = self._clock_s(), ""

    def publish_failed(self, cause: str) -> None:
        self._redis_fault = cause

    def committed(self, alerts: list[Alert]) -> None:
        with self._lock:
            for alert in alerts:
                self._alerts[alert.id] = alert
                self._alerts.move_to_end(alert.id)
            while len(self._alerts) > ALERTS:
                self._alerts.popitem(last=False)

    def shown(self, now_s: float) -> Shown:
        expected = self._expected()
        with self._lock:
            self._view.now_s = self._clock_s()
            state = {
                "mode": self._mode,
                "written_s": now_s,
                "window_s": self._grid.window_ns / NS,
                "stations": self._view.stations(expected),
            }
            facts, alerts = self._facts(), tuple(self._alerts.values())
        return Shown(self._title, described([state], {}, now_s), facts, alerts)

    def _facts(self) -> Sequence[Fact]:
        health, up = self._view.health, len(self._view.up)
        return [
            Fact("servers", f"{up} connected", not up),
            *(Fact(server, f"lost: {why}", True) for server, why in self._lost.items()),
            self._redis(),
            Fact("outbox", f"{health.get('outbox', 0):g} to send"),
            Fact("behind", f"{health.get('behind', 0.0):.1f} s"),
            *([Fact("overload:", "windows are dropped", True)] if health.get("dropping") else []),
            Fact("packets", f"{self._packets}"),
            *(Fact(f"{what} left out:", _counted(left)) for what, left in self._left_out.items() if left),
        ]

    def _redis(self) -> Fact:
        if self._redis_fault:
            return Fact("Redis", f"not reachable: {self._redis_fault}", True)
        if self._redis_s is None:
            return Fact("Redis", "not asked yet")
        silent_s = self._clock_s() - self._redis_s
        return Fact("Redis", f"silent for {silent_s:.0f} s", True) if silent_s > REDIS_SILENT_S else Fact("Redis", "ok")


def _counted(left: Counter[str]) -> str:
    return " ".join(f"{reason} {count}" for reason, count in left.most_common())
