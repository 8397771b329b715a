"""How many stations one core watches in real time, and what it is like at four fifths of that.

    python -m benchmarks.stations [--quick] [--out FILE]

SeedLink over TCP in, Valkey out; three channels at 100 Hz a station, a window a second. The daemon keeps to one
processor, all else to another. Stations join step by step until the windows that it has not scored are a second's; the
figure is the last step that it ended less than that behind. Then a new daemon watches four fifths of them: from its
start to ready, from a packet to its alert, memory. Judges nothing but the goals.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.load import RATE, Load, Server, completed_ns, serving
from benchmarks.results import Line, Part, at_least, at_most, plain
from benchmarks.running import DAEMON, Memory, Running, configure, cpu_s, processors, valkey
from quake.alerts import Alert, AlertSubscriber, Keys, Kind, Mode
from quake.artifact import CompiledModel, export_onnx
from quake.times import NS
from quake.versions import ZOO

BUILD = Path(__file__).parents[1] / "build" / "bench"
SHARE = 0.8
"""Of the load that it can bear, at which latency and memory are looked at."""
GROWTH = 1.04
"""From one step to the next."""
FIRST, LAST = 0.5, 1.3
"""Of what the model alone could score: the first step and the last."""
SETTLE_S = 10.0
"""After a start nothing counts for so long: twenty seconds of data of every station come at once."""
CATCH_UP_S = 45.0
"""The same at the load of `SHARE`, where little is left to catch up with what came meanwhile."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, and what is to be reached with it."""

    name: str
    path: Path
    stations: int
    memory_mb: float
    """Without its stations, of which each may take one more."""
    ready_s: float
    onnx: bool = False


def hybrid() -> Subject:
    return Subject("HybridViT, TorchScript", ZOO / "detector.pt", 250, 600.0, 5.0)


def efficientnet() -> Subject:
    """Of the zoo's file as it is now; exported once."""
    shipped = ZOO / "detector-efficientnet.pt"
    path = BUILD / f"{shipped.stem}-{hashlib.sha256(shipped.read_bytes()).hexdigest()[:12]}.onnx"
    if not path.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        path.write_bytes(export_onnx(shipped))
    return Subject("EfficientNet-B0, ONNX Runtime", path, 600, 250.0, 2.0, onnx=True)


def windows_a_second(path: Path, seconds: float, batch: int = 16) -> float:
    """Of transform and network alone, on one thread."""
    model = CompiledModel.load(path, "cpu", threads=1)
    windows = np.random.default_rng(0).standard_normal((batch, *model.spec.window_shape)).astype(np.float32)
    model.warm_up((batch,))
    begun_s, count = time.perf_counter(), 0
    while time.perf_counter() - begun_s < seconds:
        model.predict(windows)
        count += batch
    return count / (time.perf_counter() - begun_s)


def steps(alone: float) -> tuple[int, ...]:
    """Stations of each step, for a model that scores so many windows a second alone."""
    found = [max(1, round(FIRST * alone))]
    while found[-1] < LAST * alone:
        found.append(max(found[-1] + 1, round(GROWTH * found[-1])))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Step:
    stations: int
    behind_s: float
    """Windows not scored, over those that come in a second."""
    windows_a_second: float


def held(found: Sequence[Step], most_s: float = 1.0) -> int:
    """Stations of the last step before the first that ended so far behind; 0 where that was the first."""
    good = 0
    for step in found:
        if step.behind_s >= most_s:
            break
        good = step.stations
    return good


@dataclass(frozen=True, slots=True)
class Place:
    """Where daemons run, one after the other."""

    folder: Path
    redis: str
    cpu: int

    def prefix(self) -> str:
        return f"{{quake}}:bench-{time.time_ns()}"


@contextmanager
def place() -> Iterator[Place]:
    daemon_cpu, other_cpu = processors()
    with tempfile.TemporaryDirectory() as folder, valkey(other_cpu) as url:
        yield Place(Path(folder), url, daemon_cpu)


@contextmanager
def watching(
    at: Place, model: Path, load: Load, prefix: str, command: Sequence[str] = DAEMON
) -> Iterator[tuple[Server, Running]]:
    with serving(load) as server:
        config = configure(at.folder, at.redis, prefix, model, server.address, load.select, load.hop_s)
        with Running(config, at.cpu, command) as daemon:
            yield server, daemon


def behind(server: Server, daemon: Running, rate: float) -> tuple[float, float]:
    """Seconds behind, and the windows scored so far. The metrics are asked first: what comes meanwhile does not count."""
    due = server.windows
    scored = daemon.metrics().get("quake_windows_scored_total", 0.0)
    return max(0.0, due - scored) / rate, scored


def ramp(at: Place, subject: Subject, counts: tuple[int, ...], step_s: float) -> list[Step]:
    """Until it is a second behind at the end of a step; ``counts``: stations of each."""
    load = Load(counts, step_s, cpu=processors()[1])
    found: list[Step] = []
    with watching(at, subject.path, load, at.prefix()) as (server, daemon):
        daemon.ready_s()
        before, before_s = behind(server, daemon, 1.0)[1], time.monotonic()
        for number, stations in enumerate(load.steps):
            time.sleep(max(0.0, server.begun_s + (number + 1) * step_s - 0.5 - time.time()))
            late_s, scored = behind(server, daemon, stations / load.hop_s)
            now_s = time.monotonic()
            found.append(Step(stations, late_s, (scored - before) / (now_s - before_s)))
            before, before_s = scored, now_s
            print(
                f"  {stations} stations: {late_s:.2f} s behind, {found[-1].windows_a_second:.0f} windows/s", flush=True
            )
            if late_s >= 1.0 and number:  # the first step has all that comes with a start
                break
    return found


