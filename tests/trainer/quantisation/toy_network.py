"""A small detector with depthwise convolutions, what it is asked, and its spec."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy

from quake.artifact import ModelSpec, compile_model

SPEC = ModelSpec.model_validate(
    {
        "name": "toy",
        "version": "0.1.0",
        "task": "detect",
        "architecture": "toy",
        "components": ("Z", "N", "E"),
        "sampling_rate_hz": 100.0,
        "window_samples": 1056,
        "stft": {"nperseg": 64, "hop": 32, "window": "hann"},
        "heads": ({"name": "event", "classes": ("noise", "earthquake")},),
        "thresholds": {"on": 0.9, "off": 0.5},
        "training_data": (),
        "skill": ({"data": "toys", "measure": "recall", "value": 0.5},),
    }
)
"""Input (3, 33, 32)."""


def questions(seed: int, count: int = 256) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(N, 3, 33, 32) images of squared noise, and whether a patch of it is raised."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((count, 3, 33, 32))
    classes = rng.integers(2, size=count)
    for index in np.flatnonzero(classes):
        row, column = rng.integers(20, size=2)
        images[index, :, row : row + 12, column : column + 12] += 0.5
    return (np.sign(images) * images**2).astype(np.float32), classes


class Toy(nn.Sequential):
    """(B, 3, H, W) -> (B, 2)."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        first = (nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        last = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2))
        super().__init__(*first, *_separable(8), *_separable(16), *_separable(16), *last)


def _separable(channels: int) -> tuple[nn.Module, ...]:
    depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    pointwise = nn.Conv2d(channels, 16, 1, bias=False)
    return depthwise, nn.BatchNorm2d(channels), nn.ReLU(), pointwise, nn.BatchNorm2d(16), nn.ReLU()


def fitted(seed: int = 0) -> nn.Module:
    network = Toy(seed)
    images, classes = questions(0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for step in range(60):
        chosen = np.random.default_rng([seed, step]).integers(len(images), size=48)
        optimizer.zero_grad()
        cross_entropy(network(torch.from_numpy(images[chosen])), torch.from_numpy(classes[chosen])).backward()
        optimizer.step()
    return network.eval()


def compiled(network: nn.Module, path: Path, spec: ModelSpec = SPEC) -> Path:
    images = np.random.default_rng(5).standard_normal((8, *spec.input_shape)).astype(np.float32)
    path.write_bytes(compile_model(network, spec, images))
    return path
