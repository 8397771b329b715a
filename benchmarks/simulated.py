"""A daemon and a fleet of them as discrete events (SimPy), at costs that are given. Pure: measures nothing, reads nothing.

A daemon is one processor. Its stations send a record of each component every few seconds, each at a phase of its own; what
has come is received and cut, and scored in the batches that `streamer.worker.parts` makes. A fleet opens a detection at
each station that a large earthquake's P reaches: alerts queue for Redis, openings for one coincidence.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from streamer.worker import parts

Step = Generator[simpy.Event, Any, None]
COMPONENTS = 3
PHASE = (math.sqrt(5) - 1) / 2
"""Of a record from one station to the next: spreads any number of them evenly."""
NAP_S = 0.001
P_KM_S, SPACING_KM = 6.0, 20.0
"""P runs through a square network with a station each so many kilometres, from its middle."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of one processor."""

    packet: float
    window: float
    """All but transform and network."""
    station: float
    """A second: its metrics, its part of the web page and of the outbox, however many windows it has."""
    batches: Mapping[int, float]
    """Transform and network, by the batch's shape."""
    idle: float = 0.0
    """A second, whatever comes."""

    def batch(self, windows: int) -> float:
        return sum(self.batches[shape] for shape, _ in parts(windows, tuple(sorted(self.batches))))


@dataclass(frozen=True, slots=True)
class Pace:
    """When things come, and how long they wait for one another."""

    hop_s: float
    record_s: float
    batch_size: int
    longest_wait_s: float


@dataclass(slots=True)
class Daemon:
    env: simpy.Environment
    costs: Costs
    pace: Pace
    beside: float
    """Share of the processor that goes to what no packet or window asks for."""
    packets: int = 0
    """That wait."""
    windows: deque[float] = field(default_factory=deque)
    """When the last packet of each window came that waits."""
    waited: list[float] = field(default_factory=list)
    """From a window's last packet to its score, of those scored."""
    busy_s: float = 0.0

    def station(self, number: int) -> Step:
        """All components of a record at once: a window is complete with the last of them."""
        covered_s = cut_s = 0.0
        yield self.env.timeout(number * PHASE % 1 * self.pace.record_s)
        while True:
            self.packets += COMPONENTS
            covered_s += self.pace.record_s
            complete = int((covered_s - cut_s) / self.pace.hop_s)
            cut_s += complete * self.pace.hop_s
            self.windows.extend([self.env.now] * complete)
            yield self.env.timeout(self.pace.record_s)

    def run(self) -> Step:
        while True:
            taken, self.packets = self.packets, 0
            yield from self._work(taken * self.costs.packet)
            if self._is_due():
                came = [self.windows.popleft() for _ in range(min(self.pace.batch_size, len(self.windows)))]
                yield from self._work(self.costs.batch(len(came)) + len(came) * self.costs.window)
                self.waited += [self.env.now - one for one in came]
            elif not taken:
                yield self.env.timeout(NAP_S)

    def _is_due(self) -> bool:
        if not self.windows:
            return False
        is_full = len(self.windows) >= self.pace.batch_size
        return is_full or self.env.now - self.windows[0] >= self.pace.longest_wait_s

    def _work(self, seconds: float) -> Step:
        self.busy_s += seconds
        yield self.env.timeout(seconds / (1 - self.beside))


@dataclass(frozen=True, slots=True)
class Watched:
    """What a daemon came to."""

    cores: float
    behind_s: float
    """Windows not scored at the end, over those that come in a second."""
    median_s: float
    """From a window's last packet to its score."""


def watch(costs: Costs, pace: Pace, stations: int, seconds: float) -> Watched:
    env = simpy.Environment()
    beside = costs.idle + stations * costs.station
    if beside >= 1:
        return Watched(1.0, math.inf, math.inf)
    daemon = Daemon(env, costs, pace, beside)
    for number in range(stations):
        env.process(daemon.station(number))
    env.process(daemon.run())
    env.run(until=seconds)
    median_s = float(np.median(daemon.waited or [math.inf]))
    behind_s = len(daemon.windows) * pace.hop_s / stations
    return Watched(daemon.busy_s / seconds + beside, behind_s, median_s)


def borne(costs: Costs, pace: Pace, seconds: float, most_s: float = 1.0) -> int:
    """Stations that one processor watches with less than ``most_s`` of windows left at the end, to one in a hundred."""
    low, high = 0, 1
    while watch(costs, pace, high, seconds).behind_s < most_s:
        low, high = high, 2 * high
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        is_borne = watch(costs, pace, middle, seconds).behind_s < most_s
        low, high = (middle, high) if is_borne else (low, middle)
    return low


# -- a large earthquake ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Storm:
    """Every station opens as P reaches it."""

    arrivals_s: float
    """From the first opening to the last."""
    event_s: float
    """From the last opening until coincidence had taken it."""


def openings(stations: int) -> NDArray[np.float64]:
    """(stations,) seconds at which P is there, in order."""
    side = math.ceil(math.sqrt(stations))
    x, y = np.meshgrid(*[np.arange(side) - side / 2] * 2)
    return np.asarray(np.sort(np.hypot(x, y).ravel())[:stations] * SPACING_KM / P_KM_S)


def storm(stations: int, alert_s: float, compare_s: float) -> Storm:
    """``alert_s``: of Redis, an alert. ``compare_s``: of coincidence, an opening with one that the event has already."""
    env = simpy.Environment()
    server, associator = simpy.Resource(env), simpy.Resource(env)
    arrivals = openings(stations)
    taken = [0.0]

    def opened(number: int, at_s: float) -> Step:
        yield env.timeout(at_s)
        with server.request() as turn:
            yield turn
            yield env.timeout(alert_s)
        with associator.request() as turn:
            yield turn
            yield env.timeout(compare_s * number)
        taken.append(env.now)

    for number, at_s in enumerate(arrivals):
        env.process(opened(number, float(at_s)))
    env.run()
    return Storm(float(arrivals[-1]), max(taken) - float(arrivals[-1]))
