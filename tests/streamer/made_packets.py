"""Recordings, packets and scores for the tests of this folder."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from streamer.stages import NS, Cursor, Packet, Score, Window

SUBJECT = "FDSN:XX_ABC__H_H"
EPOCH_S = 1_700_000_000
"""Where the tests' recordings lie; a whole second."""


def packet(
    component: str,
    first: int,
    samples: NDArray[np.int32] | NDArray[np.float32],
    rate: Fraction | int = 100,
    *,
    shift_ns: int = 0,
    cursor: Cursor | None = None,
) -> Packet:
    """Samples [first, first + len) of the rate, counted from `EPOCH_S`."""
    start_ns = EPOCH_S * NS + round(first * NS / Fraction(rate)) + shift_ns
    end_ns = start_ns + round(len(samples) * NS / Fraction(rate))
    return Packet(f"{SUBJECT}_{component}", start_ns, Fraction(rate), samples, cursor, end_ns, 512)


def noise(count: int, seed: int = 0) -> NDArray[np.int32]:
    return np.random.default_rng(seed).integers(-100_000, 100_000, count, dtype=np.int32)


def score(k: int, probability: float, *, subject: str = SUBJECT, window: int = 40, components: str = "ZNE") -> Score:
    samples = np.random.default_rng(k).normal(0, 1, (3, window)).astype(np.float32)
    return Score(Window(subject, k, samples, components, components == "ZNE", k), probability)
