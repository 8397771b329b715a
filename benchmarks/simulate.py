"""What networks need that are larger than this machine: a simulation (`benchmarks.simulated`) of what was measured on it.

    python -m benchmarks.simulate [--stages FILE] [--stations FILE] [--growth FILE] [--quick] [--out FILE]

The costs of a packet and a window are those that `benchmarks.stages` found; those of a batch, of an alert in Redis (the
publisher's script) and of coincidence (the class) are measured here. First the simulated daemon is held against the real
one, by what `benchmarks.stations` and `benchmarks.growth` found; then fleets of it watch up to 100,000 stations. What is
not here: the network between machines, disks, GPUs.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import redis

from benchmarks.load import Load, Releases
from benchmarks.results import Line, Part, number, plain
from benchmarks.running import processors, valkey
from benchmarks.simulated import COMPONENTS, Costs, Pace, borne, storm, watch
from benchmarks.stations import BUILD as RESULTS
from benchmarks.stations import SHARE, Subject, efficientnet, hybrid
from quake.artifact import CompiledModel
from streamer.coincidence import Coincidence, Rules
from streamer.config import WorkerConfig
from streamer.epoch import here
from streamer.stages import NS, Detection
from streamer.worker import SHAPES

FLEETS = (100, 1_000, 10_000, 100_000)
TRUE_TO = 0.25
"""How far a simulated figure may lie from the measured one."""
SECONDS = 60.0
"""Simulated."""
TOGETHER = 400
"""Detections of one event at which coincidence is timed."""
BATCHES_S = 1.5
"""A batch of each shape is timed for so long."""
RECORD_BYTES = 512
BODY = 1_400
"""Bytes of an alert's JSON, as the demonstration's are."""
REVISIONS_A_DAY = 4.0
"""Of a station: two detections, each opened and closed."""


def batch_costs(path: Path, shapes: Sequence[int], seconds: float) -> dict[int, float]:
    """Seconds of transform and network on one thread, by shape."""
    model = CompiledModel.load(path, "cpu", threads=1)
    model.warm_up(shapes)
    found: dict[int, float] = {}
    for shape in shapes:
        windows = np.random.default_rng(0).standard_normal((shape, *model.spec.window_shape)).astype(np.float32)
        spent: list[float] = []
        while len(spent) < 5 or sum(spent) < seconds:
            begun_s = time.thread_time()
            model.predict(windows)
            spent.append(time.thread_time() - begun_s)
        found[shape] = float(np.median(spent))
    return found


def opening(count: int) -> Detection:
    """As a trigger tells it, a hundredth of a second after the one before."""
    onset_ns = 1_700_000_000 * NS + count * NS // 100
    return Detection(
        id=f"{count:08d}-0000-5000-8000-000000000000",
        subject=f"FDSN:XX_{count:05d}__H_H",
        k=count,
        opened_k=count,
        onset_ns=onset_ns,
        decided_ns=onset_ns + NS,
        off_ns=None,
        probability=0.99,
        components="ZNE",
        complete=True,
        received_ns=onset_ns + NS,
        trace=(),
    )


def comparison_s(together: int) -> float:
    """Of coincidence: an opening against one that its event has already."""
    rules = Rules(
        min_stations=3,
        window_ns=3600 * NS,
        speed_km_s=3.0,
        tolerance_ns=2 * NS,
        hold_ns=30 * NS,
        flowing_ns=60 * NS,
        longest_ns=7200 * NS,
    )
    coincidence, begun_s = Coincidence(rules), time.thread_time()
    for count in range(together):
        one = opening(count)
        coincidence.add(one)
        list(coincidence.advance(one.decided_ns))
    return (time.thread_time() - begun_s) / (together * together / 2)


@dataclass(frozen=True, slots=True)
class Redis:
    """Of one revision of an alert."""

    seconds: float
    """The server's processor."""
    bytes: float


def redis_costs(url: str, count: int) -> Redis:
    """By the publisher's script."""
    with redis.Redis.from_url(url, decode_responses=True) as client:
        script = client.register_script(files("streamer").joinpath("publish.lua").read_text())
        epoch = here(client, "{sim}:epoch")
        before = _spent(client)
        for at in range(count):
            names = ["{sim}:alerts", f"{{sim}}:seen:{at}", f"{{sim}}:openings:{at}", "{sim}:epoch", "{sim}:token"]
            outcome = script(keys=names, args=[epoch, at, 0, BODY * "x", "{sim}:channel", 86_400, 0, at, 15_000, ""])
            assert outcome == "sent", outcome
        after = _spent(client)
    return Redis((after[0] - before[0]) / count, (after[1] - before[1]) / count)


def _spent(client: redis.Redis) -> tuple[float, float]:
    """Seconds of its processor, and bytes it holds."""
    info: Mapping[str, float] = client.info()  # type: ignore[assignment]
    return info["used_cpu_user"] + info["used_cpu_sys"], info["used_memory"]


