"""A run from its recipe to the compiled model: read, build, fit, finish.

The order of things is here, and nothing else: each is done in a module of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from quake.data.spec import TrainingSource
from trainer.data.labels import class_weights
from trainer.data.record import Record
from trainer.data.sources import Collection, read_records
from trainer.finish import finish, kept_state
from trainer.fitting.checkpoint import State
from trainer.fitting.feed import Feed
from trainer.fitting.loop import Loop
from trainer.fitting.losses import LabelCriterion
from trainer.fitting.ranks import Ranks, ranks
from trainer.fitting.run_folder import RunFolder, surroundings
from trainer.network import StagedNetwork
from trainer.recipe import Located, Recipe, read_recipe
from trainer.section import FitError, RecipeError

log = logging.getLogger(__name__)


def fit(located: Located, out: Path) -> RunFolder:
    """Fit a recipe into a new folder."""
    with ranks(located.recipe.device) as mine:
        folder = RunFolder(out)
        if mine.is_first:
            folder.claim()
        _run(located, folder, mine, resumed=False)
    return folder


def resume(out: Path) -> RunFolder:
    """Go on with a run that was stopped or killed, from its last checkpoint; or from its beginning where it has none."""
    folder = RunFolder(out)
    located = _begun(folder)
    with ranks(located.recipe.device) as mine:
        _run(located, folder, mine, resumed=True)
    return folder


def compile_run(out: Path, keep: Literal["last", "best"] | None = None) -> RunFolder:
    """Make the model of a run anew; ``keep``: from which checkpoint, the recipe's choice if not given."""
    folder = RunFolder(out)
    located = _begun(folder)
    recipe = located.recipe
    if keep:
        recipe = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"keep": keep})})
    state = kept_state(recipe, folder)  # before the data are read, which takes longer
    torch.set_num_threads(recipe.threads)
    train, dev = read_data(located)
    _refuse_changed(folder, train, dev)
    _finish(recipe, build(located, filled=False), state, train, dev, folder)
    return folder


def build(located: Located, *, filled: bool = True) -> StagedNetwork:
    """The network to train; its random weights come from the seed. ``filled``: with what fine-tuning starts from."""
    recipe = located.recipe
    torch.manual_seed(recipe.seed)
    network = recipe.network.build(recipe.spec().input_shape, recipe.heads, located.folder)
    if recipe.progressive:
        recipe.progressive.check(network, *recipe.spec().input_shape[1:])
    if recipe.fine_tuning:
        if filled:
            recipe.fine_tuning.fill(network, located.folder)
        recipe.fine_tuning.prepare(network)
    return network


def read_data(located: Located) -> tuple[Collection, Collection]:
    """Of training and of development."""
    data = located.recipe.data
    train, dev = (
        read_records(data.source, split, data.quality, located.folder, data.leave_out)
        for split in (data.train, data.dev)
    )
    return train, dev


def sources_of(records: Sequence[Record]) -> tuple[TrainingSource, ...]:
    """As far as the data name them."""
    pairs = sorted({(record.source, record.licence) for record in records})
    return tuple(TrainingSource(name=n, licence=licence, citation="not stated in the data") for n, licence in pairs)


def _run(located: Located, folder: RunFolder, mine: Ranks, *, resumed: bool) -> None:
    recipe = located.recipe
    torch.set_num_threads(recipe.threads)
    train, dev = read_data(located)
    if resumed:
        _refuse_changed(folder, train, dev)
    goes_on = resumed and folder.last.exists()
    network = build(located, filled=not goes_on).to(mine.device)
    labels = _criterion(recipe, train.records)
    criterion = recipe.distillation.build(labels) if recipe.distillation else labels
    feed = Feed(recipe, located.folder, train.records, dev.records, mine)
    loop = Loop(recipe, network, feed, criterion, mine, folder)
    if mine.is_first:
        folder.furnish()
        if not resumed:  # all that could be refused has been: what was is no run, and leaves an empty folder
            _write_beginning(located, folder, train, dev, mine)
    mine.wait()  # nobody writes a checkpoint before all know whether there is one
    if goes_on:
        loop.resume()
    loop.run()
    if mine.is_first:
        _finish(recipe, network, kept_state(recipe, folder), train, dev, folder)
    mine.wait()


def _finish(
    recipe: Recipe, network: StagedNetwork, state: State, train: Collection, dev: Collection, folder: RunFolder
) -> None:
    """FitError where someone stops it, or the disk is full: no step is lost then."""
    hint = f"make the model with: quake-trainer compile {folder.path}"
    try:
        finish(recipe, network, state, sources_of(train.records), dev.records, folder)
    except KeyboardInterrupt as error:
        raise FitError(f"stopped before the model was made, all steps are saved; {hint}") from error
    except OSError as error:
        raise FitError(f"{folder.model}: {error}; all steps are saved; {hint}") from error


def _begun(folder: RunFolder) -> Located:
    """The recipe of a run that was begun."""
    about = folder.read_about()
    return Located(read_recipe(folder.recipe).recipe, Path(about["folder"]))


def _criterion(recipe: Recipe, records: Sequence[Record]) -> LabelCriterion:
    heads, absent = recipe.heads, recipe.data.absent_classes
    weights = class_weights(records, heads, recipe.class_weights, absent)
    named = {head.name: own.tolist() for head, own in zip(heads, weights, strict=True)}
    return recipe.loss.build(heads, named)


def _refuse_changed(folder: RunFolder, train: Collection, dev: Collection) -> None:
    """RecipeError where a run that goes on would not be made from what it began with."""
    old, new = folder.read_about()["data"], {**train.hashes, **dev.hashes}
    changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    if changed:
        raise RecipeError(f"{folder.path}: the data changed since the run began: {', '.join(changed)}")


def _write_beginning(located: Located, folder: RunFolder, train: Collection, dev: Collection, mine: Ranks) -> None:
    """What the run is made from."""
    hashes = {**train.hashes, **dev.hashes}
    folder.recipe.write_text(located.recipe.to_toml(), encoding="utf-8")
    both = Collection(train.records + dev.records, tuple(dict.fromkeys(train.left_out + dev.left_out)))
    both.write_left_out(folder.left_out)
    about = {"folder": str(located.folder), "seed": located.recipe.seed, "processes": mine.world, "data": hashes}
    counts = {"train": len(train.records), "dev": len(dev.records), "left_out": len(both.left_out)}
    folder.write_about({**about, "records": counts, **surroundings()})
    log.info("%s: %d records to train on, %d to measure on; %d left out", folder.path, *counts.values())
