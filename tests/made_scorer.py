"""A detector that needs no network: sure of an earthquake where a window's newest seconds are loud."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quake.data.spec_file import read_spec
from streamer.composition import Scorer, model_path
from streamer.config import resolve
from streamer.grid import Grid
from streamer.trigger import ModelName, Thresholds

SERVERS = {"source": [{"servers": ["seedlink://x"], "select": ["*.*"]}]}
"""The least of a configuration."""


class Loud:
    """A compiled model's face; ``newest``: samples of the vertical that are looked at."""

    sha256, device = 64 * "0", "cpu"

    spec = read_spec(model_path(resolve(SERVERS, Path("x"))))
    """The shipped detector's."""

    def __init__(self, above: float, newest: int) -> None:
        self._above, self._newest = above, newest

    def transform(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        return windows

    def score(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        loud = np.abs(windows[:, 0, -self._newest :]).max(axis=1) > self._above
        p = np.where(loud, 0.99, 0.01).astype(np.float32)
        return np.stack([1 - p, p], axis=1)

    def warm_up(self, batch_sizes: Iterable[int]) -> None: ...


def loud_scorer(above: float, newest_s: float, limits: Thresholds, grid: Grid | None = None) -> Scorer:
    """``grid``: the shipped detector's windows, every second, without it."""
    grid = grid or Grid.of(Loud.spec.sampling_rate_hz, Loud.spec.window_samples, 1.0)
    model = Loud(above, round(newest_s * grid.rate))
    return Scorer(model, grid, ModelName("loud", 0), limits, 1)  # type: ignore[arg-type]