def pace(hop_s: float) -> Pace:
    """Of the defaults, and of the records of `benchmarks.load`."""
    settings = WorkerConfig()
    records = len(Releases(Load((1,), 600.0), 0)) / COMPONENTS
    return Pace(hop_s, 600.0 / records, settings.batch_size, settings.longest_wait_ms / 1000)


def held_against(what: str, simulated: float, measured: float, unit: str) -> Line:
    ratio = simulated / measured if measured else math.inf
    figure = f"{number(simulated)} {unit}, measured {number(measured)}: {ratio:.2f} times"
    return Line(what, figure, f"within {100 * TRUE_TO:g} %", abs(ratio - 1) <= TRUE_TO)


def daemon_costs(name: str, stages: Mapping[str, float], batches: Mapping[int, float]) -> Costs:
    each = {what: stages[f"{name}: {what}"] / 1e6 for what in ("packet", "window", "station")}
    return Costs(**each, batches=batches)


def validation(name: str, costs: Costs, stations: float, growth: Mapping[str, float]) -> list[Line]:
    """The simulated daemon against the real one. ``stations``: what one processor bore; ``growth``: milliseconds a station
    and second at a hop of five seconds, by stations, of which the first tells what an idle daemon takes."""
    at_one = pace(1.0)
    found = [held_against(f"{name}: stations on one core", borne(costs, at_one, SECONDS), stations, "stations")]
    sizes = sorted(int(one) for one in growth if one.isdigit())
    at_five, idle = pace(5.0), 0.0
    for size in sizes:
        cores = watch(replace(costs, idle=idle), at_five, size, SECONDS).cores
        if size == sizes[0]:
            idle = max(0.0, growth[str(size)] / 1000 - cores)
        else:
            found.append(
                held_against(f"{name}: {size} stations, hop 5 s", 1000 * cores / size, growth[str(size)], "ms")
            )
    return found


def fleet(name: str, each: int, memory_mb: float, sizes: Sequence[int]) -> list[Line]:
    """What daemons of so many stations need, ``each`` a processor."""
    kbit_s = COMPONENTS * RECORD_BYTES * 8 / pace(1.0).record_s / 1000
    found: list[Line] = []
    for stations in sizes:
        daemons = math.ceil(stations / each)
        gigabytes, mbit_s = number(daemons * memory_mb / 1000), number(stations * kbit_s / 1000)
        figure = f"{daemons:,} processors, {gigabytes} GB, {mbit_s} Mbit/s of packets"
        found.append(Line(f"{name}: {stations:,} stations, {each} a processor", figure))
    return found


def shared(cost: Redis, compare_s: float, sizes: Sequence[int]) -> list[Line]:
    """What all daemons share, in a day and in a large earthquake."""
    found = [
        plain("Redis: an alert by the publisher's script", 1e6 * cost.seconds, "us of its processor"),
        plain("Redis: an alert on the stream, with what tells repeats", cost.bytes, "bytes"),
        plain("Coincidence: an opening against another of its event", 1e6 * compare_s, "us"),
    ]
    for stations in sizes:
        worst = storm(stations, cost.seconds, compare_s)
        rate = stations / max(worst.arrivals_s, 1.0)
        figure = (
            f"{number(stations * REVISIONS_A_DAY * cost.bytes / 1e6)} MB of alerts a day; {number(rate)} openings/s for "
            f"{number(worst.arrivals_s)} s, {number(100 * rate * cost.seconds)} % of Redis's processor, "
            f"one coincidence {number(worst.event_s)} s behind at the end"
        )
        found.append(Line(f"{stations:,} stations, all in one earthquake", figure))
    return found


def simulated(subject: Subject, chosen: argparse.Namespace, sizes: Sequence[int]) -> list[Line]:
    stages, stations, growth = (Part.read(path).values for path in (chosen.stages, chosen.stations, chosen.growth))
    costs = daemon_costs(
        subject.name, stages, batch_costs(subject.path, SHAPES[:3], 0.05 if chosen.quick else BATCHES_S)
    )
    found = validation(subject.name, costs, stations[f"{subject.name}: most"], growth if subject.onnx else {})
    each = max(1, round(SHARE * borne(costs, pace(1.0), SECONDS)))
    return found + fleet(subject.name, each, stations[f"{subject.name}: memory_mb"], sizes)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("stages", "stations", "growth"):
        path = RESULTS / f"{name}.json"
        parser.add_argument(f"--{name}", type=Path, default=path, help=f"what benchmarks.{name} wrote")
    parser.add_argument("--quick", action="store_true", help="small fleets, costs of a moment: does it run?")
    parser.add_argument("--out", type=Path, help="the lines as JSON")
    chosen = parser.parse_args(arguments)
    with valkey(processors()[1]) as url:
        cost = redis_costs(url, 200 if chosen.quick else 5_000)
    compare_s = comparison_s(100 if chosen.quick else TOGETHER)
    sizes = FLEETS[:2] if chosen.quick else FLEETS
    found = [line for subject in (hybrid(), efficientnet()) for line in simulated(subject, chosen, sizes)]
    found += shared(cost, compare_s, sizes)
    part = Part("Simulated: past this machine", tuple(found))
    part.tell(chosen.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
