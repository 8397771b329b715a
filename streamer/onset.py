"""Where in the deciding window the earthquake begins: Akaike's information criterion on the vertical.

Maeda (1985) as ObsPy has it. The first difference whitens the record, so that microseisms do not set the variance; it
moves an onset by at most one sample. Display and association use the onset; identity never does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from obspy.signal.trigger import aic_simple

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
    criterion = np.asarray(aic_simple(part), dtype=np.float64)
    return begin + 1 + EDGE + int(np.argmin(criterion[EDGE:-EDGE]))
