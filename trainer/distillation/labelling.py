"""Labels for continuous recordings: what several pickers say along time, and where by that earthquakes and noise lie.

An earthquake is where the first picker picks a P and another one agrees; noise is where none says anything. Recordings
are (3, N) at 100 Hz, times are indices. What is not here: files (`trainer.label`), and how a picker is fed
(`trainer.distillation.adapter`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.signal import find_peaks

from trainer.data.record import RATE_HZ
from trainer.distillation.teachers import BATCH

Flags = NDArray[np.bool_]
"""(n,) steps."""
Track = NDArray[np.float64]
"""(n,) probabilities, the highest of each step."""
Part = tuple[int, int]
"""First index, and the one behind the last."""

STEP = 5
"""Samples: picks are no better than a twentieth of a second, and tracks take little memory."""
STEPS_HZ = RATE_HZ // STEP
OVERLAP = 4
"""A picker's windows begin a quarter of their length after each other."""
EDGES = 10
"""A tenth of a window at each of its ends is not listened to, but at the recording's own: there pickers see half."""
APART_S = 1.0
"""Between two P of one picker."""
AGREE_S = 0.5
"""Two pickers mean the same P when theirs are this close."""
SAME_S = 0.3
"""A P this close to an earthquake's is its own."""
S_AFTER_P_S = (SAME_S, 25.0)
"""Where its S is looked for: 25 s are 200 km."""
AROUND_S = 45.0
"""Of a record before P, all of it, and at most of it after."""
LEAST_AFTER_S = 20.0
"""Of a record after P."""
SAID = 0.1
"""Noise is where no picker gives more than this to a P or S."""
EVENT_WEIGHT = 0.5
"""Of what tells of an earthquake otherwise, which lasts for all of the coda and is easily raised."""
BEFORE_S, AFTER_S = 3.0, 30.0
"""Between noise and what pickers say: onsets come earlier than picks, codas last."""
DISTURBED_S = (2.0, 20.0)
"""Before and after an earthquake that is none, where all is noise."""
NOISE_S = (30.0, 150.0)
"""Shortest and longest record of noise."""
CROWDED_S = (25.0, 1.0)
"""Before P: something said there may be another earthquake, whose coda it is recorded in."""


class Listener(Protocol):
    """`trainer.distillation.picker.Picker`."""

    @property
    def samples(self) -> int: ...

    def along(self, samples: NDArray[np.float32]) -> NDArray[np.float64]:
        """(B, 3, samples) -> (B, 3, samples) probabilities of P, of S, and of an earthquake otherwise told of."""
        ...


@dataclass(frozen=True, slots=True)
class Said:
    """What one picker says along a recording."""

    p: Track
    s: Track
    event: Track
    """Of an earthquake otherwise told of; zeros where it tells of none."""
    threshold: float
    """From which on its word counts."""

    @property
    def anything(self) -> Track:
        """The highest of all it says."""
        return np.maximum(np.maximum(self.p, self.s), EVENT_WEIGHT * self.event)


@dataclass(frozen=True, slots=True)
class Labelled:
    """An earthquake's record."""

    part: Part
    p: int
    s: int
    """-1 where the first picker has none."""
    is_crowded: bool
    """Another one may be in it."""


