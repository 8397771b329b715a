"""Two passes over one station's windows, with the decisions of one: every n-th window is scored, then what those call for.

A run that opens a detection is ``in_a_row`` windows none of which is below ``off``. With one of so many scored in the first
pass, each such run holds one that is; from there the neighbours are scored, and theirs, until ``release`` windows in a row
lie below ``off``: where an open detection has closed. So every window of a run, and every one that an open detection sees,
has its score, and the others would have changed nothing. Pure; windows and answers come from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from streamer.stages import Passed, Score, Unscored, Window
from streamer.worker import Cut, Decided

NO_SAMPLES = np.zeros((3, 0), np.float32)
"""Of a window that nothing will be asked of any more."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What a trigger may look at, in windows."""

    in_a_row: int
    release: int
    off: float
    samples: int
    """After a window at or above ``off``, windows whose samples may be asked for: onset, size and direction are found in them."""

    def is_first(self, k: int) -> bool:
        """Whether the first pass scores window k."""
        return k % self.in_a_row == self.in_a_row - 1


class TwoPasses:
    """Windows of one subject in the order of their numbers; each comes out once, decided, in the same order."""

    def __init__(self, score: Callable[[list[Window]], list[Decided]], reach: Reach, batch: int) -> None:
        """``score`` takes at most ``batch`` windows. The first ``release`` windows are scored in any case: a detection may be
        open from before."""
        self._score, self._reach, self._batch = score, reach, batch
        self._items: list[Cut] = []
        self._firsts = 0
        self._ahead = reach.release
        """Windows to come that are called for by those before them."""
        self._samples = reach.samples + 1
        """Windows to come whose samples are kept: of a detection that may be open from before."""

    @property
    def release(self) -> int:
        """How many windows before the first that matters are to be given."""
        return self._reach.release

    def add(self, item: Cut) -> Iterator[Decided]:
        """What is decided by now: nothing until a batch of the first pass is full."""
        self._items.append(item)
        if isinstance(item, Window) and self._reach.is_first(item.k):
            self._firsts += 1
            if self._firsts == self._batch:
                yield from self.flush()

    def flush(self) -> Iterator[Decided]:
        """Decide all that waits. Exact only where the newest window is one of the first pass: a later one calls for none
        before it then."""
        items, self._items, self._firsts = self._items, [], 0
        answers = iter(self._answers([item for item in items if isinstance(item, Window)]))
        yield from _joined(next(answers) if isinstance(item, Window) else item for item in items)

    def _answers(self, windows: Sequence[Window]) -> list[Decided]:
        answers: list[Decided | None] = [None] * len(windows)
        wanted = {n for n, window in enumerate(windows) if n < self._ahead or self._reach.is_first(window.k)}
        while wanted:
            for n, answer in zip(sorted(wanted), self._scored([windows[n] for n in sorted(wanted)]), strict=True):
                answers[n] = answer
            wanted = self._called_for(answers)
        self._ahead = self._left(answers)
        return [self._without_samples(w, a) for w, a in zip(windows, answers, strict=True)]

    def _scored(self, windows: list[Window]) -> list[Decided]:
        batches = (windows[at : at + self._batch] for at in range(0, len(windows), self._batch))
        return [answer for batch in batches for answer in self._score(batch)]

    def _called_for(self, answers: Sequence[Decided | None]) -> set[int]:
        """Windows without a score beside one at or above ``off``, and those next to them up to the first that has one: whole
        stretches take fewer batches, and a score too many changes nothing."""
        if any(
            isinstance(answer, Unscored) for answer in answers
        ):  # the model has none: all, rather than count past it
            return {n for n, answer in enumerate(answers) if answer is None}
        found: set[int] = set()
        hot = [n for n, answer in enumerate(answers) if self._is_hot(answer)]
        for n in hot:
            for beside in range(max(n - 1, 0), min(n + self._reach.release + 1, len(answers))):
                if answers[beside] is None and beside not in found:
                    found |= _stretch(answers, beside)
        return found

    def _left(self, answers: Sequence[Decided | None]) -> int:
        """Windows to come that are called for."""
        left = self._ahead
        for answer in answers:
            if self._is_hot(answer):
                left = self._reach.release
            elif not isinstance(answer, Unscored):
                left = max(left - 1, 0)
        return left

    def _is_hot(self, answer: Decided | None) -> bool:
        return isinstance(answer, Score) and answer.probability >= self._reach.off

    def _without_samples(self, window: Window, answer: Decided | None) -> Decided:
        if answer is None:
            self._samples = max(self._samples - 1, 0)
            return Passed(window.subject, window.k, window.k)
        self._samples = self._reach.samples + 1 if self._is_hot(answer) else self._samples
        kept, self._samples = self._samples > 0, max(self._samples - 1, 0)
        return answer if kept or not isinstance(answer, Score) else replace(answer, window=bare(answer.window))


def bare(window: Window) -> Window:
    """Without its samples."""
    return replace(window, samples=NO_SAMPLES)


def _stretch(answers: Sequence[Decided | None], inside: int) -> set[int]:
    first = last = inside
    while first > 0 and answers[first - 1] is None:
        first -= 1
    while last + 1 < len(answers) and answers[last + 1] is None:
        last += 1
    return set(range(first, last + 1))


def _joined(items: Iterable[Decided]) -> Iterator[Decided]:
    """Neighbours that were passed over, as one."""
    passed: Passed | None = None
    for item in items:
        if passed is not None and isinstance(item, Passed) and item.first == passed.last + 1:
            passed = replace(passed, last=item.last)
            continue
        if passed is not None:
            yield passed
        passed = item if isinstance(item, Passed) else None
        if passed is None:
            yield item
    if passed is not None:
        yield passed
