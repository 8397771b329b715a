"""A small network with two heads, its spec and its windows, and a device that writes down what it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from quake.artifact import ModelSpec
from quake.data.spectrogram import spectrogram
from quake.device import OnDevice, Processor
from quake.probe import probabilities

FIELDS: dict[str, Any] = {
    "name": "toy",
    "version": "1.0.0",
    "task": "characterise",
    "architecture": "two linear heads",
    "components": ("Z", "N", "E"),
    "sampling_rate_hz": 100.0,
    "window_samples": 640,
    "stft": {"nperseg": 64, "hop": 32, "window": "hann"},
    "gain": 1e3,
    "heads": ({"name": "one", "classes": ("a", "b")}, {"name": "two", "classes": ("c", "d", "e")}),
    "calibration": {"method": "temperature", "temperature": 1.7},
    "training_data": (),
}


class TwoHeads(nn.Module):
    """Of images of any size; also a `quake.backends.Backend` on the processor."""

    device = "cpu"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.first, self.one, self.two = nn.Conv2d(3, 8, 3, stride=2), nn.Linear(8, 2), nn.Linear(8, 3)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pooled = torch.tanh(self.first(images)).mean((2, 3))
        return self.one(pooled), self.two(pooled)

    def logits(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        with torch.inference_mode():
            return tuple(head.numpy() for head in self(torch.from_numpy(images)))


NETWORK = TwoHeads().eval()


def spec(**changes: object) -> ModelSpec:
    return ModelSpec.model_validate({**FIELDS, **changes})


def noise(batch: int, shape: tuple[int, int], seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((batch, *shape)).astype(np.float32)


def by_steps(windows: NDArray[np.float32], of: ModelSpec) -> NDArray[np.float32]:
    """As the processor does it: the transform in NumPy, then the network."""
    return probabilities(NETWORK, of, spectrogram(windows, of.spectrogram))  # type: ignore[arg-type]


def toy(stream: Processor | None = None, **changes: object) -> OnDevice:
    return OnDevice(NETWORK, spec(**changes), stream or Processor())


class Told(Processor):
    """Writes down what it is asked for, on itself alone; what it records it does again by calling it."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.is_current = False

    @contextmanager
    def current(self) -> Iterator[None]:
        self.is_current = True
        try:
            yield
        finally:
            self.is_current = False

    def say(self, what: str) -> None:
        assert self.is_current, f"{what}: on another stream"
        self.said.append(what)

    def wait(self) -> None:
        self.say("wait")

    def record(self, launch: Callable[[], None]) -> Callable[[], None] | None:
        self.say("record")

        def replay() -> None:
            self.say("replay")
            launch()

        return replay
