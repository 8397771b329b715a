"""A detector that needs no network, and records that it hears: what the tests of benchmarks measure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from quake.artifact import CompiledModel, Head, ModelSpec, Stft, Thresholds
from quake.data.decision import OperatingPoint
from trainer.data.record import Record

LEAD = 6000
WINDOW = 400


class Louder:
    """A compiled model's face: log-odds are 4 times the decades that the newest second is louder than the window's
    beginning, less 2."""

    path = Path("louder.pt")
    sha256 = "0" * 64

    def __init__(self, points: tuple[OperatingPoint, ...] = ()) -> None:
        self.spec = ModelSpec(
            name="louder",
            version="1.0.0",
            task="detect",
            architecture="none",
            components=("Z", "N", "E"),
            sampling_rate_hz=100,
            window_samples=WINDOW,
            stft=Stft(nperseg=64, hop=32, window="hann"),
            heads=(Head(name="event", classes=("noise", "earthquake")),),
            thresholds=points[0].thresholds if points else Thresholds(on=0.7, off=0.5),
            operating_points=points,
            hop_s=1.0 if points else None,
            training_data=(),
        )
        self.windows = 0

    def predict(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        self.windows += len(windows)
        vertical = windows[:, 0].astype(np.float64)
        begin, newest = (np.sqrt((part**2).mean(axis=1)) for part in (vertical[:, :200], vertical[:, -100:]))
        odds = 4 * np.log10(np.maximum(newest, 1e-20) / np.maximum(begin, 1e-20)) - 2
        return np.stack([1 / (1 + np.exp(odds)), 1 / (1 + np.exp(-odds))], axis=1).astype(np.float32)


def louder(*points: OperatingPoint) -> CompiledModel:
    return cast(CompiledModel, Louder(points))


def noise(seed: int, seconds: float = 60.0, **fields: object) -> Record:
    """White noise behind a lead of the same."""
    samples = np.random.default_rng(seed).standard_normal((3, LEAD + round(seconds * 100))).astype(np.float32)
    return replace(Record(f"noise{seed}", "made", "", samples, "noise", lead=LEAD), **fields)  # type: ignore[arg-type]


def event(seed: int, height: float = 30.0, p_s: float = 20.0, **fields: object) -> Record:
    """``height`` times louder from P on, for 5 s."""
    record, p = noise(seed), LEAD + round(p_s * 100)
    samples = record.samples.copy()
    samples[:, p : p + 500] *= height
    made = Record(f"event{seed}", "made", f"quake{seed}", samples, "earthquake", p=p, lead=LEAD)
    return replace(made, **fields)  # type: ignore[arg-type]
