"""The daemon with a stopwatch on its stages: ``python -m benchmarks.stopwatch CONFIG --out FILE --after S --seconds S``.

Each stage's own processor time on its thread, without that of stages called from it, and all of each thread's; written as
JSON at the end of the seconds, while the daemon goes on. ``--profile`` writes functions of the pipeline's thread by their
own time instead, when the daemon ends. Nothing of the daemon is changed but that functions are timed: about a microsecond
each time.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import logging
import pstats
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

PIPELINE = "MainThread"


class Stopwatch:
    """Own time of named stages that may call one another, on any number of threads."""

    def __init__(self, clock_ns: Callable[[], int] = time.thread_time_ns) -> None:
        self.clock_ns, self.counts = clock_ns, False
        self.own_ns: dict[str, int] = defaultdict(int)
        self.calls: dict[str, int] = defaultdict(int)
        self.seen: set[str] = set()
        """Stages that ran, whether that counted or not."""
        self._running = threading.local()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            inner: list[int] = getattr(self._running, "inner", None) or [0]
            self._running.inner = inner
            inner.append(0)
            self.seen.add(name)
            begun_ns = self.clock_ns()
            try:
                return function(*arguments, **named)
            finally:
                taken_ns = self.clock_ns() - begun_ns
                own_ns = taken_ns - inner.pop()
                inner[-1] += taken_ns
                if self.counts:
                    self.own_ns[name] += own_ns
                    self.calls[name] += 1

        return call

    def on(self, owner: Any, method: str, name: str) -> None:
        setattr(owner, method, self.timed(name, getattr(owner, method)))


def install(watch: Stopwatch) -> None:
    """On the stages, in the order of the data."""
    from quake.artifact import CompiledModel
    from streamer import pipeline, station
    from streamer.source import buffer, session

    watch.on(session, "decode", "decode")
    watch.on(buffer.Buffer, "put", "hand over")
    watch.on(buffer.Buffer, "take", "hand over")
    watch.on(pipeline.Pipeline, "_insert", "count")
    watch.on(station.Station, "insert", "ring")
    watch.on(station.Station, "_collect", "cut")
    watch.on(CompiledModel, "transform", "transform")
    watch.on(pipeline.Pipeline, "_decide_one", "trigger")
    watch.on(pipeline.Pipeline, "_associate", "coincidence")
    watch.on(pipeline.Pipeline, "_overloaded", "overload")
    watch.on(pipeline.Pipeline, "_commit", "commit")
    watch.on(pipeline.Pipeline, "_tell", "states")
    _on_network(watch)


def _on_network(watch: Stopwatch) -> None:
    """On the backend, which is imported with the model alone: a box without torch shall remain one."""
    from quake.artifact import CompiledModel

    load = CompiledModel.load

    def loading(*arguments: Any, **named: Any) -> CompiledModel:
        model = load(*arguments, **named)
        watch.on(type(model._backend), "logits", "network")
        if model._on_device is not None:  # the transform, too
            watch.on(type(model._on_device), "predict", "network")
        return model

    CompiledModel.load = loading  # type: ignore[method-assign]


def threads_ns() -> dict[str, int]:
    """Processor time of each thread of Python's so far; those of one kind together."""
    found: dict[str, int] = defaultdict(int)
    for thread in threading.enumerate():
        if thread.ident is not None:
            clock = time.pthread_getcpuclockid(thread.ident)
            found[thread.name.split(" ")[0]] += time.clock_gettime_ns(clock)
    return found


def observe(watch: Stopwatch, after_s: float, seconds: float, out: Path) -> None:
    """``after_s``: from the first record that came."""
    while "decode" not in watch.seen:
        time.sleep(0.1)
    time.sleep(after_s)
    before, before_ns, begun_s = threads_ns(), time.process_time_ns(), time.monotonic()
    watch.counts = True
    time.sleep(seconds)
    watch.counts = False
    content = {
        "seconds": time.monotonic() - begun_s,
        "process_ns": time.process_time_ns() - before_ns,
        "threads_ns": {name: ns - before.get(name, 0) for name, ns in threads_ns().items()},
        "own_ns": watch.own_ns,
        "calls": watch.calls,
    }
    _write(out, content)


def _write(out: Path, content: object) -> None:
    """Whole or not at all: somebody waits for it."""
    out.with_suffix(".part").write_text(json.dumps(content))
    out.with_suffix(".part").replace(out)


def profiled(run: Callable[..., None], out: Path) -> Callable[..., None]:
    def call(*arguments: Any) -> None:
        profile = cProfile.Profile(time.thread_time)
        try:
            profile.runcall(run, *arguments)
        finally:
            profile.create_stats()
            _write(out, by_own_time(profile))

    return call


def by_own_time(profile: cProfile.Profile) -> list[tuple[str, int, float]]:
    """(function, calls, seconds of its own), the longest first."""
    stats: Any = pstats.Stats(profile)
    found = [(_named(*place), calls, own_s) for place, (_, calls, own_s, *_) in stats.stats.items()]
    return sorted(found, key=lambda entry: -entry[2])


def _named(file: str, line: int, function: str) -> str:
    return function if file == "~" else f"{Path(file).parent.name}/{Path(file).name} {function}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--after", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--profile", action="store_true")
    asked = parser.parse_args()
    logging.basicConfig(level="INFO")
    from streamer import daemon, pipeline
    from streamer.config import load

    if asked.profile:
        pipeline.Pipeline.run = profiled(pipeline.Pipeline.run, asked.out)  # type: ignore[method-assign]
        return daemon.run(load(asked.config))
    watch = Stopwatch()
    install(watch)
    arguments = (watch, asked.after, asked.seconds, asked.out)
    threading.Thread(target=observe, args=arguments, name="observer", daemon=True).start()
    return daemon.run(load(asked.config))


if __name__ == "__main__":
    sys.exit(main())
