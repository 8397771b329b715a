"""An hour at full load with the shipped detector, in real time: does the daemon grow, and does it keep up?

    PYTHONPATH=. python tests/end_to_end/full_load.py --stations 200 --minutes 60

The load of `benchmarks.stations`: three channels at 100 Hz a station over TCP, a window a second, a recorded local earthquake a
minute at every tenth station, alerts to a real Valkey and from there to a subscriber; the daemon keeps to one processor.
Resident memory, file handles and threads are read every ten seconds. Exit code 1 where memory grows after the
warm-up, handles or threads change, the daemon falls behind, or no alerts come.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from drill_report import Row, tell
from soak import Sample, look

from benchmarks.load import Load
from benchmarks.running import cpu_s, processors
from benchmarks.stations import behind, hybrid, listening, place, watching

EVERY_S = 10.0
WARM = 0.25
"""Of the run: the warm-up."""
MOST_MB = 2.0
"""From the warm-up to the end of an hour: what its windows would bring at a megabyte for a day of twenty stations with a window
every 5 s, which is what soak.py asks."""
SHORT_MB = 20.0
"""The same of minutes, in which torch and the allocator still settle: that nothing is kept of each window (a score: 26 kB)."""
FULL = 0.75
"""Of a core, from which on it is called full load: the rest is what others of the machine may need."""
MOST_BEHIND_S = 2.0
SABOTAGE = "pipeline.py: each score is kept"


@dataclass(slots=True)
class FullLoad:
    stations: int
    minutes: float
    samples: list[Sample] = field(default_factory=list)
    """Every ten seconds; ``hour`` is the number."""
    behind_s: list[float] = field(default_factory=list)
    cores: float = 0.0
    """Processor time of the daemon, a second."""
    windows: int = 0
    detections: int = 0

    @property
    def warm(self) -> list[Sample]:
        return self.samples[round(WARM * len(self.samples)) :]

    @property
    def growth_mb(self) -> float:
        """By a straight line through all samples after the warm-up."""
        slope = np.polyfit(range(len(self.warm)), [s.resident_mb for s in self.warm], 1)[0]
        return float(slope) * (len(self.warm) - 1)

    @property
    def most_behind_s(self) -> float:
        return max(self.behind_s[round(WARM * len(self.behind_s)) :])

    def faults(self, most_mb: float = MOST_MB) -> list[str]:
        wrong = [f"resident memory grows by {self.growth_mb:.2f} MB"] if self.growth_mb >= most_mb else []
        for name in ("handles", "threads"):
            seen = {int(getattr(s, name)) for s in self.warm}
            if len(seen) > 1:
                wrong.append(f"{name} between {min(seen)} and {max(seen)}")
        if self.most_behind_s >= MOST_BEHIND_S:
            wrong.append(f"{self.most_behind_s:.1f} s behind")
        if not self.detections:
            wrong.append("no alerts")
        return wrong

    def __str__(self) -> str:
        first, last = self.warm[0], self.samples[-1]
        return (
            f"{self.windows} windows, {self.detections} detections; {100 * self.cores:.0f} % of a core; at most "
            f"{self.most_behind_s:.1f} s behind; resident {first.resident_mb:.1f} MB after the warm-up, "
            f"{last.resident_mb:.1f} MB at the end, {self.growth_mb:+.2f} MB by a straight line; "
            f"{last.handles} handles, {last.threads} threads"
        )


def run(stations: int, minutes: float, on_sample: Callable[[Sample, float], None] = lambda *_: None) -> FullLoad:
    found = FullLoad(stations, minutes)
    load = Load((stations,), 60.0 * minutes + 60.0, cpu=processors()[1])
    with place() as at:
        prefix = at.prefix()
        with listening(at, prefix) as heard, watching(at, hybrid().path, load, prefix) as (server, daemon):
            daemon.ready_s()
            begun_s, used_s = time.monotonic(), cpu_s(daemon.pid)
            for number in range(1, round(60.0 * minutes / EVERY_S) + 1):
                time.sleep(max(0.0, begun_s + number * EVERY_S - time.monotonic()))
                # Before the metrics are asked for: their connection is a handle and a thread, too.
                found.samples.append(look(daemon.pid, number))
                late_s, scored = behind(server, daemon, stations)
                found.behind_s.append(late_s)
                found.windows = int(scored)
                on_sample(found.samples[-1], late_s)
            found.cores = (cpu_s(daemon.pid) - used_s) / (time.monotonic() - begun_s)
        found.detections = len({alert.id for alert, _ in heard})
    return found


def row(found: FullLoad, most_mb: float = MOST_MB) -> Row:
    """What `drill_report` is told."""
    load = f"{found.stations} stations, a window a second{', full load' * (found.cores >= FULL)}"
    return Row(
        "time",
        f"{found.minutes:g} minutes in real time (shipped detector, {load})",
        f"resident memory grows by less than {most_mb:g} MB after the warm-up, file handles and threads stay, it keeps up",
        measured=str(found),
        sabotage=SABOTAGE,
    )


def show(sample: Sample, late_s: float) -> None:
    told = f"{sample.hour * EVERY_S / 60:6.1f} min {sample.resident_mb:8.1f} MB {sample.handles:4d} {sample.threads:4d}"
    sys.stdout.write(f"{told} {late_s:6.2f} s\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--stations", type=int, required=True)
    parser.add_argument("--minutes", type=float, default=60.0)
    asked = parser.parse_args()
    found = run(asked.stations, asked.minutes, show)
    tell(row(found))
    faults = found.faults()
    sys.stdout.write(f"{found}\n" + "".join(f"FAULT: {fault}\n" for fault in faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
