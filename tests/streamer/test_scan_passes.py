"""Two passes against one: the same trigger decides the same of all windows and of those that two passes score."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamer.grid import Grid
from streamer.scan_passes import NO_SAMPLES, Reach, TwoPasses
from streamer.stages import Detection, Passed, Score, Unscored, Unused, Window
from streamer.trigger import ModelName, Thresholds, Trigger, TriggerState
from streamer.worker import Cut, Decided

GRID = Grid(100, 2080, 100)
SUBJECT = "FDSN:XX_A__H_H"
SAMPLES = np.ones((3, 2080), np.float32)
OFF, ON = 0.5, 0.9
NO_ANSWER = -1.0
"""Of the model, to a window."""

probabilities = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([0.1, 0.6, 0.95, 0.99, NO_ANSWER]), st.integers(1, 9)),
        st.tuples(st.none(), st.integers(1, 4)),
    ),
    max_size=30,
).map(lambda runs: [p for p, count in runs for _ in range(count)])
"""Of windows that follow one another; None: one that cannot be scored."""


def thresholds(in_a_row: int, release: int, longest_k: int = 40) -> Thresholds:
    return Thresholds(on=ON, off=OFF, in_a_row=in_a_row, release=release, dead_k=4, longest_k=longest_k)


def cut(k: int, p: float | None) -> Cut:
    if p is None:
        return Unscored(SUBJECT, k, k, Unused.GAP)
    return Window(SUBJECT, k, SAMPLES, "ZNE", True, 0)


def answered(window: Window, p: float) -> Decided:
    return Unscored(SUBJECT, window.k, window.k, Unused.CORRUPT) if p == NO_ANSWER else Score(window, p)


def decide(limits: Thresholds, items: list[Decided], state: TriggerState | None = None) -> list[Detection]:
    trigger = Trigger(SUBJECT, GRID, limits, ModelName("made", 1), state)
    found = [trigger.decide(item) for item in items]
    return [replace(detection, trace=()) for detection in found if detection is not None]


def passed_twice(limits: Thresholds, cuts: list[Cut], answer: dict[int, float], batch: int = 3) -> list[Decided]:
    asked: list[int] = []

    def score(windows: list[Window]) -> list[Decided]:
        assert len(windows) <= batch
        asked.extend(window.k for window in windows)
        return [answered(window, answer[window.k]) for window in windows]

    passes = TwoPasses(score, Reach(limits.in_a_row, limits.release, limits.off, samples=10), batch)
    items = [decided for item in cuts for decided in passes.add(item)] + list(passes.flush())
    assert len(asked) == len(set(asked))
    return items


def covered(items: list[Decided]) -> list[int]:
    return [k for i in items for k in ([i.k] if isinstance(i, Score) else range(i.first, i.last + 1))]


@settings(max_examples=300)
@given(probabilities, st.integers(1, 6), st.integers(1, 4), st.integers(0, 11), st.floats(0, 1))
@example([*[0.95] * 5, NO_ANSWER, 0.1, 0.99, *[0.1] * 9], 5, 2, 0, 1.0)  # what has no answer is not below
@example([0.95, 0.95, 0.1, 0.1, 0.6, *[0.1] * 6], 2, 4, 0, 1.0)  # two below, and open still
@example([0.95, 0.95, None, None, 0.1, 0.6, 0.1, 0.1], 2, 3, 1, 0.5)  # an outage before the border
@example([0.1] * 4 + [0.95] * 3 + [0.1] * 9, 3, 1, 0, 0.0)
def test_the_decisions_are_those_of_all_windows(
    p: list[float | None], in_a_row: int, release: int, before: int, border: float
) -> None:
    """``border``: where one piece of the archive ends and the next begins, a detection open across it or not."""
    limits, first = thresholds(in_a_row, release), 1000 * in_a_row - before
    cuts = [cut(first + n, value) for n, value in enumerate(p)]
    cuts += [cut(first + len(p) + n, 0.1) for n in range(2 * in_a_row)]
    last = next(k for k in range(first + len(p), first + len(p) + in_a_row) if k % in_a_row == in_a_row - 1)
    cuts = [item for item in cuts if item.k <= last]
    answer = {item.k: (p[item.k - first] if item.k < first + len(p) else 0.1) or 0.0 for item in cuts}
    whole: list[Decided] = [answered(item, answer[item.k]) if isinstance(item, Window) else item for item in cuts]
    edge = round(first + border * len(cuts)) // in_a_row * in_a_row
    early = passed_twice(limits, [item for item in cuts if item.k < edge], answer)
    late = passed_twice(limits, [item for item in cuts if item.k >= edge - release], answer)
    twice = early + [item for item in late if item.k >= edge]
    assert covered(twice) == covered(whole)
    assert decide(limits, twice) == decide(limits, whole)


@given(st.integers(2, 6), st.integers(1, 40))
def test_a_quiet_row_is_scored_once_in_so_many(in_a_row: int, count: int) -> None:
    cuts = [cut(k, 0.1) for k in range(in_a_row * 100, in_a_row * (100 + count))]
    items = passed_twice(thresholds(in_a_row, 1), cuts, {item.k: 0.1 for item in cuts})
    assert sum(isinstance(item, Score) for item in items) <= count + 1  # and the one that is asked for at the beginning
    assert all(item.last - item.first < in_a_row - 1 for item in items if isinstance(item, Passed))


def test_samples_are_kept_where_they_will_be_asked_for() -> None:
    """A window at or above ``off``, and those of the ten seconds after it: onset, and size asked for again."""
    loud = range(520, 523)
    cuts = [cut(k, 0.1) for k in range(500, 600)]
    answer = {item.k: 0.95 if item.k in loud else 0.1 for item in cuts}
    limits = thresholds(2, 12)
    kept = {
        item.k: item.window.samples is not NO_SAMPLES
        for item in passed_twice(limits, cuts, answer)
        if isinstance(item, Score)
    }
    assert all(kept[k] for k in range(520, 533))
    assert all(kept[k] for k in kept if k < 511)  # a detection may be open from before
    assert not any(is_kept for k, is_kept in kept.items() if not (k < 511 or 520 <= k < 533))


def test_windows_passed_over_close_as_windows_below_do() -> None:
    limits = thresholds(1, 3)
    opened: list[Decided] = [Score(Window(SUBJECT, k, SAMPLES, "ZNE", True, 0), 0.95) for k in (10, 11)]
    quiet: list[Decided] = [Score(Window(SUBJECT, k, SAMPLES, "ZNE", True, 0), 0.1) for k in (12, 13, 14)]
    passed = decide(limits, [*opened, quiet[0], Passed(SUBJECT, 13, 20)])
    assert passed == decide(limits, [*opened, *quiet])
    assert len(passed) == 2
    assert decide(limits, [*opened, quiet[0], Passed(SUBJECT, 13, 13)]) == passed[:1]
