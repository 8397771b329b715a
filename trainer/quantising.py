"""``quake-trainer quantize``: the recipe of a quantisation, and the windows that it calibrates and measures with.

What is not here: the quantisation itself (`trainer.quantisation`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from quake.artifact import CompiledModel, read_spec
from trainer.assessment import answer_windows, require_known_input
from trainer.data.drawing import Drawer, Windows
from trainer.data.loading import ItemMaker, View
from trainer.data.quality import Quality
from trainer.data.record import Record
from trainer.data.sources import Source, read_records
from trainer.evaluation.metrics import metrics
from trainer.evaluation.protocol import collect, figure_of_merit
from trainer.evaluation.scoring import DetectorScorer, score_records
from trainer.network import Network
from trainer.quantisation.quantise import Measure, Quantisation, Result, quantise
from trainer.recipe import read_table
from trainer.section import Section

BATCH = 64
SEED = 11
WINDOWS = 1024
"""Of the development split, for a characteriser's skill."""


class Data(Section):
    """What is calibrated with, and what skill is measured on."""

    source: tuple[Source, ...] = Field(min_length=1)
    quality: Quality = Quality()
    train: str = Field(default="train", description="split that windows to calibrate with are of")
    dev: str = Field(default="dev", description="split")
    leave_out: tuple[str, ...] = Field(default=(), description="data sets of which nothing is used")


class QuantisationRecipe(Section):
    """What `quake-trainer quantize` reads."""

    quantisation: Quantisation
    data: Data
    network: Network | None = Field(default=None, description="of the model; qat alone needs it")
    seed: int = Field(default=0, ge=0, description="of what qat draws")


def quantise_recipe(path: Path, out: Path, changes: Sequence[str] = ()) -> Iterator[str]:
    """Lines for people on what was written. Errors as `quantise` has them."""
    recipe, folder = read_table(path, QuantisationRecipe, changes)
    config = recipe.quantisation.model_copy(update={"model": folder / recipe.quantisation.model})
    spec = read_spec(config.model)
    require_known_input(spec, config.model)
    network = recipe.network.build(spec.input_shape, spec.heads, folder) if recipe.network else None
    out.mkdir(parents=True, exist_ok=True)
    data = recipe.data
    train = read_records(data.source, data.train, data.quality, folder, data.leave_out).records
    dev = read_records(data.source, data.dev, data.quality, folder, data.leave_out).records
    dev = tuple(record for record in dev if record.kind != "unlabelled")
    result = quantise(
        config,
        out,
        _images(View.of(spec), train, config.calibration_windows),
        _measure(spec.task, dev, data.dev),
        network,
        recipe.seed,
    )
    return _said(result)


def _images(view: View, records: Sequence[Record], count: int) -> NDArray[np.float32]:
    """(count, C, H, W) of windows of the records in turn."""
    maker = ItemMaker(Drawer.in_turn(records, Windows(), SEED), view, SEED)
    parts = [maker.batch(range(begin, min(begin + BATCH, count))) for begin in range(0, count, BATCH)]
    return np.concatenate([part.images.numpy() for part in parts])


def _measure(task: str, dev: Sequence[Record], split: str) -> Measure:
    if task == "detect":
        return Measure(split, "mean_recall_10s", lambda model: _by_events(model, dev))
    return Measure(split, "accuracy, mean of the heads", lambda model: _by_windows(model, dev))


def _by_events(model: CompiledModel, dev: Sequence[Record]) -> float:
    return figure_of_merit(collect(dev, score_records(DetectorScorer(model, model.spec.hop_s or 1.0), dev)))


def _by_windows(model: CompiledModel, dev: Sequence[Record]) -> float:
    found = answer_windows(model, dev, WINDOWS)
    figures = metrics(list(found.probabilities.values()), list(found.targets.values()), model.spec.heads).figures
    return float(np.mean([figures[f"{head.name}/top_1"] for head in model.spec.heads]))


def _said(result: Result) -> Iterator[str]:
    yield f"{result.path}: card in {result.card}"
    for name, figures in (("before", result.before), ("after", result.after)):
        rates = f"{figures.speed.one:.0f} windows/s one at a time, {figures.speed.eight:.0f} in eights"
        yield f"{name:<7} skill {figures.skill:.4f}, {rates}, {figures.size_bytes / 1e6:.2f} MB"
    yield f"largest difference of a probability {result.largest_difference:.3f}, mean {result.mean_difference:.4f}"