@dataclass(slots=True)
class Loaded:
    """A daemon at a load that it can bear."""

    ready_s: float
    memory: Memory
    cores: float
    """Processor time of the daemon, a second."""
    server_cores: float
    behind_s: float
    latencies_s: list[float] = field(default_factory=list)
    """From the last packet that a deciding window needs, written by the server, to the alert read."""


@contextmanager
def listening(at: Place, prefix: str) -> Iterator[list[tuple[Alert, int]]]:
    heard: list[tuple[Alert, int]] = []
    keys = Keys.of(Mode.LIVE, prefix)
    with AlertSubscriber(at.redis, keys=keys, kinds=(Kind.DETECTION,), last_id="0", heartbeat_s=None) as subscriber:
        thread = threading.Thread(target=lambda: heard.extend((one, time.time_ns()) for one in subscriber))
        thread.start()
        try:
            yield heard
        finally:
            subscriber.stop()
            thread.join()


def loaded(at: Place, subject: Subject, stations: int, seconds: float) -> Loaded:
    load = Load((stations,), CATCH_UP_S + seconds + 30.0, cpu=processors()[1])
    prefix = at.prefix()
    with listening(at, prefix) as heard, watching(at, subject.path, load, prefix) as (server, daemon):
        ready_s = daemon.ready_s()
        time.sleep(CATCH_UP_S)
        counted_ns, begun_s = time.time_ns(), time.monotonic()
        before = cpu_s(daemon.pid), cpu_s(server.pid)
        time.sleep(seconds)
        taken_s = time.monotonic() - begun_s
        cores, server_cores = (
            (cpu_s(pid) - was) / taken_s for pid, was in zip((daemon.pid, server.pid), before, strict=True)
        )
        found = Loaded(ready_s, Memory.of(daemon.pid), cores, server_cores, behind(server, daemon, stations)[0])
        written = server.loud()
    found.latencies_s = list(latencies_s(heard, written, counted_ns))
    return found


def latencies_s(
    heard: Sequence[tuple[Alert, int]], written: dict[str, list[tuple[int, int, int]]], since_ns: int
) -> Iterator[float]:
    """Of the alerts whose deciding packet was written since then."""
    for alert, at_ns in heard:
        station = alert.stations[0].source_id.split("_")[1]
        done_ns = completed_ns(written.get(station, []), (alert.off_time or alert.on_time) * RATE // NS)
        if done_ns is not None and done_ns >= since_ns:
            yield (at_ns - done_ns) / NS


def lines(subject: Subject, count: int, alone: float, sustained: float, found: Loaded, stations: int) -> list[Line]:
    name = subject.name
    per_core = [at_least(f"{name}: stations in real time on one core, hop 1 s", count, subject.stations)]
    per_core.append(plain(f"{name}: transform and network alone, batches of 16", alone, "windows/s"))
    per_core.append(plain(f"{name}: most that the daemon scored in a step", sustained, "windows/s"))
    at_load = f"{name}, {stations} stations"
    latency = (
        [
            at_most(f"{at_load}: packet to alert, median of {len(found.latencies_s)}", 1000 * middle, 300, "ms")
            for middle in [float(np.median(found.latencies_s))]
        ]
        + [
            at_most(f"{at_load}: packet to alert, 99th percentile", 1000 * high, 1000, "ms")
            for high in [float(np.quantile(found.latencies_s, 0.99))]
        ]
        if found.latencies_s
        else [Line(f"{at_load}: packet to alert", "no alert came", "median at most 300 ms", reached=False)]
    )
    most_mb = subject.memory_mb + stations
    memory = [at_most(f"{at_load}: resident memory", found.memory.now_mb, most_mb, "MB")]
    if subject.onnx:
        memory.append(
            Line(
                f"{at_load}: torch",
                "loaded" if found.memory.torch else "not loaded",
                "not loaded",
                not found.memory.torch,
            )
        )
    return [
        *per_core,
        *latency,
        *memory,
        at_most(f"{at_load}: from its start to /readyz", found.ready_s, subject.ready_s, "s"),
        plain(f"{at_load}: processor time of the daemon, a second", found.cores, "s"),
        plain(f"{at_load}: of the server of this benchmark", found.server_cores, "s"),
    ]


def measured(at: Place, subject: Subject, quick: bool) -> tuple[list[Line], dict[str, float]]:
    """And, by names, the stations of the load at which latency was looked at, the most that there can be, and memory."""
    alone = windows_a_second(subject.path, 0.3 if quick else 3.0)
    found = ramp(at, subject, (2, 3) if quick else steps(alone), 5.0 if quick else 8.0)
    stations = max(1, int(SHARE * held(found)))
    at_load = loaded(at, subject, stations, 3.0 if quick else 75.0)
    sustained = max(step.windows_a_second for step in found)
    values = {
        subject.name: stations,
        f"{subject.name}: most": held(found),
        f"{subject.name}: memory_mb": at_load.memory.now_mb,
    }
    return lines(subject, held(found), alone, sustained, at_load, stations), values


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="four stations for seconds: does it run?")
    parser.add_argument("--out", type=Path, help="the lines as JSON")
    chosen = parser.parse_args(arguments)
    found: list[Line] = []
    borne: dict[str, float] = {}
    with place() as at:
        for subject in (hybrid(), efficientnet()):
            told, values = measured(at, subject, chosen.quick)
            found += told
            borne |= values
    part = Part("Stations on one core", tuple(found), values=borne)
    part.tell(chosen.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
