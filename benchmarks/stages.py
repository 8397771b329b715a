"""Where the daemon's processor time goes: each stage apart, at four fifths of the load that it can bear.

    python -m benchmarks.stages [--quick] [--out FILE] [--stations FILE]

The load of `benchmarks.stations`, whose result ``--stations`` is (else that of half of what the model alone could score).
Microseconds of processor time, each stage on its own thread (`benchmarks.stopwatch`); then the functions of the pipeline's
thread, under cProfile in another run: its overhead is in them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.load import Load
from benchmarks.results import Line, Part, at_most, number, plain
from benchmarks.running import BenchError, Running, processors
from benchmarks.stations import SETTLE_S, Place, Subject, efficientnet, hybrid, place, watching, windows_a_second
from benchmarks.stopwatch import PIPELINE

STATION = ("commit", "states", "web page")
"""Of `WINDOW`, what time asks for and not the window: with a longer hop it stays."""
NETWORK_GOAL = 0.10
"""Share of the process's time that all but the network may take."""
RUNTIMES = ("_call_impl", "onnxruntime")
"""What the networks' calls are named by in a profile."""
PROFILED = 14
"""Functions shown."""
PACKET = ("receive", "decode", "hand over", "count", "ring")
WINDOW = (
    "cut",
    "transform",
    "network",
    "trigger",
    "coincidence",
    "overload",
    "commit",
    "states",
    "loop",
    "publish",
    "web page",
)
TOLD = {
    "receive": "receive: socket, protocol, resume bookkeeping",
    "decode": "decode: miniSEED to samples",
    "hand over": "hand over: the queue between the threads",
    "count": "count: metrics, acknowledgement, page",
    "ring": "ring",
    "cut": "cut: windows on the grid",
    "transform": "transform",
    "network": "network",
    "trigger": "trigger",
    "coincidence": "coincidence",
    "overload": "overload: is it behind",
    "commit": "commit: outbox, once a second",
    "states": "states: metrics of each station, every two seconds",
    "loop": "loop: batching, checks of scores, the rest of the pipeline's thread",
    "publish": "publish: Redis",
    "web page": "web page's thread",
}


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds a second of the daemon's time."""

    packets: float
    """A second."""
    windows: float
    """A second."""
    process: float
    stages: Mapping[str, float]

    @staticmethod
    def of(content: Mapping[str, Any]) -> Spent:
        """What `benchmarks.stopwatch` wrote."""
        taken_ns = content["seconds"] * 1e9
        own = {name: ns / taken_ns for name, ns in content["own_ns"].items()}
        threads = {name: ns / taken_ns for name, ns in content["threads_ns"].items()}
        on_receiving = own.get("decode", 0.0)
        stages = {name: own.get(name, 0.0) for name in (*PACKET, *WINDOW)}
        # What hangs between the threads is on both: it is taken off the one that has more of it, the receiving one.
        stages["receive"] = max(0.0, threads.get("receive", 0.0) - on_receiving - stages["hand over"])
        timed = sum(own.values()) - on_receiving - stages["hand over"]
        stages["loop"] = max(0.0, threads.get(PIPELINE, 0.0) - timed)
        stages["publish"], stages["web page"] = threads.get("publisher", 0.0), threads.get("live", 0.0)
        calls, seconds = content["calls"], content["seconds"]
        return Spent(
            calls.get("decode", 0) / seconds,
            calls.get("trigger", 0) / seconds,
            content["process_ns"] / taken_ns,
            stages,
        )

    @property
    def beside_network(self) -> float:
        """Share of the process's time."""
        return 1 - self.stages["network"] / self.process

    def us(self, stage: str) -> float:
        """Microseconds a packet or a window."""
        return 1e6 * self.stages[stage] / (self.packets if stage in PACKET else self.windows)

    def costs(self, stations: int) -> dict[str, float]:
        """Microseconds a packet, a window but for transform and network, and a second of a station."""
        window = sum(self.us(one) for one in WINDOW if one not in {*STATION, "transform", "network"})
        station = 1e6 * sum(self.stages[one] for one in STATION) / stations
        return {"packet": sum(self.us(one) for one in PACKET), "window": window, "station": station}


