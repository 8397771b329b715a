"""The daemon with a detector that needs no network, behind the interface of the compiled ones.

    made_daemon.py CONFIG [--slow-s S --while FILE] [--queue N]

``--slow-s``: each window takes so long while FILE is there. ``--queue``: packets received and not yet placed, at most.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quake.artifact import CompiledModel, Head, ModelSpec, Stft, Thresholds
from streamer import composition, daemon
from streamer.config import load

LOUDER = 1.0
"""Of the logarithm of the amplitude: what the newest second exceeds the window's first half by where odds are even."""
SPEC = ModelSpec(
    name="loud",
    version="1.0.0",
    task="detect",
    architecture="none",
    components=("Z", "N", "E"),
    sampling_rate_hz=20,
    window_samples=416,
    stft=Stft(nperseg=16, hop=8, window="hann"),
    gain=1e5,
    heads=(Head(name="event", classes=("noise", "earthquake")),),
    thresholds=Thresholds(on=0.7, off=0.5),
    training_data=(),
)


class Loud:
    """A backend: hears whether the vertical's newest second is louder than the window's first half."""

    device = "cpu"

    def __init__(self, slow_s: float = 0.0, slow_while: Path | None = None) -> None:
        self._slow_s, self._while = slow_s, slow_while

    def logits(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        if self._while is not None and self._while.exists():
            time.sleep(self._slow_s * len(images))
        vertical = images[:, 0].mean(axis=1, dtype=np.float64)  # (B, 3, F, T) -> (B, T)
        odds = 4 * (vertical[:, -3:].mean(axis=1) - vertical[:, : vertical.shape[1] // 2].mean(axis=1) - LOUDER)
        return (np.stack([-odds / 2, odds / 2], axis=1).astype(np.float32),)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("--slow-s", type=float, default=0.0)
    parser.add_argument("--while", type=Path, dest="slow_while")
    parser.add_argument("--queue", type=int, default=composition.QUEUE_PACKETS)
    asked = parser.parse_args()
    logging.basicConfig(level="INFO")
    model = CompiledModel(Path("loud"), SPEC, "0" * 64, Loud(asked.slow_s, asked.slow_while))
    CompiledModel.load = lambda *_, **__: model  # type: ignore[method-assign]
    composition.QUEUE_PACKETS = asked.queue
    return daemon.run(load(asked.config))


if __name__ == "__main__":
    sys.exit(main())
