"""The offset that samples are freed of before they become float32: one definition for training and streaming.

A mean depends on which samples it is taken of, and those of a record and of a window differ. Taken off exactly it would
round each sample otherwise, which a logarithm shows in cells of a spectrogram that hold next to nothing. A mean to some
sixteen bits of the peak leaves whole counts exact in float32, whatever it was taken of.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BITS = 17
"""Of the peak, to which the offset is rounded: whole counts up to 2^24 less such an offset are exact in float32's 24."""
LEAST_EXPONENT = -1000
"""Of two: a quantum above the least number there is."""


def without_offset(
    samples: NDArray[Any], quiet: int | None = None, extremes: tuple[NDArray[Any], NDArray[Any]] | None = None
) -> NDArray[np.float64]:
    """(..., N) less the mean of the first ``quiet`` (default: all), which is rounded to 2^-17 of the peak. ``extremes``: (..., 1)
    least and largest of the samples, of whoever knows them already."""
    wide = samples.astype(np.float64, copy=False)
    means = wide[..., :quiet].mean(axis=-1, keepdims=True)
    low, high = extremes or (wide.min(axis=-1, keepdims=True), wide.max(axis=-1, keepdims=True))
    peaks = np.maximum(high - means, means - low)
    quanta = np.ldexp(1.0, np.maximum(np.frexp(peaks)[1] - BITS, LEAST_EXPONENT))
    return np.asarray(wide - np.where(peaks > 0, np.round(means / quanta) * quanta, means))
