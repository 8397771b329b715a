"""Fit the detector: draw windows, change them, and let HybridViT tell earthquakes from noise.

The same seed on the same CPU with the same number of threads gives the same weights. What is not here: choosing
thresholds and measuring skill (`trainer.evaluate`), writing the file (`trainer.compile`).
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from quake.data.spectrogram import SpectrogramShape, spectrogram
from quake.models import Backbone, HybridViT
from trainer.augment import Augmenter
from trainer.windows import Drawer, Record

WINDOW_SAMPLES = 2080
"""20.8 s at 100 Hz: 64 frames of 64 samples every 32."""
DEPTH = 4
LOG_EVERY = 50
SAVE_EVERY = 250

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FitConfig:
    """How the detector is fitted. The defaults made the shipped one."""

    steps: int = 2200
    batch: int = 64
    """Windows a step, half of them earthquakes."""
    rate: float = 5e-4
    """AdamW's learning rate after the warm-up; falls to 0 along a cosine."""
    warm_up: int = 100
    """Steps."""
    weight_decay: float = 0.05
    average: float = 0.995
    """Decay of the moving average of the weights: the average is what is kept."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    smoothing: float = 0.03
    """Label smoothing: some labels are wrong."""
    seed: int = 0
    threads: int = 2


def new_network() -> HybridViT:
    """The detector's network with random weights."""
    return HybridViT(Backbone.TINY, depth=DEPTH, pretrained=False)


def fit(records: Sequence[Record], config: FitConfig, checkpoint: Path | None = None) -> HybridViT:
    """Return the fitted network, weights averaged; ``checkpoint`` is written every SAVE_EVERY steps and at the end."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    maker = Augmenter(Drawer(records, rng), rng, WINDOW_SAMPLES)
    network = new_network().train()
    average = copy.deepcopy(network).eval()
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _share_of_rate(step, config))
    began, total = time.monotonic(), 0.0
    for step in range(1, config.steps + 1):
        total += _train_step(network, optimiser, draw_batch(maker, config.batch), config)
        schedule.step()
        _follow(average, network, min(config.average, step / (step + 10)))
        if step % LOG_EVERY == 0:
            log.info(
                "step %d of %d: loss %.4f, %.0f s", step, config.steps, total / LOG_EVERY, time.monotonic() - began
            )
            total = 0.0
        if checkpoint and (step % SAVE_EVERY == 0 or step == config.steps):
            save_checkpoint(checkpoint, average)
    return average


def draw_batch(maker: Augmenter, size: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(size, 3, 33, 64) spectrograms and their (size,) classes, noise and earthquakes in turn."""
    classes = np.arange(size) % 2
    windows = np.stack([maker.earthquake() if is_event else maker.noise() for is_event in classes])  # (B, 3, N)
    return spectrogram(windows, SpectrogramShape()), classes.astype(np.int64)


def save_checkpoint(path: Path, network: nn.Module) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(network.state_dict(), temporary)
    temporary.replace(path)


def _share_of_rate(step: int, config: FitConfig) -> float:
    if step < config.warm_up:
        return (step + 1) / config.warm_up
    done = (step - config.warm_up) / max(config.steps - config.warm_up, 1)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def _train_step(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    batch: tuple[NDArray[np.float32], NDArray[np.int64]],
    config: FitConfig,
) -> float:
    images, classes = (torch.from_numpy(array) for array in batch)
    loss = functional.cross_entropy(network(images), classes, label_smoothing=config.smoothing)
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), config.clip)
    optimiser.step()
    return float(loss.detach())


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the average towards the network; counters are copied."""
    for kept, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)
