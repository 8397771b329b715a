"""How large and how fast the networks are, as a station box runs them, and the documents' efficiency table measured again.

    python benchmarks/networks.py [--quick]

Prints two Markdown tables. The first has VGG16, the old baseline, beside EfficientNet-B0 and ConvNeXt-Tiny at 224 x 224:
one call of each, in turn, over and over, so that whatever else the machine does falls on all alike; the peak of memory is
that of a process which loads the compiled network and answers once. The second has every network of `quake.models` at its
input size, on one thread. Weights are random: neither time nor memory depends on them. Multiply-adds are half of what
`torch.utils.flop_counter` counts, on the meta device, where it sees attention too (on a CPU it does not). Networks run
as `quake.artifact` runs them: traced, frozen, optimised. Judges nothing. Linux only: the peak is read from /proc.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from quake.backends.torchscript import TorchScript, jit, quiet

DETECTOR_SHAPE = (3, 33, 64)
IMAGE_SHAPE = (3, 224, 224)
WARM_UP = 3
"""Calls of a shape before its time counts: torch's profiling executor compiles within the first two."""
CELL_S = 20.0
"""A cell of the second table takes about this long at most: slow networks are called less often, three times at least."""
LONGEST_S = 60.0
"""What would take longer in all is left out."""
LEAST_RUNS = 3


@dataclass(frozen=True, slots=True)
class Subject:
    """A network to be measured; ``build`` makes it anew, with random weights."""

    name: str
    shape: tuple[int, int, int]
    build: Callable[[], nn.Module]


@dataclass(frozen=True, slots=True)
class Size:
    parameters: int
    multiply_adds: int
    weight_bytes: int
    """Of parameters and buffers in float32."""


def baselines() -> list[Subject]:
    """The documents' three, each with the head it is used with."""
    from torchvision.models import vgg16

    from quake.models import ConvNeXtMultiTask, EfficientNet

    return [
        Subject("VGG16 (torchvision, 1000 classes)", IMAGE_SHAPE, vgg16),
        Subject("EfficientNet-B0", IMAGE_SHAPE, partial(EfficientNet, pretrained=False)),
        Subject("ConvNeXt-Tiny, two heads", IMAGE_SHAPE, partial(ConvNeXtMultiTask, pretrained=False)),
    ]


def products(convnext: Sequence[str]) -> list[Subject]:
    """Detectors at 33 x 64, characterisers at 224 x 224. DeiT's networks have the shapes of ViT's."""
    from quake.models import Backbone, ConvNeXtMultiTask, EfficientNet, EfficientNetBackbone, HybridViT

    subjects = []
    for backbone, depth in itertools.product((Backbone.TINY, Backbone.SMALL, Backbone.BASE), (4, 12)):
        hybrid = partial(HybridViT, backbone, depth, pretrained=False)
        subjects.append(Subject(f"HybridViT {backbone.name}, depth {depth}", DETECTOR_SHAPE, hybrid))
    for efficient in EfficientNetBackbone:
        build = partial(EfficientNet, efficient, pretrained=False)
        subjects.append(Subject(f"EfficientNet {efficient.name}", DETECTOR_SHAPE, build))
    for variant in convnext:
        characteriser = partial(ConvNeXtMultiTask, variant, pretrained=False)
        subjects.append(Subject(f"ConvNeXtMultiTask {variant}", IMAGE_SHAPE, characteriser))
    return subjects


def size_of(subject: Subject) -> Size:
    """Without memory for weights: on the meta device."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network = subject.build().eval()
        network(torch.empty(1, *subject.shape))
    tensors = itertools.chain(network.parameters(), network.buffers())
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Size(parameters, counter.get_total_flops() // 2, sum(t.numel() * t.element_size() for t in tensors))


def compiled(subject: Subject) -> TorchScript:
    return TorchScript(_traced(subject), "cpu")


def _traced(subject: Subject) -> torch.jit.ScriptModule:
    with quiet(), torch.no_grad():
        traced: torch.jit.ScriptModule = jit.trace(subject.build().eval(), _images(subject, 2), check_trace=False)
    return traced


def _images(subject: Subject, batch: int) -> torch.Tensor:
    return torch.rand(batch, *subject.shape, generator=torch.Generator().manual_seed(0))


def call_s(network: TorchScript, images: np.ndarray, threads: int) -> float:
    torch.set_num_threads(threads)
    start_s = time.perf_counter()
    network.logits(images)
    return time.perf_counter() - start_s


def peak_bytes(file: Path | None, shape: tuple[int, int, int]) -> int:
    """Run in a process of its own: the most memory it ever had resident, with the network loaded and used once."""
    torch.set_num_threads(1)
    if file is not None:
        with quiet():
            network = TorchScript(jit.load(str(file), map_location="cpu"), "cpu")
        network.logits(np.zeros((1, *shape), np.float32))
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def peak_of(subject: Subject | None) -> int:
    """Of a fresh process; None: one that has imported torch and nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        file = None
        if subject is not None:
            file = Path(folder, "network.pt")
            with quiet():
                jit.save(_traced(subject), str(file))
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(peak_bytes, file, subject.shape if subject else IMAGE_SHAPE).result()


