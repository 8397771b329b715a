"""Where in the deciding window the earthquake begins: Akaike's information criterion on the vertical.

Maeda (1985), to rounding as ObsPy has it, whose package of signals would bring matplotlib into the daemon. The first
difference whitens the record, so that microseisms do not set the variance; it moves an onset by at most one sample.
Display and association use the onset; identity never does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SEARCH_S = 10.0
"""Seconds before the end of the first window above threshold in which the onset is looked for."""
EDGE = 10
"""Samples at either end that the criterion cannot judge: a variance needs a few."""


def refine(samples: NDArray[np.float32], begin: int) -> int:
    """Index of the onset in ``samples`` (N,), not before ``begin``; ``begin`` where there is nothing to pick."""
    part = np.diff(samples[begin:].astype(np.float64))
    if len(part) <= 2 * EDGE or not part.any():
        return begin
    # A little of the record's own scale keeps the logarithm of a constant stretch finite.
    part = part + np.random.default_rng(0).normal(0.0, 1e-6 * float(part.std()), len(part))
    return begin + 1 + EDGE + int(np.argmin(criterion(part)[EDGE:-EDGE]))


def criterion(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) -> (N - 1,) k log var(first k) + (N - k - 1) log var(the others), for k from 1."""
    count = np.arange(1, len(samples))  # k
    before = _variances(samples)[:-1]
    after = _variances(samples[::-1])[-2::-1]
    return np.asarray(count * np.log(before) + (len(samples) - count - 1) * np.log(after))


def _variances(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) of the first 1, 2, ... N; of one sample, or one value, the least number there is."""
    count = np.arange(1, len(samples) + 1)
    found = np.cumsum(np.square(samples)) / count - np.square(np.cumsum(samples) / count)
    return np.asarray(np.maximum(found, np.finfo(np.float64).tiny))