def listen(picker: Listener, threshold: float, samples: NDArray[np.float32]) -> Said:
    """What a picker says along (3, N), N at least its window; overlapping windows are averaged."""
    length, window = samples.shape[1], picker.samples
    starts = [*range(0, length - window, max(window // OVERLAP, 1)), length - window]
    total, heard = np.zeros((3, length)), np.zeros(length)
    for first in range(0, len(starts), BATCH):
        batch = starts[first : first + BATCH]
        padded = [*batch, *batch[-1:] * (BATCH - len(batch))]  # a shape has its own rounding
        answers = picker.along(np.stack([samples[:, start : start + window] for start in padded]))  # (BATCH, 3, window)
        for start, answer in zip(batch, answers, strict=False):
            begin = window // EDGES if start else 0
            end = window - (window // EDGES if start + window < length else 0)
            total[:, start + begin : start + end] += answer[:, begin:end]
            heard[start + begin : start + end] += 1
    steps = (total / heard)[:, : length // STEP * STEP].reshape(3, -1, STEP).max(axis=2)  # (3, n)
    return Said(steps[0], steps[1], steps[2], threshold)


def picks(said: Sequence[Said]) -> list[int]:
    """Steps of the P of the first picker that another one agrees with."""
    first, *others = said
    near = round(AGREE_S * STEPS_HZ)
    return [
        at for at in _peaks(first.p, first.threshold) if any(_highest(o.p, at, near) >= o.threshold for o in others)
    ]


def earthquakes(said: Sequence[Said], usable: Flags) -> Iterator[Labelled]:
    """Records around `picks`, where they are whole and ``usable`` throughout. They may overlap."""
    first = said[0]
    all_p = _peaks(np.max([one.p for one in said], axis=0), first.threshold)
    anything = np.max([one.anything for one in said], axis=0)  # (n,)
    around, far, near = (round(seconds * STEPS_HZ) for seconds in (AROUND_S, *CROWDED_S))
    for at in picks(said):
        begin, end = at - around, min(at + around, len(usable))
        if begin < 0 or end < at + round(LEAST_AFTER_S * STEPS_HZ) or not usable[begin:end].all():
            continue
        others = [p for p in all_p if begin < p < end and abs(p - at) > SAME_S * STEPS_HZ]
        is_crowded = bool(others) or bool((anything[at - far : at - near] > SAID).any())
        s = _s_of(first, at)
        yield Labelled((begin * STEP, end * STEP), _middle(at), s if s < 0 else _middle(s), is_crowded)


def quiet(said: Sequence[Said], usable: Flags) -> Iterator[Part]:
    """Where no picker says anything."""
    return _stretches(np.max([one.anything for one in said], axis=0) > SAID, usable)


def ambient(said: Sequence[Said], usable: Flags) -> Iterator[Part]:
    """All but the surroundings of `picks`, where it is known that nothing is an earthquake."""
    disturbed = np.zeros(len(usable), bool)
    before, after = (round(seconds * STEPS_HZ) for seconds in DISTURBED_S)
    for at in picks(said):
        disturbed[max(at - before, 0) : at + after] = True
    return _stretches(disturbed, usable)


def _stretches(loud: Flags, usable: Flags) -> Iterator[Part]:
    """Samples of records of noise."""
    after, before, shortest, longest = (round(s * STEPS_HZ) for s in (AFTER_S, BEFORE_S, *NOISE_S))
    free = (_since(loud) >= after) & (_since(loud[::-1])[::-1] >= before) & usable
    edges = np.flatnonzero(np.diff(free.astype(np.int8), prepend=0, append=0)).tolist()
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        for start in range(begin, end - shortest + 1, longest):
            yield start * STEP, min(start + longest, end) * STEP


def _since(flags: Flags) -> NDArray[np.int64]:
    """(n,) steps since the last flag; very many where there was none."""
    steps = np.arange(len(flags))
    return steps - np.maximum.accumulate(np.where(flags, steps, np.iinfo(np.int32).min))


def _peaks(track: Track, height: float) -> list[int]:
    found: list[int] = find_peaks(track, height=height, distance=round(APART_S * STEPS_HZ))[0].tolist()
    return found


def _highest(track: Track, at: int, near: int) -> float:
    return float(track[max(at - near, 0) : at + near + 1].max())


def _s_of(first: Said, at: int) -> int:
    """Step of the highest S after a P; -1 where it is below the threshold."""
    begin, end = (at + round(seconds * STEPS_HZ) for seconds in S_AFTER_P_S)
    after = first.s[begin:end]
    best = int(after.argmax())
    return begin + best if after[best] >= first.threshold else -1


def _middle(step: int) -> int:
    """Sample."""
    return step * STEP + STEP // 2
