"""Windows a second, latency and utilisation of a worker on whatever GPU is there; says plainly where none is.

    python -m benchmarks.gpu [MODEL] [--quick] [--device cpu] [--out FILE]

The daemon's own worker: transform in NumPy, one copy to the device, the network, probabilities back. Each batch size is
run for some seconds; the share of the network and what ``nvidia-smi`` says of the GPU stand beside it. ``--device cpu``
runs the same on the processor, to see that the program works.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from benchmarks.results import Line, Part, number
from quake.artifact import CompiledModel
from quake.versions import ZOO
from streamer.hooks import Hooks
from streamer.stages import Score, Window
from streamer.worker import SHAPES, Worker

NO_GPU = "no GPU at hand: nothing was measured (torch finds no CUDA device)"


@dataclass(slots=True)
class Utilisation:
    """What ``nvidia-smi`` says, every half second."""

    seen: list[float] = field(default_factory=list)
    """Percent."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Utilisation:
        if shutil.which("nvidia-smi") is not None:
            self._thread = threading.Thread(target=self._look, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0"]
        while not self._stop.wait(0.5):
            told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
            if told.isdigit():
                self.seen.append(float(told))

    def __str__(self) -> str:
        return f"{np.mean(self.seen):.0f} %" if self.seen else "not known"


class Timed(Hooks):
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {"transform": 0.0, "network": 0.0}

    def stage(self, name: str, seconds: float) -> None:
        self.seconds[name] += seconds


def windows(count: int, shape: tuple[int, int]) -> list[Window]:
    samples = np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)
    return [Window("FDSN:XX_A0000__H_H", k, one, "ZNE", True, 0) for k, one in enumerate(samples)]


def line(model: CompiledModel, batch: int, seconds: float, synchronise: Callable[[], None] = lambda: None) -> Line:
    hooks = Timed()
    worker, batch_windows = Worker(model, batch, hooks), windows(batch, model.spec.window_shape)
    model.warm_up((batch,))
    hooks.seconds = dict.fromkeys(hooks.seconds, 0.0)
    calls_s: list[float] = []
    with Utilisation() as used:
        begun_s = time.perf_counter()
        while time.perf_counter() - begun_s < seconds or len(calls_s) < 3:
            call_s = time.perf_counter()
            answer = worker.score(list(batch_windows))
            synchronise()
            calls_s.append(time.perf_counter() - call_s)
    assert len(answer) == batch
    assert all(isinstance(one, Score) for one in answer)
    middle, high = (1000 * float(q) for q in np.quantile(calls_s, [0.5, 0.99]))
    share = hooks.seconds["network"] / sum(calls_s)
    figure = (
        f"{number(batch * len(calls_s) / sum(calls_s))} windows/s; a batch {middle:.2f} ms, 99th percentile {high:.2f} ms; "
        f"copies and network {100 * share:.0f} % of it; GPU busy {used if model.device == 'cuda' else 'not asked'}"
    )
    return Line(f"batches of {batch}", figure)


def named(device: str) -> str:
    return torch.cuda.get_device_name(0) if device == "cuda" else "the processor, one thread: no GPU was asked for"


def measured(path: Path, device: str, batches: Sequence[int], seconds: float) -> Part:
    title = f"A worker on a GPU: {path.stem}"
    if device == "cuda" and not torch.cuda.is_available():
        return Part(title, notes=(NO_GPU,))
    model = CompiledModel.load(path, "cuda" if device == "cuda" else "cpu", threads=1)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    lines = tuple(line(model, batch, seconds, wait) for batch in batches)
    return Part(f"{title}, {named(device)}", lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", default=ZOO / "detector.pt")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="small batches, once: does it run?")
    parser.add_argument("--out", type=Path, help="the lines as JSON")
    chosen = parser.parse_args(arguments)
    part = measured(chosen.model, chosen.device, (1, 4) if chosen.quick else SHAPES, 0.0 if chosen.quick else 5.0)
    print(part.markdown())
    if chosen.out:
        part.write(chosen.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
