"""Weak earthquakes are taught with doubt, so that an answer grows with how plainly one stands above the noise.

A network that is taught that every labelled earthquake is as sure as any other says the same of all that it finds, and the order of
its surest answers is chance; rare false alarms are decided there. What is not here: label smoothing (`trainer.fitting.losses`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.special import expit, logit

from quake.data.spec import EVENT_HEAD, Head
from trainer.data.labels import Targets
from trainer.data.record import Example, Samples
from trainer.section import Section

BLOCK = 50
"""Samples that a level is taken of."""
LEAST_BLOCKS = 4
"""Before P, for the level of the noise; with fewer it is that of the window's quieter parts."""
Probability = Annotated[float, Field(gt=0, lt=0.5)]


class Doubt(Section):
    """The recipe's table ``[doubt]``: the probability that a label of an earthquake leaves to noise, by SNR in decibels; between
    the two ends its log-odds are linear. Instead of label smoothing."""

    weak_db: float = Field(default=5.0, description="SNR at and below which an earthquake is weak")
    strong_db: float = Field(default=35.0, description="and at and above which it is strong")
    weak: Probability = Field(default=0.1, description="left to noise by a weak one")
    strong: Probability = Field(default=0.002, description="and by a strong one")
    noise: Probability = Field(default=0.01, description="left to an earthquake by noise")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.strong_db <= self.weak_db or self.strong > self.weak:
            raise ValueError("strong_db is above weak_db, and strong not above weak")
        return self

    def applied(self, targets: Targets, examples: Sequence[Example], heads: Sequence[Head]) -> Targets:
        """Of the head ``event``; rows of zeros stay."""
        left = np.array([self.left(one) for one in examples], np.float32)[:, None]  # (B, 1)
        return tuple(
            rows * (1 - left) + (1 - rows) * left * rows.sum(axis=1, keepdims=True) if head == EVENT_HEAD else rows
            for rows, head in zip(targets, heads, strict=True)
        )

    def left(self, example: Example) -> float:
        """To the other class."""
        if example.kind != "earthquake":
            return self.noise
        ends = logit([self.weak, self.strong])
        return float(expit(np.interp(snr_db(example.samples, example.onset), [self.weak_db, self.strong_db], ends)))


def snr_db(samples: Samples, onset: int) -> float:
    """Of the loudest half second from ``onset`` on above the quieter of the half seconds before it; as a network may see it, of
    successive differences. The median over the components that have any noise; 0 where none has.

    ``samples``: (3, n); ``onset``: index of P, also before them."""
    levels = _levels(samples)  # (3, blocks)
    p = min(max(onset // BLOCK, 0), levels.shape[1] - 1)
    before = levels[:, :p] if p >= LEAST_BLOCKS else levels
    noise, loudest = np.quantile(before, 0.25, axis=1), levels[:, p:].max(axis=1)
    live = noise > 0
    return float(np.median(10 * np.log10(np.maximum(loudest[live], noise[live]) / noise[live]))) if live.any() else 0.0


def _levels(samples: Samples) -> NDArray[np.float64]:
    """(3, n) -> (3, blocks): mean squares, of whole blocks that end with the samples."""
    steps = np.diff(samples.astype(np.float64), axis=1)
    blocks = steps.shape[1] // BLOCK
    powers = np.square(steps[:, steps.shape[1] - blocks * BLOCK :]).reshape(len(steps), blocks, BLOCK)
    return np.asarray(powers.mean(axis=2), np.float64)
