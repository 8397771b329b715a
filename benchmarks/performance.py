"""Runs what measures speed, one after the other, and writes its table into docs/explanation/performance.md.

    python -m benchmarks.performance [--quick] [--only NAME ...] [--page FILE]

Under twenty minutes on two cores that have nothing else to do: the machine's load is told beside its name. Results are
kept in build/bench as JSON, and a run of some benchmarks alone leaves the others' as they were. One that fails is told in
the table, and makes the exit code 1; a goal that is missed does not.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.results import Part, inserted, told

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "explanation" / "performance.md"
RESULTS = ROOT / "build" / "bench"
FAILED = "**Failed:**"
PLACE = "bench"
"""Name of the table's place in the page."""
BUSY = 0.7
"""Of load average at the beginning, all processors together, from which the machine counts as busy."""
PACKAGES = ("torch", "onnxruntime", "numpy", "scipy", "obspy")


@dataclass(frozen=True, slots=True)
class Program:
    name: str
    title: str
    longest_s: float
    after: tuple[str, ...] = ()
    """Those whose results it builds on."""

    def result(self, results: Path) -> Path:
        return results / f"{self.name}.json"

    def command(self, results: Path, *, quick: bool) -> list[str]:
        found = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{self.name}", "--out", str(self.result(results))]
        found += [part for name in self.after for part in (f"--{name}", str(results / f"{name}.json"))]
        return found + ["--quick"] * quick


PROGRAMS = (
    Program("stations", "Stations on one core", 840),
    Program("stages", "Stages", 360, after=("stations",)),
    Program("side_by_side", "Side by side", 600),
    Program("growth", "Growth", 420),
    Program("simulate", "Simulated: past this machine", 300, after=("stations", "stages", "growth")),
    Program("archive", "An archive on one core", 600),
    Program("gpu", "A worker on a GPU", 240),
)


@dataclass(frozen=True, slots=True)
class Machine:
    processor: str
    processors: int
    load: float
    """Average of the minute before."""
    versions: str
    when: str

    @staticmethod
    def here() -> Machine:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        return Machine(
            processor=found[1] if found else platform.machine(),
            processors=len(os.sched_getaffinity(0)),
            load=os.getloadavg()[0],
            versions=", ".join(f"{name} {version(name)}" for name in PACKAGES),
            when=f"{datetime.now(UTC):%d %B %Y}",
        )

    @property
    def is_busy(self) -> bool:
        return self.load > BUSY

    def __str__(self) -> str:
        seen = f"{self.processor}, {self.processors} processors seen"
        said = f"Measured on {self.when}: {seen}, Python {platform.python_version()}, {self.versions}."
        if self.is_busy:
            said += (
                f" **The machine was busy** (load average {self.load:.1f} at the beginning): "
                "figures are worse than it can do."
            )
        return said


def content(machine: Machine, parts: Sequence[Part]) -> str:
    """What stands in the page."""
    missed = told(parts)
    goals = sum(line.reached is not None for part in parts for line in part.lines)
    summary = f"{goals - len(missed)} of {goals} goals reached."
    return "\n\n".join([str(machine), summary, *(part.markdown() for part in parts)])


def run(program: Program, results: Path, *, quick: bool) -> Part:
    """What it found; what went wrong stands in the notes."""
    result = program.result(results)
    result.unlink(missing_ok=True)
    begun_s = time.monotonic()
    fault = _fault(program.command(results, quick=quick), program.longest_s)
    print(f"{program.title}: {time.monotonic() - begun_s:.0f} s\n", flush=True)
    if fault is None and result.exists():
        return Part.read(result)
    part = Part(program.title, notes=(f"{FAILED} {fault or 'it wrote nothing'}",))
    part.write(result)
    return part


def _fault(command: Sequence[str], longest_s: float) -> str | None:
    """What went wrong. It has a process group of its own: servers and daemons that it started end with it."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, cwd=ROOT, stderr=errors, start_new_session=True)
        try:
            code = process.wait(longest_s)
        except subprocess.TimeoutExpired:
            return f"it took longer than {longest_s:g} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        errors.seek(0)
        said = errors.read().strip()
    if not code:
        return None
    sys.stderr.write(f"{said}\n")
    return said.splitlines()[-1] if said else f"exit code {code}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="seconds each: does it run? Writes no page but --page's")
    parser.add_argument("--only", nargs="+", choices=[program.name for program in PROGRAMS], metavar="NAME")
    parser.add_argument("--page", type=Path, help=f"{PAGE.relative_to(ROOT)} if not given")
    chosen = parser.parse_args(arguments)
    results = RESULTS / "quick" if chosen.quick else RESULTS
    machine, parts = Machine.here(), []
    for program in PROGRAMS:
        if chosen.only is None or program.name in chosen.only:
            parts.append(run(program, results, quick=chosen.quick))
        elif program.result(results).exists():
            parts.append(Part.read(program.result(results)))
    page = chosen.page or (None if chosen.quick else PAGE)
    if page is not None:
        page.write_text(inserted(page.read_text(), PLACE, content(machine, parts)))
    print("missed: " + "; ".join(told(parts)) if told(parts) else "no goal was missed")
    return int(any(note.startswith(FAILED) for part in parts for note in part.notes))


if __name__ == "__main__":
    raise SystemExit(main())
