"""From fitted weights to the compiled model: calibration, thresholds, what it is worth, its file and its card.

All that is chosen is chosen on the development split, and the card says so. What is not here: the measures
(`trainer.evaluation`), how a network becomes a file (`quake.compilation`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from textwrap import shorten

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from quake.artifact import CompiledModel, ModelError, ModelSpec, Skill, Thresholds, TrainingSource, compile_model
from quake.data.seisbench import DataError
from quake.models import HybridViT
from trainer.card import model_card
from trainer.data.loading import Batch
from trainer.data.record import Record
from trainer.evaluation.alarms import Rule, assess, choose_on
from trainer.evaluation.calibration import fit_temperature, with_calibration
from trainer.evaluation.metrics import metrics
from trainer.evaluation.protocol import collect, summary
from trainer.evaluation.scoring import DetectorScorer, log_odds, score_records
from trainer.fitting.checkpoint import State, load_checkpoint
from trainer.fitting.feed import validation_of
from trainer.fitting.history import read_history, write_loss_plot
from trainer.fitting.loop import REASON
from trainer.fitting.lora import merged
from trainer.fitting.run_folder import RunFolder
from trainer.network import StagedNetwork
from trainer.recipe import Recipe

EXAMPLES = 64
"""Windows on which the compiled network is held against the eager one."""
SCORING_THREADS = 1

Answers = NDArray[np.float32]

TINY = 1e-30
"""Of a probability before its logarithm is taken."""

log = logging.getLogger(__name__)


def finish(
    recipe: Recipe,
    network: StagedNetwork,
    state: State,
    sources: Sequence[TrainingSource],
    dev: Sequence[Record],
    folder: RunFolder,
) -> None:
    """Write model, card and plots of a run. ``network``: as the run built it; ``state``: of `kept_state`.

    ModelError where the compiled network does not answer as the eager one does, or the checkpoint is of another.
    """
    plain = _filled(recipe, network, state, folder)
    batches = list(validation_of(recipe, dev))
    spec = recipe.spec(sources)
    spec = _write(plain, spec, batches, folder)
    if recipe.evaluation.calibrate:
        spec = _write(plain, _calibrated(recipe, spec, folder, batches), batches, folder)
    spec = _measured(recipe, spec, dev, batches, folder)
    _write(plain, spec, batches, folder)
    model = CompiledModel.load(folder.model, "cpu")
    folder.card.write_text(model_card(model.spec, model.sha256), encoding="utf-8")
    if rows := read_history(folder.metrics) if folder.metrics.exists() else []:  # none before the first epoch's end
        write_loss_plot(rows, folder.plots / "loss.svg")
    log.info("%s: %s %s", folder.model, model.spec.name, model.spec.version)


def kept_state(recipe: Recipe, folder: RunFolder) -> State:
    """The checkpoint that becomes the model. ModelError where there is none."""
    path = folder.best if recipe.evaluation.keep == "best" else folder.last
    if not path.exists():
        raise ModelError(f"{path}: there is no such checkpoint yet; quake-trainer fit --resume {folder.path} goes on")
    return load_checkpoint(path)


def _filled(recipe: Recipe, network: StagedNetwork, state: State, folder: RunFolder) -> StagedNetwork:
    """The network with the weights of a checkpoint, the averaged ones if any, without adapters, on the CPU."""
    network = network.cpu()
    try:
        network.load_state_dict(state["ema"] or state["network"])
    except (KeyError, RuntimeError) as error:
        reason = shorten(str(error), REASON, placeholder=" ...")
        raise ModelError(f"{folder.path}: its checkpoint is not of its recipe: {reason}") from error
    is_adapted = recipe.fine_tuning is not None and recipe.fine_tuning.lora is not None
    return merged(network) if is_adapted and isinstance(network, HybridViT) else network


def _write(network: StagedNetwork, spec: ModelSpec, batches: Sequence[Batch], folder: RunFolder) -> ModelSpec:
    """Write the model; returns ``spec``, whose thresholds and temperature may go on changing."""
    example = np.concatenate([batch.images.cpu().numpy() for batch in batches])[:EXAMPLES]
    temporary = folder.model.with_suffix(".tmp")
    try:
        temporary.write_bytes(compile_model(network, spec, example))
        temporary.replace(folder.model)
    finally:
        temporary.unlink(missing_ok=True)
    return spec


def _calibrated(recipe: Recipe, spec: ModelSpec, folder: RunFolder, batches: Sequence[Batch]) -> ModelSpec:
    """Thresholds that the recipe states are of calibrated probabilities, and stay."""
    answers, truth = _answers(CompiledModel.load(folder.model, "cpu"), batches)
    try:
        fitted = fit_temperature([np.log(np.maximum(a, TINY)) for a in answers], truth)
    except DataError as error:
        log.warning("probabilities stay as they are: %s", error)
        return spec
    if recipe.evaluation.stated:
        return spec.model_copy(update={"calibration": fitted})
    return with_calibration(spec, fitted)


def _measured(
    recipe: Recipe, spec: ModelSpec, dev: Sequence[Record], batches: Sequence[Batch], folder: RunFolder
) -> ModelSpec:
    """Thresholds, and what is measured of skill, on the development split."""
    model = CompiledModel.load(folder.model, "cpu", threads=SCORING_THREADS)
    skill = _by_windows(model, batches, recipe.data.dev)
    if spec.task != "detect" or not recipe.evaluation.events:
        return spec.model_copy(update={"skill": skill})
    dev = [record for record in dev if record.kind != "unlabelled"]  # which have no lead to score in
    table = score_records(DetectorScorer(model, recipe.evaluation.hop_s), dev)
    limits = recipe.evaluation.stated or _chosen(recipe, dev, table)
    skill += _by_events(recipe, limits, dev, table)
    return spec.model_copy(update={"thresholds": limits, "skill": skill})


def _chosen(recipe: Recipe, dev: Sequence[Record], table: pd.DataFrame) -> Thresholds:
    on = choose_on(dev, table, recipe.evaluation.false_alarms_an_hour, recipe.evaluation.in_a_row)
    return Thresholds(on=on, off=on / 2)


def _by_windows(model: CompiledModel, batches: Sequence[Batch], split: str) -> tuple[Skill, ...]:
    answers, truth = _answers(model, batches)
    found = metrics(answers, truth, model.spec.heads)
    data, note = f"{split}, windows", f"{sum(map(len, batches))} windows; chosen on the same split"
    wanted = [name for name in found.figures if name.count("/") == 1]
    return _defined((data, name, found.figures[name], note) for name in wanted)


def _by_events(recipe: Recipe, limits: Thresholds, dev: Sequence[Record], table: pd.DataFrame) -> tuple[Skill, ...]:
    """Nothing where the split has no earthquakes, or no noise that is fair to count alarms on."""
    split, how = recipe.data.dev, recipe.evaluation
    try:
        figures = summary(collect(dev, table))
    except DataError as error:
        log.warning("the split %s is not measured by events: %s", split, error)
        return ()
    low, high = figures["mean_recall_10s_ci95"]
    worth = assess(dev, table, Rule(log_odds(limits.on), log_odds(limits.off), how.windows_in_a_row))
    rule = f"on {limits.on:g}, off {limits.off:g}, {how.windows_in_a_row} in a row"
    merit = Skill(data=split, measure="mean_recall_10s", value=figures["mean_recall_10s"], low=low, high=high)
    at_thresholds = (
        (split, "macro recall within 10 s", worth.macro_recall, rule),
        (split, "false alarms an hour", worth.false_an_hour, f"{rule}; {worth.hours:.2f} h"),
        (split, "median delay after P, s", worth.median_delay_s, rule),
    )
    return (merit, *_defined(at_thresholds))


def _defined(rows: Iterable[tuple[str, str, float, str]]) -> tuple[Skill, ...]:
    """Of (data, measure, value, note), without what is not defined: the delay of a detector that detects nothing."""
    kept = (row for row in rows if math.isfinite(row[2]))
    return tuple(Skill(data=data, measure=measure, value=value, note=note) for data, measure, value, note in kept)


def _answers(model: CompiledModel, batches: Sequence[Batch]) -> tuple[list[Answers], list[Answers]]:
    """(probabilities, targets) of the validation's windows; of each head (B, classes)."""
    scores = np.concatenate([model.score(batch.images.cpu().numpy()) for batch in batches])
    truth = [
        np.concatenate([t.cpu().numpy() for t in head]) for head in zip(*(b.targets for b in batches), strict=True)
    ]
    return list(model.spec.by_head(scores).values()), truth
