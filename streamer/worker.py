"""Scores windows of many stations in batches of a few fixed shapes.

A batch is padded up to the next shape, or parted where much of it would be padding, so that a window's score does not
depend on how many others happened to be ready. A device that is lost, or out of memory, is left for the CPU once, where
the configuration says so. Holds no queue: `Batcher` does, in the order in which windows were cut.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from math import isfinite
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from streamer.hooks import Hooks
from streamer.stages import Passed, Score, Unscored, Unused, Window

log = logging.getLogger(__name__)

SHAPES = (1, 4, 16, 64, 256, 1024)
"""Batch sizes that exist: fewer shapes to warm up, and to be reproducible over."""
PADDING = 0.25
"""Largest share of a batch that is padding, where a smaller shape could be filled: the network answers padding as slowly as
windows, and four at once already nearly as fast, for each, as sixteen."""

Cut = Window | Unscored
Decided = Score | Unscored | Passed


class Model(Protocol):
    """The part of `quake.artifact.CompiledModel` that scoring needs."""

    @property
    def device(self) -> str: ...

    def transform(self, windows: NDArray[np.float32]) -> NDArray[np.float32]: ...

    def score(self, spectrograms: NDArray[np.float32]) -> NDArray[np.float32]: ...

    def predict(self, windows: NDArray[np.float32]) -> NDArray[np.float32]: ...


def parts(count: int, shapes: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """What the network is given at once, of ``count`` windows: the batch's shape, and how many of them are in it."""
    while count:
        place = next(at for at, shape in enumerate(shapes) if shape >= count)
        if place and shapes[place] - count > PADDING * shapes[place]:
            place -= 1  # there are enough to fill it
        taken = min(count, shapes[place])
        yield shapes[place], taken
        count -= taken


class Worker:
    """``earthquake`` is the place of that class among the model's. ``on_cpu`` loads the same model there; None: what the
    device raises goes on to whoever asked."""

    def __init__(
        self,
        model: Model,
        batch_size: int,
        hooks: Hooks,
        earthquake: int = 1,
        on_cpu: Callable[[], Model] | None = None,
    ) -> None:
        self._model, self._hooks, self._earthquake, self._on_cpu = model, hooks, earthquake, on_cpu
        self.shapes = (*(s for s in SHAPES if s < batch_size), batch_size)

    def score(self, items: list[Cut]) -> list[Decided]:
        """In the order given; items that are no windows pass through. At most one batch of windows."""
        windows = [item for item in items if isinstance(item, Window)]
        scores = iter([decided for part in self._parted(windows) for decided in self._score(part)])
        return [next(scores) if isinstance(item, Window) else item for item in items]

    def _parted(self, windows: list[Window]) -> Iterator[list[Window]]:
        if self._model.device != "cpu":  # padding costs a GPU next to nothing, and a second batch its launch
            return iter([windows] if windows else [])
        rest = iter(windows)
        return (list(islice(rest, count)) for _, count in parts(len(windows), self.shapes))

    def _score(self, windows: list[Window]) -> list[Decided]:
        """One at a time where the model refuses a batch: one window that it has no answer for must not cost the others."""
        try:
            return self._score_batch(windows)
        except ValueError as error:
            if len(windows) > 1:
                return [item for window in windows for item in self._score([window])]
            log.warning("window %d of %s: %s", windows[0].k, windows[0].subject, error)
            return [Unscored(windows[0].subject, windows[0].k, windows[0].k, Unused.CORRUPT)]

    def _score_batch(self, windows: list[Window]) -> list[Decided]:
        size = next(shape for shape in self.shapes if shape >= len(windows))
        batch = np.zeros((size, *windows[0].samples.shape), np.float32)  # (B, 3, N)
        np.stack([w.samples for w in windows], out=batch[: len(windows)])
        probabilities = self._probabilities(batch)[: len(windows), self._earthquake]  # (B, classes) -> (n,)
        decided = [_decided(w, float(p)) for w, p in zip(windows, probabilities, strict=True)]
        self._hooks.scored([item for item in decided if isinstance(item, Score)])
        return decided

    def _probabilities(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, 3, N) -> (B, classes). A batch that a device was lost with is asked again as a whole."""
        try:
            return self._ask(batch)
        except ValueError:
            raise  # of the windows, not of the device
        except Exception as error:
            if self._on_cpu is None:
                raise
            log.error("the model's device has failed, going on on the CPU: %s", error)
            self._model, self._on_cpu = self._on_cpu(), None
            return self._ask(batch)

    def _ask(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """A GPU does both stages in one: what lies between them would have to come back from it."""
        start_s = middle_s = time.perf_counter()
        if self._model.device == "cpu":
            spectrograms = self._model.transform(batch)  # (B, 3, N) -> (B, 3, F, T)
            middle_s = time.perf_counter()
            self._hooks.stage("transform", middle_s - start_s)
            probabilities = self._model.score(spectrograms)
        else:
            probabilities = self._model.predict(batch)
        self._hooks.stage("network", time.perf_counter() - middle_s)
        return probabilities


def _decided(window: Window, probability: float) -> Decided:
    """What is no number is no probability: it must not open a detection, for nothing compares below it."""
    if not isfinite(probability):
        return Unscored(window.subject, window.k, window.k, Unused.CORRUPT)
    return Score(window, min(max(probability, 0.0), 1.0))


class Batcher:
    """What was cut and waits to be scored, oldest first."""

    def __init__(self, batch_size: int, longest_wait_ns: int) -> None:
        self._batch_size, self._longest_wait_ns = batch_size, longest_wait_ns
        self._items: deque[Cut] = deque()
        self._since_ns = 0
        self.windows = 0
        """Windows waiting."""

    def add(self, items: Iterable[Cut], now_ns: int) -> None:
        for item in items:
            if not self._items:
                self._since_ns = now_ns
            self._items.append(item)
            self.windows += isinstance(item, Window)

    def wait_s(self, now_ns: int, otherwise_s: float) -> float:
        """How long the next batch may still wait for company."""
        if not self._items:
            return otherwise_s
        if self.windows >= self._batch_size:
            return 0.0
        return max(0.0, (self._since_ns + self._longest_wait_ns - now_ns) / 1e9)

    def take(self, now_ns: int) -> list[Cut]:
        """The next batch, empty while it is better to wait."""
        if self.wait_s(now_ns, 1.0) > 0.0:
            return []
        taken: list[Cut] = []
        windows = 0
        while self._items and windows < self._batch_size:
            item = self._items.popleft()
            windows += isinstance(item, Window)
            taken.append(item)
        self.windows -= windows
        self._since_ns = now_ns
        return taken

    def drop(self) -> list[Unscored]:
        """Give up all that waits, for overload; what was no window stays what it was."""
        dropped = [_dropped(item) for item in self._items]
        self._items.clear()
        self.windows = 0
        return dropped


def _dropped(item: Cut) -> Unscored:
    return item if isinstance(item, Unscored) else Unscored(item.subject, item.k, item.k, Unused.OVERLOAD)
