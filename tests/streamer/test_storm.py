"""A large earthquake opens a detection at every station: events stay few, single stations are held to a rate, nothing stalls."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_packets import EPOCH_S
from made_scorer import SERVERS, loud_scorer

from quake.alerts import Alert, Kind, Status
from streamer.coincidence import distance_km
from streamer.composition import compose
from streamer.config import resolve
from streamer.grid import Grid
from streamer.hooks import Hooks
from streamer.inventory import Stations
from streamer.outbox import Outbox, Saved
from streamer.stages import NS, Detection, Packet, Refused, Subscribed
from streamer.storm import MINUTE_NS, Limit
from streamer.trigger import Thresholds

RATE, WINDOW = 20, 80
GRID = Grid(RATE, WINDOW, RATE)
LIMITS = Thresholds(on=0.9, off=0.5, in_a_row=2, release=3, dead_k=15, longest_k=300)
MOST = 60
SECONDS = 100
ORIGIN_S = 20
SIDE = 300.0
"""Kilometres."""


@dataclass
class Network:
    """Packets of a second each, all stations in turn; ``arrival_s`` by station from the recording's start."""

    arrival_s: Mapping[str, float]
    second: int = 0
    slowest_s: float = 0.0
    asked_s: float = field(default_factory=time.perf_counter)
    queued = 0

    def take(self, limit: int, timeout_s: float) -> list[Packet | Refused | Subscribed]:
        """One second of all; how long the pipeline takes between two of them is measured."""
        if self.second:
            self.slowest_s = max(self.slowest_s, time.perf_counter() - self.asked_s)
        taken = [] if self.is_over else [self._packet(name, self.second) for name in self.arrival_s]
        self.second += 1
        self.asked_s = time.perf_counter()
        return list(taken)

    @property
    def is_over(self) -> bool:
        return self.second >= SECONDS

    def _packet(self, name: str, second: int) -> Packet:
        rng = np.random.default_rng([second, int(name.split("_")[1][1:])])
        samples = rng.integers(-10, 10, RATE, dtype=np.int32)
        since = np.arange(RATE) / RATE + second - self.arrival_s[name]
        samples = np.where((since >= 0) & (since < 20), samples * 1000, samples).astype(np.int32)
        start_ns = (EPOCH_S + second) * NS
        return Packet(f"FDSN:{name}__H_H_Z", start_ns, RATE, samples, None, start_ns + NS, 512)  # type: ignore[arg-type]

    def expected(self) -> Mapping[str, frozenset[str]]:
        return {f"FDSN:{name}__H_H": frozenset("Z") for name in self.arrival_s}


class Held(Hooks):
    def __init__(self) -> None:
        self.count = 0

    def held(self, detection: Detection) -> None:
        self.count += 1


def places(count: int) -> dict[str, tuple[float, float]]:
    """Over a square of SIDE kilometres."""
    chance = np.random.default_rng(1)
    return {
        f"XX_S{n:03d}": (float(a), float(b)) for n, (a, b) in enumerate(chance.uniform(0, SIDE / 111.2, (count, 2)))
    }


def arrivals(
    where: Mapping[str, tuple[float, float]], source: tuple[float, float], speed_km_s: float
) -> dict[str, float]:
    """Counted from the first one, which comes at ORIGIN_S."""
    travel_s = {name: distance_km(source, here) / speed_km_s for name, here in where.items()}
    first_s = min(travel_s.values())
    return {name: ORIGIN_S + after_s - first_s for name, after_s in travel_s.items()}


def watched(tmp_path: Path, where: Mapping[str, tuple[float, float]], network: Network, held: Held) -> list[Alert]:
    config = resolve({**SERVERS, "mode": "replay", "trigger": {"most_a_minute": MOST}}, tmp_path / "quake.toml")
    scorer, stations = loud_scorer(100, 1.0, LIMITS, GRID), Stations(where, {})
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        made = compose(
            config, scorer, stations, network, outbox, Saved({}, None, {}), held, lambda: None, may_drop=False
        )
        made.run(lambda: network.is_over)
        return list(outbox.alerts())


@pytest.mark.parametrize(
    ("what", "source", "speed_km_s", "most_events"),
    [
        ("magnitude 7 in the midst", (1.3, 1.3), 6.0, 3),
        pytest.param("teleseism from the south", (-60.0, 1.3), 16.0, 2, marks=pytest.mark.drill),
    ],
)
def test_three_hundred_stations_open_within_a_minute(
    tmp_path: Path, what: str, source: tuple[float, float], speed_km_s: float, most_events: int
) -> None:
    where = places(300)
    network, held = Network(arrivals(where, source, speed_km_s)), Held()
    alerts = watched(tmp_path, where, network, held)
    opened = [a for a in alerts if a.kind is Kind.DETECTION and a.status is Status.OPEN]
    closed = {a.id for a in alerts if a.kind is Kind.DETECTION and a.status is Status.CLOSED}
    a_minute = Counter(a.on_time // MINUTE_NS for a in opened)
    assert max(a_minute.values()) <= MOST
    assert len(opened) + held.count == 300
    assert held.count >= 300 - 2 * MOST
    assert closed <= {a.id for a in opened}, "what was not told is not told to be over"
    events = {a.id for a in alerts if a.kind is Kind.EVENT}
    told = {s.source_id for a in alerts if a.kind is Kind.EVENT for s in a.stations}
    assert 1 <= len(events) <= most_events, what
    assert len(told) > 200, "stations that are not told on their own stand in the event"
    assert network.slowest_s < 5.0, "a second of data held everything up"


@given(st.lists(st.integers(0, 10 * 60 * 10), max_size=200), st.integers(1, 5))
def test_no_minute_has_more_than_allowed_and_none_is_held_below(times: list[int], most: int) -> None:
    limit, told, wanted = Limit(most), Counter[int](), Counter[int]()
    for tenths in times:
        detection = Detection("id", "x", 0, 0, 0, tenths * NS // 10, None, 0.9, "Z", True, 0, ())
        minute = detection.decided_ns // MINUTE_NS
        wanted[minute] += 1
        told[minute] += limit.allows(detection)
    assert told == Counter({minute: min(count, most) for minute, count in wanted.items()})


def test_no_limit() -> None:
    detection = Detection("id", "x", 0, 0, 0, 0, None, 0.9, "Z", True, 0, ())
    assert all(Limit(None).allows(detection) for _ in range(1000))
