"""What one more station costs: 1, 10, 100 and 1,000 of them, and 100 of them over 1, 4 and 16 connections.

    python -m benchmarks.growth [--quick] [--out FILE]

EfficientNet on ONNX Runtime with a window every five seconds, so that one core bears a thousand stations: the scoring is
real. All else is as in `benchmarks.stations`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import Load
from benchmarks.results import Line, Part, number, plain
from benchmarks.running import Memory, cpu_s, processors
from benchmarks.stations import Place, Subject, behind, efficientnet, place, watching

HOP_S = 5.0
STATIONS = (1, 10, 100, 1000)
CONNECTIONS = (4, 16)
SHARED_BY = 100
"""Stations of the comparison of connections."""
SETTLE_S = 12.0
TOLERANCE = 1.1
"""A cost per station that is this many times the lowest before it has not grown: two runs differ by so much."""


@dataclass(frozen=True, slots=True)
class Cost:
    stations: int
    connections: int
    cores: float
    """Processor time of the daemon, a second."""
    memory_mb: float
    behind_s: float
    packets: float
    """A second."""

    @property
    def ms(self) -> float:
        """Of processor time a station and second."""
        return 1000 * self.cores / self.stations


def cost(at: Place, subject: Subject, stations: int, connections: int, seconds: float) -> Cost:
    load = Load((stations,), SETTLE_S + seconds + 40.0, connections, HOP_S, processors()[1])
    with watching(at, subject.path, load, at.prefix()) as (server, daemon):
        daemon.ready_s()
        time.sleep(SETTLE_S)
        before_s, packets, begun_s = cpu_s(daemon.pid), server.packets, time.monotonic()
        time.sleep(seconds)
        taken_s = time.monotonic() - begun_s
        cores, rate = (cpu_s(daemon.pid) - before_s) / taken_s, (server.packets - packets) / taken_s
        late_s, _ = behind(server, daemon, stations / HOP_S)
        return Cost(stations, connections, cores, Memory.of(daemon.pid).now_mb, late_s, rate)


def lines(by_stations: Sequence[Cost], by_connections: Sequence[Cost]) -> list[Line]:
    """A cost per station must not grow: each is held against the lowest of those before it."""
    found: list[Line] = []
    for group, what in (
        (by_stations, "{0.stations} stations"),
        (by_connections, "{0.stations} stations over {0.connections} connections"),
    ):
        lowest = None
        for one in group:
            figure = (
                f"{number(one.ms)} ms a station and second, {number(one.memory_mb)} MB, {one.behind_s:.1f} s behind"
            )
            if lowest is None:
                found.append(Line(what.format(one), figure))
            else:
                goal = f"at most {number(lowest)} ms x {TOLERANCE:g}"
                found.append(Line(what.format(one), figure, goal, one.ms <= TOLERANCE * lowest))
            lowest = one.ms if lowest is None else min(lowest, one.ms)
    if len(by_stations) > 1:
        first, last = by_stations[0], by_stations[-1]
        each_mb = (last.memory_mb - first.memory_mb) / (last.stations - first.stations)
        found.append(plain("memory of one more station", each_mb, "MB"))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two and four stations for seconds: does it run?")
    parser.add_argument("--out", type=Path, help="the lines as JSON")
    chosen = parser.parse_args(arguments)
    seconds = 3.0 if chosen.quick else 15.0
    with place() as at:
        subject = efficientnet()
        stations = (2, 4) if chosen.quick else STATIONS
        by_stations = [cost(at, subject, count, 1, seconds) for count in stations]
        shared = 4 if chosen.quick else SHARED_BY
        alone = next(one for one in by_stations if one.stations == shared)
        by_connections = [alone] + [
            cost(at, subject, shared, count, seconds) for count in ((2,) if chosen.quick else CONNECTIONS)
        ]
    title = f"Growth: {subject.name}, hop {HOP_S:g} s"
    values = {f"{one.stations}": one.ms for one in by_stations} | {"memory_mb": by_stations[-1].memory_mb}
    part = Part(title, tuple(lines(by_stations, by_connections)), values=values)
    part.tell(chosen.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
