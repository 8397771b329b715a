"""What is trained and measured on: `Record`, one station's labelled recording, and `Example`, a window cut from one.

All samples are at RATE_HZ, in the order COMPONENTS, float32, mean removed. What is not here: where records come from
(`trainer.data.sources`), what is cut from them (`trainer.data.drawing`), what is done to it (`trainer.augmentation`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from quake.data.offset import without_offset

Samples = NDArray[np.float32]
Kind = Literal["earthquake", "noise", "unlabelled"]

COMPONENTS = "ZNE"
RATE_HZ = 100
LEAD_S = 60
"""Seconds of mirrored noise in front of each record: the longest look-back among the detectors compared."""
GUARD_S = 1.0
"""Seconds before P that are not mirrored, nor cut as noise: picks are not exact."""
UNKNOWN = float("nan")
BY_PICKERS = "(labelled by pickers)"
"""In the origin of records whose labels other networks gave: to learn from, no truth to measure by."""


@dataclass(frozen=True, slots=True)
class Record:
    """One station's recording, with its lead."""

    name: str
    """Of the trace; one of a kind among all sources of a recipe."""
    source: str
    """Data set that it comes from."""
    source_id: str
    """Earthquake; records of one earthquake never lie in two splits. Empty for noise."""
    samples: Samples
    """(3, N) Z, N, E, the lead included; the mean of the part before P is removed. A missing component is zeros."""
    kind: Kind
    p: int = -1
    """Index of P; -1 where there is none."""
    s: int = -1
    """Index of S; -1 where it is not known."""
    lead: int = LEAD_S * RATE_HZ
    """Samples of mirrored noise before the first real one."""
    is_crowded: bool = False
    """Other earthquakes are known in it."""
    origin: str = ""
    """How a noise record was chosen; empty for events that people found. BY_PICKERS is in it where pickers labelled."""
    magnitude: float = UNKNOWN
    """NaN where it is not known, or where the station's gain is not: size cannot be learned there."""
    back_azimuth_deg: float = UNKNOWN
    """Station to event, clockwise from north; NaN where it is not known, or the horizontals' orientation is not."""
    distance_km: float = UNKNOWN
    """Epicentral."""
    snr_db: float = UNKNOWN
    """Of P, as the data set states it."""
    licence: str = "not stated"
    weight: float = 1.0
    """Of its source in the recipe's mixture."""

    @property
    def is_event(self) -> bool:
        return self.kind == "earthquake"


@dataclass(frozen=True, slots=True)
class Example:
    """A window that a network is trained on, or longer samples that end with it, before they are cropped."""

    samples: Samples
    """(3, n), its own copy."""
    kind: Kind
    onset: int
    """Index of P within it; negative: before it; n or more: there is none (noise)."""
    magnitude: float = UNKNOWN
    """NaN: not known. Noise has none either: its class is that of no event."""
    back_azimuth_deg: float = UNKNOWN

    def last(self, length: int) -> Example:
        """Its last ``length`` samples."""
        skipped = self.samples.shape[1] - length
        return replace(self, samples=self.samples[:, skipped:], onset=self.onset - skipped) if skipped else self

    def having(self, samples: Samples) -> Example:
        """The same with other samples."""
        return replace(self, samples=samples)


class Material(Protocol):
    """Other windows of the same recipe, for what is mixed of several."""

    def noise(self, rng: np.random.Generator, length: int) -> Samples:
        """(3, length) of a noise record."""
        ...

    def earthquake(self, rng: np.random.Generator, length: int) -> Example:
        """(3, length) with P or S in it."""
        ...


def with_lead(samples: Samples, quiet: int, lead: int) -> Samples:
    """(3, N) -> (3, lead + N): led in by the first ``quiet`` samples, there and back, whose mean is removed."""
    samples = without_offset(samples, quiet).astype(np.float32)  # of the quiet part: nothing after P may show before it
    noise = samples[:, :quiet]
    period = np.concatenate([noise, noise[:, ::-1]], axis=1)  # (3, 2 quiet): no step at the joints
    copies = -(-lead // period.shape[1])
    return np.concatenate([np.tile(period, (1, copies))[:, -lead:], samples], axis=1)
