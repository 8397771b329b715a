"""The recipe's table ``[fine_tuning]``: start from a network that has learned, and let go of it stage by stage.

What learns, and how fast, is a function of the epoch, so a resumed run goes on where it was. What is not here: the
optimiser that is made anew when more learns (`trainer.fitting.optimiser.regroup`).
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from trainer.fitting.lora import Lora, add_adapters
from trainer.fitting.start import start_from
from trainer.network import StagedNetwork
from trainer.section import Positive, RecipeError, Section


class Release(Section):
    """Stages of the backbone that learn from an epoch on."""

    epoch: int = Field(ge=1, description="epochs that are over by then")
    last: int | None = Field(default=None, ge=1, description="how many, counted from the heads; left out: all")


class FineTuning(Section):
    """Training that goes on from weights of ours."""

    start: Path | tuple[Path, ...] = Field(
        description="a compiled model (TorchScript), or a checkpoint in the folder of a run; of several the mean of"
        " their weights: runs that went on from one network, with other seeds"
    )
    head: Literal["keep", "replace"] = Field(default="keep", description="replace: the heads' last layers begin anew")
    freeze: bool = Field(default=False, description="the backbone does not learn, until it is released")
    unfreeze: tuple[Release, ...] = Field(default=(), description="in the order of their epochs")
    rate_after: Positive = Field(default=1.0, description="the rates are multiplied by this from the first release on")
    lora: Lora | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.starts:
            raise ValueError("start names no file")
        if self.lora and self.freeze:
            raise ValueError("lora freezes the backbone itself: leave freeze and unfreeze out")
        if self.unfreeze and not self.freeze:
            raise ValueError("unfreeze releases nothing where freeze is false")
        if self.rate_after != 1 and not self.unfreeze:
            raise ValueError("rate_after has no effect where unfreeze names no epoch")
        for first, second in pairwise(self.unfreeze):
            if second.epoch <= first.epoch or first.last is None or (second.last and second.last <= first.last):
                raise ValueError(f"unfreeze: epoch {second.epoch} releases nothing that epoch {first.epoch} has not")
        return self

    @property
    def starts(self) -> tuple[Path, ...]:
        return (self.start,) if isinstance(self.start, Path) else self.start

    def fill(self, network: StagedNetwork, folder: Path = Path()) -> None:
        """Give a fresh network the weights to start from; a relative ``start`` counts from ``folder``.

        ModelError where they cannot be had or do not fit.
        """
        start_from(network, [folder / start for start in self.starts], self.head)

    def prepare(self, network: StagedNetwork) -> None:
        """Freeze the backbone or add adapters: after `fill`, and alike on a network that a checkpoint will fill.

        RecipeError for stages that the network does not have, and adapters that it cannot take.
        """
        count = sum(stage.pretrained for stage in network.stages)
        beyond = [release.last for release in self.unfreeze if release.last and release.last > count]
        if beyond:
            raise RecipeError(f"fine_tuning.unfreeze: last {beyond[0]}, and the backbone has {count} stages")
        if self.freeze:
            network.freeze()
        if self.lora:
            add_adapters(network, self.lora)

    def at_epoch(self, network: StagedNetwork, epoch: int) -> bool:
        """Let learn what learns after ``epoch`` epochs; whether that is more than before the call."""
        before = _learning(network)
        for release in self.unfreeze:
            if release.epoch <= epoch:
                network.unfreeze(release.last)
        return _learning(network) != before

    def factor(self, epoch: int) -> float:
        """Of the rates, after ``epoch`` epochs."""
        return self.rate_after if any(release.epoch <= epoch for release in self.unfreeze) else 1.0


def _learning(network: StagedNetwork) -> int:
    return sum(parameter.requires_grad for parameter in network.parameters())
