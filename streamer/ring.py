"""The newest minutes of one channel, placed by absolute sample number.

Preallocated; knows which samples have come. Order of arrival, packet sizes and repeats leave no trace: the first sample
that came for a number stays. Keeps no clock and decides nothing about windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int32 | np.float32 | np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Placed:
    """What became of a packet's samples."""

    stored: int
    overlap: int
    """Samples whose number was taken: the earlier ones stay."""
    late: int
    """Samples older than the ring, or than what anybody still needs."""


class Ring:
    """``capacity`` samples of one channel; sample number n lies in slot n mod capacity."""

    def __init__(self, rate: Fraction, capacity: int, dtype: np.dtype[Any]) -> None:
        self.rate = rate
        """Hertz."""
        self.capacity = capacity
        self.end: int | None = None
        """One past the newest sample number; None while empty."""
        self._samples: Samples = np.zeros(capacity, dtype)
        self._present: Mask = np.zeros(capacity, np.bool_)
        self._run = 0
        """From here to ``end`` every sample has come, as far as is known without a look at each: data that come in order
        are asked for by their two ends."""

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._samples.dtype

    @property
    def begin(self) -> int | None:
        """The oldest sample number that the ring can still hold."""
        return None if self.end is None else self.end - self.capacity

    @property
    def fill(self) -> float:
        """Share of slots that hold a sample."""
        return float(self._present.mean())

    def insert(self, first: int, samples: Samples, *, valid: Mask | None = None, floor: int | None = None) -> Placed:
        """Place samples [first, first + len). Of a packet longer than the ring, the newest samples stay.

        ``valid`` leaves samples out as if they had not come; numbers below ``floor`` are of use to nobody any more.
        """
        if samples.dtype != self._samples.dtype:
            # A digitiser that changed its encoding: float64 holds both kinds exactly, in whichever order they come.
            self._samples = self._samples.astype(np.float64, copy=False)
        end, before = first + len(samples), self.end
        held_from = max(first, self._advance(end) - self.capacity)
        if held_from >= end:
            return Placed(0, 0, len(samples) if valid is None else int(valid.sum()))
        good = np.ones(len(samples), np.bool_) if valid is None else valid
        taken = self._present[self._slots(held_from, end)]
        fresh = good[held_from - first :] & ~taken
        wanted = min(max(held_from, held_from if floor is None else floor), end) - held_from
        overlap = int(good[held_from - first :].sum()) - int(fresh.sum())
        late = int(good[: held_from - first].sum()) + int(fresh[:wanted].sum())
        fresh[:wanted] = False
        self._store(held_from, samples[held_from - first :], fresh)
        self._extend(before, held_from, fresh)
        return Placed(int(fresh.sum()), overlap, late)

    def read(self, begin: int, end: int) -> tuple[Samples, Mask]:
        """Copies of samples [begin, end) and of which of them have come; those outside the ring have not."""
        samples, present = np.zeros(end - begin, self._samples.dtype), np.zeros(end - begin, np.bool_)
        if self.end is not None:
            low, high = max(begin, self.end - self.capacity), min(end, self.end)
            for number, slots in self._spans(low, high):
                here = slice(number - begin, number - begin + slots.stop - slots.start)
                samples[here], present[here] = self._samples[slots], self._present[slots]
        return samples, present

    def copy(self, begin: int, end: int, into: NDArray[np.float64]) -> None:
        """Samples [begin, end), all of which have come (`complete`), into an array of as many."""
        for number, slots in self._spans(begin, end):
            into[number - begin : number - begin + slots.stop - slots.start] = self._samples[slots]

    def complete(self, begin: int, end: int) -> bool:
        """Whether every sample of [begin, end) has come and is still here."""
        if self.end is None or end > self.end or begin < self.end - self.capacity:
            return False
        return begin >= self._run or all(bool(self._present[slots].all()) for _, slots in self._spans(begin, end))

    def next_present(self, begin: int) -> int | None:
        """The first sample number at or after ``begin`` that has come."""
        if self.end is None:
            return None
        for number, slots in self._spans(max(begin, self.end - self.capacity), self.end):
            part = self._present[slots]
            at = int(part.argmax())
            if part[at]:
                return number + at
        return None

    def _store(self, first: int, samples: Samples, fresh: Mask) -> None:
        for number, slots in self._spans(first, first + len(samples)):
            part = slice(number - first, number - first + slots.stop - slots.start)
            np.copyto(self._samples[slots], samples[part], where=fresh[part])
            self._present[slots] |= fresh[part]

    def _extend(self, before: int | None, first: int, fresh: Mask) -> None:
        """The run goes on, or begins anew, with samples from ``first`` on that were stored where ``fresh``."""
        new = first if before is None else max(before, first)
        if new >= first + len(fresh):  # nothing beyond what was the end
            return
        if not fresh[new - first :].all():
            self._run = first + len(fresh)
        elif before is None or new > before:
            self._run = new

    def _slots(self, begin: int, end: int) -> slice | NDArray[np.int64]:
        low = begin % self.capacity
        if low + end - begin <= self.capacity:
            return slice(low, low + end - begin)
        return np.arange(begin, end) % self.capacity

    def _spans(self, begin: int, end: int) -> Iterator[tuple[int, slice]]:
        """The slots of [begin, end), at most ``capacity`` of them, in one or two runs, each with its first number."""
        if begin >= end:
            return
        low, count = begin % self.capacity, end - begin
        first = min(count, self.capacity - low)
        yield begin, slice(low, low + first)
        if first < count:
            yield begin + first, slice(0, count - first)

    def _advance(self, end: int) -> int:
        """Make room up to ``end``; the new end."""
        if self.end is None:
            self.end = end
        elif end > self.end:
            if end - self.end >= self.capacity:
                self._present[:] = False
            for _, slots in self._spans(max(self.end, end - self.capacity), end):
                self._present[slots] = False
            self.end = end
        return self.end
