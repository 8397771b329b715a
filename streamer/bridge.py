"""Short gaps of a channel: what stands in for samples that never came.

The samples on either side, mirrored into the gap and faded into each other: noise goes on as noise of the same level and
colour, where a straight line would be a silence that the spectrogram shows. Nothing is made up that was not beside the
gap; whether a window may hold any of it is decided elsewhere (`streamer.station`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Signal = NDArray[np.float64]


def bridge(samples: NDArray[np.int32 | np.float32 | np.float64], present: NDArray[np.bool_]) -> Signal:
    """(N,) samples and which of them came, at least one -> (N,) with every gap filled; a gap at an end from one side."""
    filled = samples.astype(np.float64)
    edges = np.flatnonzero(np.diff(np.concatenate([[True], present, [True]])))
    begins, ends = edges[::2], edges[1::2]
    for begin, end, next_begin in zip(begins, ends, np.append(begins, len(filled))[1:], strict=True):
        filled[begin:end] = _between(filled[:begin][::-1], filled[end:next_begin], end - begin)
    return filled


def _between(before: Signal, after: Signal, count: int) -> Signal:
    """``count`` samples; ``before`` and ``after`` lead away from the gap."""
    if not len(before):
        return _mirrored(after, count)[::-1]
    if not len(after):
        return _mirrored(before, count)
    share = np.arange(1, count + 1) / (count + 1)
    return (1 - share) * _mirrored(before, count) + share * _mirrored(after, count)[::-1]


def _mirrored(away: Signal, count: int) -> Signal:
    """Into the gap, from the edge on; back and forth where there are fewer samples than the gap lacks."""
    part = away[:count]
    return np.pad(part, (0, count - len(part)), mode="symmetric")
