"""The daemon as a process on one processor, and what the system and its metrics say of it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import redis

from streamer.demo import redis_server

DAEMON = ("streamer", "run", "{config}")
"""A module and its arguments."""
START_S = 180.0
"""On a machine that does much else."""
ROOT = Path(__file__).parents[1]
TICKS = os.sysconf("SC_CLK_TCK")
CONFIGURATION = """\
mode = "live"
state = "state"
daemon = "bench"
{sources}
[redis]
url = "{redis}"
prefix = "{prefix}"
[metrics]
port = 0
[model]
path = "{model}"
sha256 = "{sha256}"
device = "cpu"
[windows]
hop_s = {hop_s}
"""
SOURCE = '[[source]]\nservers = ["{address}"]\nselect = ["{select}"]\n'


class BenchError(Exception):
    """Something did not start, or ended."""


def processors() -> tuple[int, int]:
    """One for the daemon, and one for all else; the same where there is but one."""
    mine = sorted(os.sched_getaffinity(0))
    return mine[-1], mine[0]


@contextmanager
def on_processor(number: int) -> Iterator[None]:
    """What is started meanwhile stays there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {number})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def configure(
    folder: Path, redis_url: str, prefix: str, model: Path, address: str, select: Sequence[str], hop_s: float
) -> Path:
    """A new daemon's: nothing of an earlier one is left."""
    shutil.rmtree(folder / "state", ignore_errors=True)
    sources = "".join(SOURCE.format(address=address, select=one) for one in select)
    path = folder / "bench.toml"
    sha256 = hashlib.sha256(
        model.read_bytes()
    ).hexdigest()  # pinned: opened at once, without a trial in a child process
    path.write_text(
        CONFIGURATION.format(
            sources=sources, redis=redis_url, prefix=prefix, model=model.resolve(), sha256=sha256, hop_s=hop_s
        )
    )
    return path


def cpu_s(pid: int) -> float:
    """Of all threads, as user and as system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@dataclass(frozen=True, slots=True)
class Memory:
    now_mb: float
    most_mb: float
    torch: bool
    """Whether torch's library is mapped."""

    @staticmethod
    def of(pid: int) -> Memory:
        status = Path(f"/proc/{pid}/status").read_text()
        now, most = (int(re.search(rf"{name}:\s+(\d+)", status)[1]) / 1000 for name in ("VmRSS", "VmHWM"))  # type: ignore[index]
        return Memory(now, most, "libtorch" in Path(f"/proc/{pid}/maps").read_text())


class Running:
    """One daemon."""

    def __init__(self, config: Path, processor: int, command: Sequence[str] = DAEMON) -> None:
        self._log = config.with_suffix(".log")
        self.begun_s = time.monotonic()
        with self._log.open("wb") as sink, on_processor(processor):
            self._process = subprocess.Popen(
                [sys.executable, "-m", command[0], *(part.format(config=config) for part in command[1:])],
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                cwd=ROOT,
            )
        self._address = ""

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    def log(self) -> str:
        """Its end."""
        return self._log.read_text()[-2000:]

    def stop(self, timeout_s: float = 60.0) -> None:
        self._process.terminate()
        self._process.wait(timeout_s)

    def _get(self, path: str) -> str | None:
        """None while it cannot answer, or says no."""
        if self._process.poll() is not None:
            raise BenchError(f"the daemon ended with {self._process.returncode}:\n{self.log()}")
        if not self._address:
            found = re.search(r"metrics at (http://[^/]+)/metrics", self._log.read_text())
            self._address = found[1] if found else ""
        with suppress(OSError, urllib.error.HTTPError):
            if self._address:
                with urllib.request.urlopen(self._address + path, timeout=20) as answer:
                    return str(answer.read().decode())
        return None

    def ready_s(self) -> float:
        """From its start to the first yes of /readyz: model warm, windows scored, Redis reached."""
        while self._get("/readyz") is None:
            if time.monotonic() - self.begun_s > START_S:
                raise BenchError(f"not ready within {START_S:g} s:\n{self.log()}")
            time.sleep(0.02)
        return time.monotonic() - self.begun_s

    def metrics(self) -> dict[str, float]:
        """Of the series without a station."""
        text = self._get("/metrics") or ""
        found = re.findall(r'^(quake_\w+(?:\{(?:stage|queue|reason)="\w+"\})?) (\S+)$', text, re.M)
        return {name: float(value) for name, value in found}


@contextmanager
def valkey(processor: int) -> Iterator[str]:
    with on_processor(processor):
        server = redis_server()
        url = server.__enter__()
    try:
        yield url
    finally:
        server.__exit__(None, None, None)


def forget(url: str, prefix: str) -> None:
    """Leave nothing behind on a server that is not ours."""
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(match=f"{prefix}:*"):
            client.delete(key)