def watch(at: Place, subject: Subject, stations: int, seconds: float, *, profile: bool) -> Any:
    """What the stopwatch or the profiler wrote."""
    out = at.folder / "stages.json"
    out.unlink(missing_ok=True)
    command = ["benchmarks.stopwatch", "{config}", "--out", str(out)]
    command += ["--profile"] if profile else ["--after", str(SETTLE_S), "--seconds", str(seconds)]
    load = Load((stations,), SETTLE_S + seconds + 60.0, cpu=processors()[1])
    with watching(at, subject.path, load, at.prefix(), command) as (_, daemon):
        daemon.ready_s()
        if profile:
            time.sleep(SETTLE_S + seconds)
            daemon.stop()
        else:
            _wait(out, daemon, SETTLE_S + seconds + 40.0)
    return json.loads(out.read_text())


def _wait(out: Path, daemon: Running, longest_s: float) -> None:
    end_s = time.monotonic() + longest_s
    while not out.exists():
        if time.monotonic() > end_s:
            raise BenchError(f"the stopwatch wrote nothing within {longest_s:g} s:\n{daemon.log()}")
        time.sleep(0.1)


def lines(name: str, stations: int, spent: Spent) -> list[Line]:
    at = f"{name}, {stations} stations"
    found = [
        at_most(
            f"{at}: all but the network, of the process's time", 100 * spent.beside_network, 100 * NETWORK_GOAL, "%"
        ),
        plain(f"{at}: processor time of the process, a second", spent.process, "s"),
    ]
    for stage in (*PACKET, *WINDOW):
        what = "packet" if stage in PACKET else "window"
        share = 100 * spent.stages[stage] / spent.process
        found.append(Line(f"{at}: {TOLD[stage]}", f"{number(spent.us(stage))} us a {what}, {share:.1f} %"))
    return found


def profile_note(name: str, functions: Sequence[tuple[str, int, float]]) -> str:
    """The network's call apart, the longest of the others in its proportion to all others."""
    others = [entry for entry in functions if not any(name in entry[0] for name in RUNTIMES)]
    total_s = sum(own_s for *_, own_s in others) or 1.0
    rows = [
        f"| `{function}` | {calls:,} | {100 * own_s / total_s:.1f} % |" for function, calls, own_s in others[:PROFILED]
    ]
    head = f"Pipeline's thread under cProfile, {name}: own time of functions, as a share of all but the network."
    return "\n".join([head, "", "| function | calls | share |", "|---|---|---|", *rows])


def borne(path: Path | None, subject: Subject, quick: bool) -> int:
    """Stations to look at."""
    if quick:
        return 4
    if path is not None and path.exists():
        return int(Part.read(path).values[subject.name])
    return max(1, round(0.5 * windows_a_second(subject.path, 3.0)))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="four stations for seconds: does it run?")
    parser.add_argument("--stations", type=Path, help="what benchmarks.stations wrote")
    parser.add_argument("--out", type=Path, help="the lines as JSON")
    chosen = parser.parse_args(arguments)
    found: list[Line] = []
    notes: list[str] = []
    values: dict[str, float] = {}
    with place() as at:
        for subject in (hybrid(), efficientnet()):
            stations = borne(chosen.stations, subject, chosen.quick)
            seconds = 3.0 if chosen.quick else 25.0
            spent = Spent.of(watch(at, subject, stations, seconds, profile=False))
            found += lines(subject.name, stations, spent)
            values |= {f"{subject.name}: {what}": us for what, us in spent.costs(stations).items()}
            profile = watch(at, subject, max(1, stations // 2), seconds / 2, profile=True)
            notes.append(profile_note(f"{subject.name}, {max(1, stations // 2)} stations", profile))
    part = Part("Stages", tuple(found), tuple(notes), values)
    part.tell(chosen.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
