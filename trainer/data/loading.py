"""Batches of images and targets: made of item numbers alone, by as many processes as are asked for.

`ItemMaker` turns item numbers into a `Batch`; item i is a function of the maker and i, so batches are the same bit for
bit whoever makes them: this process, workers, several ranks, or a run that goes on in the middle. What is not here:
drawing and cutting (`trainer.data.drawing`), augmentation itself (`trainer.augmentation`), and mixing of a batch's
images, which is part of the training step.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from quake.data.image import imagenet_normalise
from quake.data.seisbench import DataError
from quake.data.spec import Head, ModelSpec
from quake.data.spectrogram import SpectrogramShape, spectrogram
from trainer.data.doubt import Doubt
from trainer.data.drawing import Drawer, Rng, Windows
from trainer.data.labels import targets_of
from trainer.data.record import Example, Material, Record, Samples

Image = NDArray[np.float32]
CPU = torch.device("cpu")
FAULT_IN_WORKER = "in DataLoader worker process"
"""What torch says where a worker lives and has raised."""
PREFETCH = 4
"""Batches that each worker makes ahead: a second or so of a slow step, and little memory."""


class WaveformSteps(Protocol):
    """A chain of augmentations of waveforms."""

    def length(self, n: int) -> int:
        """Samples that the cut must have so that ``n`` remain."""
        ...

    def apply(self, example: Example, rng: Rng, material: Material) -> Example: ...


class ImageSteps(Protocol):
    """A chain of augmentations of (C, H, W) images, which keep their size."""

    def apply(self, image: Image, rng: Rng) -> Image:
        """Before ImageNet's statistics are taken off."""
        ...

    def after(self, image: Image, rng: Rng) -> Image:
        """After that."""
        ...


@dataclass(frozen=True, slots=True)
class View:
    """What the network sees of a window, and which classes it is asked for."""

    window_samples: int
    shape: SpectrogramShape
    heads: tuple[Head, ...]

    @classmethod
    def of(cls, spec: ModelSpec) -> View:
        return cls(spec.window_samples, spec.spectrogram, spec.heads)


@dataclass(frozen=True, slots=True)
class Batch:
    """Items that one process works on at once."""

    images: Tensor
    """(B, C, H, W) float32"""
    targets: tuple[Tensor, ...]
    """(B, classes) float32 for each head; rows of zeros where a label is not known."""
    items: Tensor
    """(B,) int64, their numbers."""
    samples: Tensor | None = None
    """(B, 3, n) float32 that end with the windows; only where a maker keeps them."""

    def __len__(self) -> int:
        return len(self.items)

    def pin_memory(self) -> Batch:
        """In memory that a GPU copies from while it computes."""
        return self._each(Tensor.pin_memory)

    def to(self, device: torch.device) -> Batch:
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        samples = None if self.samples is None else change(self.samples)
        return Batch(change(self.images), tuple(map(change, self.targets)), change(self.items), samples)


@dataclass(frozen=True, slots=True)
class Made:
    """One item."""

    example: Example
    image: Image
    """(C, H, W)"""


@dataclass(frozen=True)
class ItemMaker:
    """Makes items of a run from their numbers.

    ``keep_samples``: how many samples before a window's end a batch holds; 0: none. RecipeError where the windows do
    not fit the network's, DataError where a record is too short for them.
    """

    drawer: Drawer
    view: View
    seed: int
    waveform: WaveformSteps | None = None
    image: ImageSteps | None = None
    keep_samples: int = 0
    doubt: Doubt | None = None
    cut_samples: int = field(init=False)
    """Of what is drawn, before augmentation."""

    def __post_init__(self) -> None:
        kept = max(self.view.window_samples, self.keep_samples)
        object.__setattr__(self, "cut_samples", self.waveform.length(kept) if self.waveform else kept)
        self.drawer.windows.require(self.view.window_samples)
        self.drawer.require(self.cut_samples)

    def make(self, item: int) -> Made:
        """The item as `batch` has it."""
        (example,), images = self._make([item])
        return Made(example, images[0])

    def batch(self, items: Sequence[int]) -> Batch:
        """DataError, naming the records, where an image or its samples are not finite."""
        examples, images = self._make(items)
        targets = targets_of(examples, self.view.heads)
        if self.doubt:
            targets = self.doubt.applied(targets, [e.last(self.view.window_samples) for e in examples], self.view.heads)
        samples = None
        if self.keep_samples:
            samples = torch.from_numpy(np.stack([e.last(self.keep_samples).samples for e in examples]))  # (B, 3, n)
        return Batch(
            torch.from_numpy(images),
            tuple(map(torch.from_numpy, targets)),
            torch.tensor(items, dtype=torch.int64),
            samples,
        )

    def describe(self, item: int) -> str:
        """The item's number and the names of the records that are drawn for it; silence is made of none."""
        names: list[str] = []
        replace(self, drawer=self.drawer.telling(names.append))._example(item, self._rng(item))
        return f"item {item} ({', '.join(names) or 'silence'})"

    def _rng(self, item: int) -> Rng:
        return np.random.default_rng([self.seed, item])

    def _make(self, items: Sequence[int]) -> tuple[list[Example], Image]:
        """Examples, and their (B, C, H, W) images."""
        rngs = [self._rng(item) for item in items]
        examples = [self._example(item, rng) for item, rng in zip(items, rngs, strict=True)]
        windows = np.stack([example.last(self.view.window_samples).samples for example in examples])  # (B, 3, N)
        self._refuse_not_finite(items, windows)
        images = self._images(windows, rngs)
        self._refuse_not_finite(items, images)
        return examples, images

    def _example(self, item: int, rng: Rng) -> Example:
        example = self.drawer.draw(rng, item, self.cut_samples)
        # Silence stays silence: what is added at a level relative to nothing would be all that the network sees.
        if self.waveform and example.samples.any():
            example = self.waveform.apply(example, rng, self.drawer)
        return example.last(max(self.view.window_samples, self.keep_samples))

    def _images(self, windows: Samples, rngs: Sequence[Rng]) -> Image:
        """(B, 3, N) -> (B, C, H, W), all at once: one by one takes four times as long."""
        shape, steps = self.view.shape, self.image
        if steps is None:
            return spectrogram(windows, shape)
        images = spectrogram(windows, replace(shape, image_normalisation="none"))
        images = np.stack([steps.apply(image, rng) for image, rng in zip(images, rngs, strict=True)])
        if shape.image_normalisation == "imagenet":
            images = imagenet_normalise(images).astype(np.float32)
        return np.stack([steps.after(image, rng) for image, rng in zip(images, rngs, strict=True)])

    def _refuse_not_finite(self, items: Sequence[int], values: NDArray[np.float32]) -> None:
        if not np.isfinite(values).all():
            bad = [item for item, value in zip(items, values, strict=True) if not np.isfinite(value).all()]
            named = "; ".join(map(self.describe, bad))
            raise DataError(f"NaN or infinity in a window or its image: {named}")


