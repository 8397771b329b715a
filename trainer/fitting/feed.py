"""What the steps of a run are fed with: step k's batch, ready for the criterion, and the batches of the validation.

Everything is a function of the recipe and the number of the step. What is not here: how items are drawn and made
(`trainer.data`), and what a step does with them (`trainer.fitting.step`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from quake.data.seisbench import DataError
from trainer.augmentation.chain import ImageChain, WaveformChain
from trainer.augmentation.image import RandAugment
from trainer.data.drawing import Drawer
from trainer.data.loading import Batch, ItemMaker, View, training_batches, validation_batches
from trainer.data.record import Record
from trainer.distillation.teachers import Teachers
from trainer.fitting.losses import Tensors
from trainer.fitting.progressive import Settings, resized
from trainer.fitting.ranks import Ranks
from trainer.fitting.step import Piece, step_seed
from trainer.recipe import Recipe

VALIDATION_SEED = 77
"""Of the windows that are validated on: the same in every run, so that runs can be compared."""
MIXING = 1 << 20
"""Stands for a rank in the seeds of mixtures, which must not repeat those of dropout."""


class Feed:
    """Batches of a recipe on one process. DataError, RecipeError and ModelError as its parts raise them."""

    def __init__(
        self, recipe: Recipe, folder: Path, records: Sequence[Record], dev: Sequence[Record], ranks: Ranks
    ) -> None:
        self._recipe, self._ranks, self._dev = recipe, ranks, dev
        self._view = View.of(recipe.spec())
        self.steps_per_epoch = _steps_per_epoch(recipe, len(records), ranks)
        self.total_steps = recipe.optimisation.epochs * self.steps_per_epoch
        self._teachers = _teachers(recipe, folder, ranks)
        whole = replace(self._view, shape=replace(self._view.shape, resized_size=None))
        self._maker = ItemMaker(
            Drawer.of(records, recipe.windows, recipe.sampling, recipe.heads, recipe.data.absent_classes),
            whole,  # the middle is cut out where it is measured and used, as those do who train on photographs
            recipe.seed,
            WaveformChain(recipe.augmentation.waveform) if recipe.augmentation.waveform else None,
            ImageChain(recipe.augmentation.image) if recipe.augmentation.image else None,
            self._teachers.samples if self._teachers else 0,
            recipe.doubt,
        )

    def batches(self, step: int) -> Iterator[Batch]:
        """This process's part of the batch of ``step`` and of each after it, on its device."""
        recipe, ranks = self._recipe, self._ranks
        own = recipe.optimisation.batch // ranks.world
        for first, last, maker in self._stages(step):
            yield from training_batches(
                maker,
                first * recipe.optimisation.batch,
                last - first,
                own,
                rank=ranks.rank,
                world=ranks.world,
                workers=recipe.data.workers,
                device=ranks.device,
            )

    def piece(self, batch: Batch, step: int) -> Piece:
        """What the criterion of the training reads: mixed, of the stage's size, with what the teachers say."""
        images, targets = batch.images, batch.targets
        settings = self.settings(step)
        if mixing := self._recipe.augmentation.mixing:
            if settings and settings.mixup_alpha is not None:
                mixing = mixing.model_copy(update={"mixup_alpha": settings.mixup_alpha})
            images, targets = mixing.apply(
                images, targets, step_seed(self._recipe.seed, step, MIXING + self._ranks.rank)
            )
        if settings:
            images = resized(images, settings.size)
        return images, targets + self._said(batch)

    def validation(self) -> Iterator[Batch]:
        """The same windows at each call, not augmented."""
        return (batch.to(self._ranks.device) for batch in validation_of(self._recipe, self._dev))

    def describe(self, batch: Batch) -> str:
        """Which records a batch was made of."""
        return "; ".join(self._maker.describe(int(item)) for item in batch.items)

    def settings(self, step: int) -> Settings | None:
        """Of the progressive stage that a step belongs to."""
        progressive = self._recipe.progressive
        return progressive.at(step, self.total_steps) if progressive else None

    def _said(self, batch: Batch) -> Tensors:
        """Log-probabilities of the teachers for each head; zeros for one that none speaks of."""
        if self._teachers is None or batch.samples is None:
            return ()
        return self._teachers.log_probabilities(batch.samples)

    def _stages(self, step: int) -> Iterator[tuple[int, int, ItemMaker]]:
        """(first step, step after the last, maker) of what is left: RandAugment's strength may grow in stages."""
        while step < self.total_steps:
            settings, last = self.settings(step), step + 1
            while last < self.total_steps and self.settings(last) == settings:
                last += 1
            yield step, last, self._stronger(settings.magnitude if settings else None)
            step = last

    def _stronger(self, magnitude: float | None) -> ItemMaker:
        if magnitude is None:
            return self._maker
        changes = (
            change.model_copy(update={"magnitude": round(magnitude)}) if isinstance(change, RandAugment) else change
            for change in self._recipe.augmentation.image
        )
        return replace(self._maker, image=ImageChain(tuple(changes)))


def validation_of(recipe: Recipe, dev: Sequence[Record]) -> Iterator[Batch]:
    """The windows of the development split that a recipe's runs are validated on, the same at each call."""
    view, count = View.of(recipe.spec()), recipe.data.dev_windows
    return validation_batches(dev, recipe.windows, view, count, recipe.optimisation.batch, VALIDATION_SEED)


def _steps_per_epoch(recipe: Recipe, records: int, ranks: Ranks) -> int:
    """DataError where the windows of an epoch do not make one step, or those of a step cannot be divided."""
    batch, pieces = recipe.optimisation.batch, ranks.world * recipe.optimisation.accumulation
    if batch % pieces:
        raise DataError(f"optimisation.batch {batch} cannot be divided among {pieces} (processes x accumulation)")
    windows = recipe.data.windows_per_epoch or records
    if windows < batch:
        raise DataError(f"an epoch of {windows} windows is less than one batch of {batch}: data.windows_per_epoch")
    return windows // batch


def _teachers(recipe: Recipe, folder: Path, ranks: Ranks) -> Teachers | None:
    if not recipe.teacher:
        return None
    on_gpu = ranks.device.type == "cuda"
    window = recipe.input.window_samples
    return Teachers(recipe.teacher, recipe.heads, window, folder, "cuda" if on_gpu else "cpu")
