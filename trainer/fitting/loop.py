"""The run: step after step, a validation and a checkpoint after each epoch, until the last step or until it gets no better.

A run that was killed and goes on from its last checkpoint ends in the same weights as one that was not. What is not
here: what a step is (`trainer.fitting.step`), what it is fed with (`trainer.fitting.feed`), and the compiled model
(`trainer.finish`).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import shorten
from typing import Any

import numpy as np
import torch

from quake.artifact import ModelError
from quake.data.spec import Head
from trainer.data.loading import Batch
from trainer.evaluation.metrics import metrics
from trainer.fitting.average import Average
from trainer.fitting.checkpoint import State, load_checkpoint, save_checkpoint
from trainer.fitting.feed import Feed
from trainer.fitting.history import History, Row
from trainer.fitting.losses import Criterion, CrossEntropy
from trainer.fitting.measured import Measured, said
from trainer.fitting.optimiser import EarlyStopping, build_optimiser, regroup
from trainer.fitting.progressive import Regularisation
from trainer.fitting.ranks import Ranks
from trainer.fitting.run_folder import RunFolder
from trainer.fitting.schedule import Schedule
from trainer.fitting.step import NotFiniteError, Stepper, Taken, heads, pieces_of, step_seed
from trainer.fitting.watch import Watch
from trainer.network import StagedNetwork
from trainer.recipe import Recipe
from trainer.section import FitError, RecipeError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
REASON = 200
"""Letters of what torch says about weights that do not fit: it names them all."""


class InterruptedFitError(FitError):
    """Someone stopped it; what was done is saved."""


class Loop:
    """A run of ``recipe``. ``network``: bare, filled, and on ``ranks.device``; every process has its own."""

    def __init__(
        self,
        recipe: Recipe,
        network: StagedNetwork,
        feed: Feed,
        criterion: Criterion,
        ranks: Ranks,
        folder: RunFolder,
    ) -> None:
        self._recipe, self._config = recipe, recipe.optimisation
        self._network, self._feed, self._ranks, self._folder = network, feed, ranks, folder
        self._criterion = criterion
        network.to(memory_format=torch.channels_last)  # convolutions are quicker so
        _check_monitor(self._stopping.monitor, recipe.heads)
        plain = CrossEntropy(type="cross_entropy", label_smoothing=0.0, head_weights=recipe.loss.head_weights)
        self._labels = plain.build(recipe.heads)  # comparable between recipes; without teachers
        self._average = Average(network, self._config.ema_decay) if self._config.ema_decay else None
        self._regularisation = Regularisation(network) if recipe.progressive else None
        self._regularise(0)  # refuses what cannot grow now, not at the first step
        self._dtype = self._config.dtype(ranks.device)
        self._scaler = torch.amp.GradScaler("cuda", enabled=self._dtype == torch.float16)
        self._step, self._seconds = 0, 0.0
        self._monitored: list[float] = []
        self._measured = Measured()
        self._arrange(None)

    @property
    def kept(self) -> StagedNetwork:
        """What is validated and becomes the model: the averaged weights, where there are any."""
        return self._average.network if self._average else self._network  # type: ignore[return-value]

    @property
    def step(self) -> int:
        """Steps taken."""
        return self._step

    def resume(self) -> None:
        """Go on from the last checkpoint. ModelError where there is none, or one of another recipe's run."""
        state = load_checkpoint(self._folder.last, self._ranks.device)
        try:
            self._fill(state)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = shorten(str(error), REASON, placeholder=" ...")
            raise ModelError(f"{self._folder.last}: is not of this recipe's run: {reason}") from error

    def _fill(self, state: State) -> None:
        self._step, self._seconds = state["step"], state["seconds"]
        self._monitored = list(state["monitored"])
        self._measured = Measured(**state["measured"])
        self._begin_epoch(max(self._step - 1, 0) // self._feed.steps_per_epoch)
        self._network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._scaler.load_state_dict(state["scaler"])
        if self._average:
            self._average.load_state_dict(state["ema"])

    def run(self) -> None:
        """To the end. InterruptedFitError when someone stops it, FitError for a loss that is no number or a full disk."""
        try:
            with _stops() as stop, self._history() as history, self._watch() as watch:
                self._steps(stop, history, watch)
        except OSError as error:  # also what closing the files says, which would hide the first
            message = f"step {self._step}: the run's folder takes no more: {error}"
            raise FitError(f"{message}; {self._saved()}; {self._how_to_go_on()}") from error

    def _steps(self, stop: list[int], history: History | None, watch: Watch) -> None:
        began, spent = time.monotonic(), self._seconds
        for batch in self._feed.batches(self._step) if not self._is_over() else ():
            if self._step % self._feed.steps_per_epoch == 0:
                self._begin_epoch(self._step // self._feed.steps_per_epoch)
            self._measured.add(self._take(batch), len(batch) * self._ranks.world)
            self._seconds = spent + time.monotonic() - began
            watch.step(self._step, self._measured.loss, self._schedule.rate_at(self._step - 1))
            is_whole = self._step % self._feed.steps_per_epoch == 0
            if is_whole:
                self._end_epoch(history, watch)
            stopped = self._ranks.any(bool(stop))
            if not is_whole and (stopped or self._step % (self._recipe.checkpoint_steps or self._step + 1) == 0):
                self._save()
            if stopped:  # in the last validation too: what comes after it takes minutes
                raise InterruptedFitError(f"stopped after step {self._step}; {self._how_to_go_on()}")
            if self._is_over():
                break

    def _take(self, batch: Batch) -> Taken:
        self._network.train()
        self._schedule.set(self._step)
        self._regularise(self._step)
        piece = self._feed.piece(batch, self._step)
        torch.manual_seed(step_seed(self._recipe.seed, self._step, self._ranks.rank))
        try:
            taken = self._stepper.take(self._optimiser, list(pieces_of(piece, self._config.accumulation)))
        except NotFiniteError as error:
            raise FitError(self._lost(error, batch)) from error
        self._step += 1
        if self._average:
            self._average.update(self._network, self._step)
        return taken

    def _regularise(self, step: int) -> None:
        settings = self._feed.settings(step)
        if settings and self._regularisation:
            self._regularisation.apply(settings)

    def _lost(self, error: NotFiniteError, batch: Batch) -> str:
        return f"step {self._step}: {error}; {self._saved()}. The batch: {self._feed.describe(batch)}"

    def _saved(self) -> str:
        last = self._folder.last
        return f"the last checkpoint, {last}, is from before" if last.exists() else "nothing is saved yet"

    def _begin_epoch(self, epoch: int) -> None:
        """What learns, and how fast, may change with an epoch."""
        tuning = self._recipe.fine_tuning
        if tuning and (tuning.at_epoch(self._network, epoch) or tuning.factor(epoch) != self._factor):
            self._arrange(epoch)

    def _arrange(self, epoch: int | None) -> None:
        """Optimiser, schedule and the network that is shared by the processes, for what learns now; None: at first."""
        tuning, batch = self._recipe.fine_tuning, self._config.batch
        self._factor = tuning.factor(epoch) if tuning and epoch is not None else 1.0
        if epoch is None:
            self._optimiser = build_optimiser(self._network, self._config, batch, self._factor)
        else:
            self._optimiser = regroup(self._optimiser, self._network, self._config, batch, self._factor)
        self._schedule = Schedule(self._optimiser, self._config, self._feed.steps_per_epoch)
        shared = self._ranks.share(self._network)
        self._stepper = Stepper(shared, self._criterion, self._ranks, self._dtype, self._config.clip_norm, self._scaler)

    def _end_epoch(self, history: History | None, watch: Watch) -> None:
        if self._ranks.is_first:
            figures = self.validate()
            self._monitored.append(self._monitor(figures))
            row = self._row(figures)
            if history:
                history.append(row)
            watch.say(said(row))
        self._measured = Measured()
        self._ranks.wait()
        self._save()

    def _row(self, figures: Mapping[str, float]) -> Row:
        measured = self._measured
        names = [head.name for head in self._recipe.heads]
        if len(measured.terms) > len(names):
            names += [f"teacher/{name}" for name in names]
        return Row(
            step=self._step,
            epoch=self._step / self._feed.steps_per_epoch,
            rate=self._schedule.rate_at(self._step - 1),
            loss=measured.loss,
            head_losses=dict(zip(names, measured.terms, strict=True)),
            dev=figures,
            windows_per_s=measured.windows_per_s,
            seconds=self._seconds,
        )

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss and figures of the network that is kept, on the validation's windows."""
        network = self.kept.eval()
        answers: list[tuple[torch.Tensor, ...]] = []
        targets: list[tuple[torch.Tensor, ...]] = []
        for batch in self._feed.validation():
            with self._stepper.autocast():
                answers.append(tuple(logits.float() for logits in heads(network(batch.images))))
            targets.append(batch.targets)
            if not all(torch.isfinite(head).all() for head in answers[-1]):
                raise FitError(f"step {self._step}: an answer in the validation is no number; {self._saved()}")
        logits, truth = ([torch.cat(head) for head in zip(*parts, strict=True)] for parts in (answers, targets))
        sums, weights = self._labels.sums(tuple(logits), tuple(truth)), self._labels.weights(tuple(truth))
        found = metrics(
            [np.clip(head.softmax(dim=1).cpu().numpy(), 0, 1) for head in logits],
            [head.cpu().numpy() for head in truth],
            self._recipe.heads,
        )
        return {"loss": float(self._labels.total(sums, weights)), **found.figures}

    def _monitor(self, figures: Mapping[str, float]) -> float:
        name = self._stopping.monitor
        if name not in figures:
            raise FitError(f"early_stopping.monitor: the validation has no {name} (there are {', '.join(figures)})")
        return figures[name]

    @property
    def _stopping(self) -> EarlyStopping:
        return self._config.early_stopping or EarlyStopping(patience=self._config.epochs)

    def _is_over(self) -> bool:
        ended = bool(self._config.early_stopping) and self._stopping.has_ended(self._monitored)
        return self._step >= self._feed.total_steps or self._ranks.any(ended)

    def _save(self) -> None:
        """The last state, and before it the best one where it is that too: a run that is killed between goes on to both."""
        if not self._ranks.is_first:
            return
        state = {
            "network": self._network.state_dict(),
            "ema": self._average.state_dict() if self._average else None,
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
            "step": self._step,
            "seconds": self._seconds,
            "monitored": self._monitored,
            "measured": self._measured.state(),
        }
        if self._step % self._feed.steps_per_epoch == 0 and self._stopping.is_best(self._monitored):
            save_checkpoint(self._folder.best, state)
        save_checkpoint(self._folder.last, state)

    def _how_to_go_on(self) -> str:
        return f"go on with: quake-trainer fit --resume {self._folder.path}"

    def _watch(self) -> Watch:
        return Watch(self._step, self._feed.total_steps, silent=not self._ranks.is_first)

    @contextmanager
    def _history(self) -> Iterator[History | None]:
        """Of the first process alone."""
        if not self._ranks.is_first:
            yield None
            return
        with History(self._folder.path, self._step, tensorboard=self._recipe.tensorboard) as history:
            yield history


def _check_monitor(name: str, of: Sequence[Head]) -> None:
    """RecipeError where no validation can have it."""
    rows = np.arange(max(len(head.classes) for head in of))
    all_known = [np.eye(len(head.classes), dtype=np.float32)[rows % len(head.classes)] for head in of]
    known = {"loss", *metrics(all_known, all_known, of).figures}
    if name not in known:
        raise RecipeError(f"early_stopping.monitor: there is no {name!r}, but {', '.join(sorted(known))}")


@contextmanager
def _stops() -> Iterator[list[int]]:
    """Signals that asked to stop; the next one of them ends the process at once, as it would have without this."""
    asked: list[int] = []

    def note(number: int, _frame: object) -> None:
        asked.append(number)
        signal.signal(number, before[number])

    before: dict[int, Any] = {int(number): signal.getsignal(number) for number in SIGNALS}
    for number in before:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