@dataclass(frozen=True, slots=True)
class ItemNumbers:
    """The items of one rank's steps: together, the ranks' are those that one process would take."""

    first: int
    steps: int
    batch_size: int
    """Of one rank."""
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.steps):
            begin = self.first + (step * self.world + self.rank) * self.batch_size
            yield list(range(begin, begin + self.batch_size))


def training_batches(
    maker: ItemMaker,
    first_item: int,
    steps: int,
    batch_size: int,
    *,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    device: torch.device = CPU,
    prefetch: int = PREFETCH,
) -> Iterator[Batch]:
    """``steps`` batches on ``device``; step k of a rank begins at first_item + (k world + rank) batch_size.

    With ``workers`` processes of one thread each, which live as long as the iterator, or without any: the batches are
    the same. DataError where an item cannot be made or a worker dies, which is noticed within seconds, when the next
    batch is asked for.
    """
    numbers = ItemNumbers(first_item, steps, batch_size, rank, world)
    with _parents_signals():
        outcomes = iter(_loader(maker, numbers, workers, prefetch, pinned=device.type == "cuda"))
    try:
        while (outcome := _next(outcomes, workers)) is not None:
            if isinstance(outcome, DataError):
                raise outcome
            yield outcome.to(device)
    finally:
        del outcomes  # its workers end now, and not once a traceback is forgotten


def validation_batches(
    records: Sequence[Record], windows: Windows, view: View, count: int, batch_size: int, seed: int
) -> Iterator[Batch]:
    """``count`` windows of the records in turn, not augmented, the same at each call; the last batch may be smaller."""
    maker = ItemMaker(Drawer.in_turn(records, windows, seed), view, seed)
    for begin in range(0, count, batch_size):
        yield maker.batch(range(begin, min(begin + batch_size, count)))


class _Batches(Dataset[Batch | DataError]):
    """What torch's loader asks for batches; it knows no other name for this than that of a data set."""

    def __init__(self, maker: ItemMaker) -> None:
        self._maker = maker

    def __getitems__(self, items: list[int]) -> Batch | DataError:
        try:
            return self._maker.batch(items)
        except DataError as error:  # handed on as it is: torch would raise it with a worker's traceback for its message
            return error


def _loader(
    maker: ItemMaker, numbers: ItemNumbers, workers: int, prefetch: int, *, pinned: bool
) -> DataLoader[Batch | DataError]:
    return DataLoader(
        _Batches(maker),
        batch_sampler=numbers,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pinned,
        multiprocessing_context="fork" if workers else None,  # records are shared, not copied
        prefetch_factor=prefetch if workers else None,
        generator=torch.Generator(),  # its own: the loader would draw a seed from the one that training uses
    )


def _next(outcomes: Iterator[Batch | DataError], workers: int) -> Batch | DataError | None:
    """None at the end; the death of a worker is an outcome too. A fault of the program is raised as it is."""
    try:
        return next(outcomes, None)
    except (RuntimeError, OSError, EOFError) as error:  # torch's own, or of a pipe whose other end is dead
        if not workers or FAULT_IN_WORKER in str(error):
            raise
        hint = "memory that ran out is the usual cause, and fewer workers need less"
        return DataError(f"a worker process of the loader died ({hint}): {str(error) or type(error).__name__}")


def _as_it_is(outcome: Any) -> Any:
    return outcome


@contextmanager
def _parents_signals() -> Iterator[None]:
    """Workers that are started meanwhile never see Ctrl-C: it is for their parent, which saves, and then ends them.

    And torch's handler of ended children is undone: it would raise in the midst of a training step. Without it the next
    batch raises.
    """
    handler = signal.getsignal(signal.SIGCHLD)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which a fork inherits
    try:
        yield
    finally:
        if (
            threading.current_thread() is threading.main_thread()
        ):  # no other may set handlers, and torch sets none there
            signal.signal(signal.SIGCHLD, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
