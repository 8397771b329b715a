"""Polyphase resampling on absolute sample numbers: a finite filter, so that a sample depends on no packet boundary.

The filter (`quake.data.resampling`) is placed so that output m lies at m / model_rate seconds since the epoch. No state
is kept between calls.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from quake.data.resampling import taps


@dataclass(frozen=True)
class Resampler:
    """From ``ratio.denominator`` input samples to ``ratio.numerator`` output samples."""

    ratio: Fraction
    taps: NDArray[np.float64] = field(init=False, repr=False, compare=False)
    """(2 * half + 1,) at ratio.numerator times the input's rate."""
    half: int = field(init=False, repr=False, compare=False)
    is_idle: bool = field(init=False, repr=False, compare=False)
    """The rates are alike: what goes in comes out."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "taps", taps(self.ratio))
        object.__setattr__(self, "half", len(self.taps) // 2)
        object.__setattr__(self, "is_idle", self.ratio == 1)

    def needs(self, first: int, count: int) -> tuple[int, int]:
        """Input sample numbers [begin, end) that output samples [first, first + count) depend on."""
        if self.is_idle:  # asked for each component of each window
            return first, first + count
        up, down = self.ratio.numerator, self.ratio.denominator
        begin = -((self.half - first * down) // up)
        end = ((first + count - 1) * down + self.half) // up + 1
        return begin, end

    def __call__(self, samples: NDArray[np.float64], first: int, count: int) -> NDArray[np.float64]:
        """Output samples [first, first + count) from the input samples that `needs` names."""
        if self.is_idle:
            return samples
        from scipy.signal import upfirdn  # as in `quake.data.resampling`

        up, down = self.ratio.numerator, self.ratio.denominator
        begin, _ = self.needs(first, count)
        # Position of output `first` among the up-sampled input, filter delay included; zeros before the filter make it
        # a multiple of `down`, the step at which upfirdn keeps outputs.
        place = first * down - begin * up + self.half
        padding = -place % down
        out = upfirdn(np.concatenate([np.zeros(padding), self.taps]), samples, up, down)
        at = (place + padding) // down
        return np.asarray(out[at : at + count], dtype=np.float64)


@lru_cache(maxsize=64)
def resampler(ratio: Fraction) -> Resampler:
    """One filter for each ratio, shared by all stations."""
    return Resampler(ratio)