def interleaved(subjects: Sequence[Subject], batches: Sequence[int], threads: Sequence[int], runs: int) -> np.ndarray:
    """(runs, subjects, batches, threads) seconds a call; each run calls every combination once, in turn."""
    networks = [compiled(subject) for subject in subjects]
    images = [[_images(subject, batch).numpy() for batch in batches] for subject in subjects]
    seconds = np.empty((WARM_UP + runs, len(subjects), len(batches), len(threads)))
    for run, s, b, t in np.ndindex(seconds.shape):
        seconds[run, s, b, t] = call_s(networks[s], images[s][b], threads[t])
    return seconds[WARM_UP:]


def alone(network: TorchScript, subject: Subject, batch: int, runs: int) -> np.ndarray | None:
    """(runs,) seconds a call on one thread; None where that would take too long."""
    images = _images(subject, batch).numpy()
    first = call_s(network, images, 1)
    if first * (WARM_UP + LEAST_RUNS) > LONGEST_S:
        return None
    for _ in range(WARM_UP - 1):
        first = min(first, call_s(network, images, 1))
    runs = min(runs, max(LEAST_RUNS, int(CELL_S / first)))
    return np.array([call_s(network, images, 1) for _ in range(runs)])


def cell(seconds: np.ndarray | None, windows: int = 1) -> str:
    """Milliseconds a window: least / median / 90th percentile."""
    if seconds is None:
        return "over a minute"
    low, middle, high = (1000 * float(q) / windows for q in np.quantile(seconds, [0.0, 0.5, 0.9]))
    digits = 2 if middle < 10 else 1 if middle < 100 else 0
    return " / ".join(f"{value:.{digits}f}" for value in (low, middle, high))


def row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def head(*titles: str) -> None:
    row(*titles)
    row(*("---" for _ in titles))


def side_by_side(runs: int, batches: Sequence[int], threads: Sequence[int]) -> None:
    subjects = baselines()
    seconds = interleaved(subjects, batches, threads, runs)
    pairs = list(itertools.product(enumerate(threads), enumerate(batches)))
    columns = [f"{count} thread{'s' * (count > 1)}, batch {batch}" for (_, count), (_, batch) in pairs]
    bare = peak_of(None)
    print(
        f"\nms a call, least / median / 90th percentile of {runs}; a process with torch alone peaks at {bare / 1e6:.0f} MB\n"
    )
    head("network, 224 x 224", "parameters", "multiply-adds, G", "weights, MB", "peak resident, MB", *columns)
    for s, subject in enumerate(subjects):
        size = size_of(subject)
        times = (cell(seconds[:, s, b, t]) for (t, _), (b, _) in pairs)
        peak = f"{peak_of(subject) / 1e6:.0f}"
        row(*name_and_size(subject, size, 1e9), peak, *times)


def variants(subjects: Sequence[Subject], runs: int, batches: Sequence[int]) -> None:
    print(f"\nms a window on one thread, least / median / 90th percentile of at most {runs} calls\n")
    head("network", "parameters", "multiply-adds, M", "weights, MB", *(f"batch {batch}" for batch in batches))
    for subject in subjects:
        network = compiled(subject)
        times = (cell(alone(network, subject, batch, runs), batch) for batch in batches)
        row(*name_and_size(subject, size_of(subject), 1e6), *times)


def name_and_size(subject: Subject, size: Size, unit: float) -> tuple[str, str, str, str]:
    digits = 2 if unit == 1e9 else 1
    return (
        subject.name,
        f"{size.parameters:,}",
        f"{size.multiply_adds / unit:,.{digits}f}",
        f"{size.weight_bytes / 1e6:.1f}",
    )


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return f"{name}, {os.cpu_count()} cores, torch {torch.__version__}; load average at the beginning {load}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="two calls each, the smallest ConvNeXt alone: does it run?"
    )
    parser.add_argument("--runs", type=int, default=30)
    arguments = parser.parse_args()
    print(machine())
    if arguments.quick:
        side_by_side(2, (1,), (1,))
        variants(products(("atto",)), 2, (1,))
        return
    side_by_side(arguments.runs, (1, 8), (1, 2))
    convnext = ("atto", "femto", "pico", "nano", "tiny", "small", "base", "large", "xlarge")
    variants(products(convnext), arguments.runs, (1, 8, 32))


if __name__ == "__main__":
    main()
