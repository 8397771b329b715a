"""Windows a second, latency and utilisation of a worker on whatever GPU is there; says plainly where none is.

    python -m benchmarks.gpu [MODEL] [--quick] [--device cpu] [--out FILE]

The daemon's own worker, for some seconds at each batch size, in each way there is: transform and network on the GPU as one
CUDA graph, the same launched step by step, and with the transform in NumPy on the processor. How a step's time divides into
copies, transform and network is asked of CUDA's events, while they are launched step by step. What NVML, or else
``nvidia-smi``, says of the GPU stands beside. ``--device cpu`` runs the same steps on the processor, to see that the
program works: its figures say nothing of a GPU.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.results import Line, Part, number
from quake.artifact import CompiledModel
from quake.device import CudaStream, OnDevice, Processor, Stream
from quake.versions import ZOO
from streamer.hooks import Hooks
from streamer.stages import Score, Window
from streamer.worker import SHAPES, Model, Worker

NO_GPU = "no GPU at hand: nothing was measured (torch finds no CUDA device)"
ON_PROCESSOR = (
    "The device's steps on the processor, on one thread: no GPU was asked for, and these figures say nothing of one."
)
SHARED = 20
"""Batches whose steps are timed."""


# -- utilisation


def percent_busy() -> float | None:
    """Of the time just past, as NVML says, or nvidia-smi; None where neither is there."""
    with suppress(Exception):  # torch asks NVML through nvidia-ml-py, which may be missing, as may what it asks for
        return float(torch.cuda.utilization())
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0"]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return float(told) if told.isdigit() else None


@dataclass(slots=True)
class Utilisation:
    """Of a GPU, every half second."""

    asked: Callable[[], float | None] = percent_busy
    pause_s: float = 0.5
    seen: list[float] = field(default_factory=list)
    """Percent."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Utilisation:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(self.pause_s):
            percent = self.asked()
            if percent is None:
                return
            self.seen.append(percent)

    def __str__(self) -> str:
        return f"{np.mean(self.seen):.0f} %" if self.seen else "not known"


# -- ways to score a batch


@dataclass(frozen=True, slots=True)
class InOneStep:
    """A model's face whose `predict` is all on the device."""

    on_device: OnDevice
    device = "cuda"

    def transform(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        raise NotImplementedError

    score = transform

    def predict(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.on_device.predict(windows)


@dataclass(frozen=True, slots=True)
class InTwoSteps:
    """A model's face: NumPy's transform, one copy to wherever the network is, and one back."""

    model: CompiledModel
    device = "cpu"

    def transform(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.model.transform(windows)

    def score(self, spectrograms: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.model.score(spectrograms)

    def predict(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        raise NotImplementedError


def ways(model: CompiledModel, batches: Sequence[int]) -> Mapping[str, Model]:
    """Warm."""
    streams: dict[str, Stream] = (
        {"one CUDA graph": CudaStream(), "step by step": CudaStream(graphs=False)}
        if model.device == "cuda"
        else {"the device's steps": Processor()}
    )
    found: dict[str, Model] = {}
    for name, stream in streams.items():
        on_device = placed(model, stream)
        for batch in batches:
            on_device.warm_up(batch)
        missing = [size for size, recorded in on_device.recorded.items() if not recorded]
        found[f"{name} (not recorded: {missing})" if "graph" in name and missing else name] = InOneStep(on_device)
    return {**found, "transform in NumPy": InTwoSteps(model)}


def placed(model: CompiledModel, stream: Stream) -> OnDevice:
    backend: Any = model._backend
    return OnDevice(backend.network, model.spec, stream)


# -- figures


def windows(count: int, shape: tuple[int, int]) -> list[Window]:
    samples = np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)
    return [Window("FDSN:XX_A0000__H_H", k, one, "ZNE", True, 0) for k, one in enumerate(samples)]


def line(way: str, model: Model, shape: tuple[int, int], batch: int, seconds: float) -> Line:
    worker, batch_windows = Worker(model, batch, Hooks()), windows(batch, shape)
    for _ in range(3):
        worker.score(list(batch_windows))
    calls_s: list[float] = []
    with Utilisation() as used:
        begun_s = time.perf_counter()
        while time.perf_counter() - begun_s < seconds or len(calls_s) < 3:
            call_s = time.perf_counter()
            answer = worker.score(list(batch_windows))  # scores are here when it returns
            calls_s.append(time.perf_counter() - call_s)
    assert len(answer) == batch
    assert all(isinstance(one, Score) for one in answer)
    middle, high = (1000 * float(q) for q in np.quantile(calls_s, [0.5, 0.99]))
    rate = number(batch * len(calls_s) / sum(calls_s))
    figure = f"{rate} windows/s; a batch {middle:.2f} ms, 99th percentile {high:.2f} ms; GPU busy {used}"
    return Line(f"batches of {batch}, {way}", figure)


class Marks:
    """When each step was over, on the device's own clock where it has one."""

    def __init__(self, stream: Stream) -> None:
        self._is_cuda = stream.device.type == "cuda"
        self._marks: list[tuple[str, Any]] = []

    def __call__(self, step: str) -> None:
        if self._is_cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append((step, event))
        else:
            self._marks.append((step, time.perf_counter()))

    def steps_s(self) -> dict[str, float]:
        """Seconds of each but the first, which begins the clock. After all of it is done."""
        pairs = zip(self._marks, self._marks[1:], strict=False)
        return {step: self._between_s(before, after) for (_, before), (step, after) in pairs}

    def _between_s(self, before: Any, after: Any) -> float:
        return before.elapsed_time(after) / 1000 if self._is_cuda else after - before


def shares(model: CompiledModel, stream: Stream, batch: int) -> Line:
    """Of copies, transform and network in what the device does for a batch; ``stream`` records nothing."""
    on_device, total = placed(model, stream), Counter[str]()
    on_device.warm_up(batch)
    samples = np.stack([one.samples for one in windows(batch, model.spec.window_shape)])
    for _ in range(SHARED):
        marks = Marks(stream)
        on_device.predict(samples, marks)
        total.update(marks.steps_s())
    whole = sum(total.values())
    told = ", ".join(f"{step} {100 * s / whole:.0f} %" for step, s in total.items())
    return Line(f"batches of {batch}, shares of {1000 * whole / SHARED:.2f} ms", told)


def named(device: str) -> str:
    return torch.cuda.get_device_name(0) if device == "cuda" else "on the processor"


def measured(path: Path, device: str, batches: Sequence[int], seconds: float) -> Part:
    title = f"A worker on a GPU: {path.stem}"
    if device == "cuda" and not torch.cuda.is_available():
        return Part(title, notes=(NO_GPU,))
    model = CompiledModel.load(path, "cuda" if device == "cuda" else "cpu", threads=1)
    shape, found = model.spec.window_shape, ways(model, batches)
    lines = [line(way, face, shape, batch, seconds) for batch in batches for way, face in found.items()]
    lines += [shares(model, CudaStream(graphs=False) if device == "cuda" else Processor(), size) for size in batches]
    return Part(f"{title}, {named(device)}", tuple(lines), () if device == "cuda" else (ON_PROCESSOR,))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", default=ZOO / "detector.pt")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="small batches, once: does it run?")
    parser.add_argument("--out", type=Path, help="the lines as JSON")
    chosen = parser.parse_args(arguments)
    part = measured(chosen.model, chosen.device, (1, 4) if chosen.quick else SHAPES, 0.0 if chosen.quick else 3.0)
    part.tell(chosen.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
