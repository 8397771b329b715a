"""The filter of polyphase resampling: one definition for training and streaming.

That of `scipy.signal.resample_poly` (Kaiser window, beta 5, ten periods of the slower rate on each side), except that
each of its phases passes a constant unchanged: otherwise an offset comes out as a tone. What is not here: its use.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

HALF_PERIODS = 10
"""Filter half length in periods of the slower rate, as `scipy.signal.resample_poly` has it."""
KAISER_BETA = 5.0


def taps(ratio: Fraction) -> NDArray[np.float64]:
    """(2 * half + 1,) at ``ratio.numerator`` times the input's rate, with a gain of ``ratio.numerator``; one tap for 1."""
    up = ratio.numerator
    widest = max(up, ratio.denominator)
    if widest == 1:
        return np.ones(1)
    from scipy.signal import firwin  # large: where nothing is resampled it is not needed

    made = np.asarray(firwin(2 * HALF_PERIODS * widest + 1, 1.0 / widest, window=("kaiser", KAISER_BETA)), np.float64)
    for phase in range(up):
        made[phase::up] /= made[phase::up].sum()
    return made
