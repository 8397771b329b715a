"""A model on trial tells how it differs, decides nothing, and its faults end its trial alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.grid import Grid
from streamer.hooks import Hooks
from streamer.shadow import Comparison, Shadow
from streamer.stages import Detection, Score, Window
from streamer.trigger import ModelName, Thresholds, Trigger
from streamer.worker import Worker

GRID = Grid(100, 400, 100)
THRESHOLDS = Thresholds(on=0.5, off=0.4, in_a_row=1, release=1, dead_k=5, longest_k=100)
NEAR_K = 5
SUBJECT = "FDSN:XX_AAA__H_H"


class Told(Hooks):
    def __init__(self) -> None:
        self.differences: list[float] = []
        self.openings: Counter[str] = Counter()
        self.ended = 0

    def shadow_scored(self, ours: Score, shadows: Score) -> None:
        self.differences.append(shadows.probability - ours.probability)

    def shadow_detected(self, whose: str) -> None:
        self.openings[whose] += 1

    def shadow_ended(self) -> None:
        self.ended += 1


class First:
    """Answers what stands first in a window."""

    device = "cpu"

    def transform(self, windows: np.ndarray) -> np.ndarray:
        return windows

    def score(self, spectrograms: np.ndarray) -> np.ndarray:
        p = spectrograms[:, 0, 0]
        return np.stack([1 - p, p], axis=1)


def window(k: int, probability: float) -> Window:
    samples = np.full((3, GRID.window), probability, np.float32)
    return Window(SUBJECT, k, samples, "ZNE", True, 0)


def opening(k: int) -> Detection:
    return Detection("id", SUBJECT, k, k, 0, 0, None, 0.9, "ZNE", True, 0, ())


def shadow(told: Told, model: object = None) -> Shadow:
    worker = Worker(model or First(), 4, Hooks())  # type: ignore[arg-type]
    name = ModelName("trial", 1)
    return Shadow(worker, lambda subject: Trigger(subject, GRID, THRESHOLDS, name), NEAR_K, told)


def watch(one: Shadow, ours: Sequence[float], its: Sequence[float]) -> None:
    """Windows one by one, and the openings of ours where they rise over 0.5."""
    before = 0.0
    for k, (p, q) in enumerate(zip(ours, its, strict=True)):
        one.scored([Score(window(k, q), p)])
        if p >= 0.5 > before:
            one.detected(opening(k))
        before = p


def test_openings_of_both_of_one_and_of_the_other() -> None:
    told = Told()
    quiet, both, mine, its = [0.1] * 20, ([0.1, 0.9, 0.1], [0.1, 0.9, 0.1]), [0.1, 0.9, 0.1], [0.1, 0.1, 0.1]
    ours = [*quiet, *both[0], *quiet, *mine, *quiet, *its, *quiet]
    shadows = [*quiet, *both[1], *quiet, *its, *quiet, *mine, *quiet]
    watch(shadow(told), ours, shadows)
    assert told.openings == {"both": 1, "model": 1, "shadow": 1}
    assert max(told.differences) == pytest.approx(0.8)
    assert len(told.differences) == len(ours)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 400)), max_size=20))
def test_every_opening_is_settled_once(openings: list[tuple[bool, int]]) -> None:
    one, settled = Comparison(NEAR_K), Counter[str]()
    ordered = sorted(openings, key=lambda pair: pair[1])
    for is_model, k in ordered:
        settled.update(one.passed(k))
        settled.update(one.opened(k, "model" if is_model else "shadow"))
    settled.update(one.passed(10_000))
    assert settled["both"] * 2 + settled["model"] + settled["shadow"] == len(openings)
    assert settled["both"] + settled["model"] == sum(is_model for is_model, _ in openings)


def test_an_opening_of_a_batch_ago_still_finds_its_partner() -> None:
    """The model's own decision on a window comes after the whole batch was scored."""
    one = Comparison(NEAR_K, wait_k=64)
    assert one.opened(10, "shadow") == []
    assert one.passed(70) == []
    assert one.opened(12, "model") == ["both"]


def test_a_fault_ends_the_trial_alone() -> None:
    class Fails(First):
        def score(self, spectrograms: np.ndarray) -> np.ndarray:
            raise RuntimeError("no more memory")

    told = Told()
    one = shadow(told, Fails())
    watch(one, [0.1, 0.9, 0.9], [0.1, 0.9, 0.9])
    assert told.ended == 1
    assert not told.openings


def test_it_stands_back_while_windows_are_dropped() -> None:
    told = Told()
    one = shadow(told)
    one.overload(True)
    watch(one, [0.1] * 3, [0.2] * 3)
    assert not told.differences
    one.overload(False)
    watch(one, [0.1] * 3, [0.2] * 3)
    assert len(told.differences) == 3
