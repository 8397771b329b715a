from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_packets import SUBJECT, score
from obspy.signal.trigger import aic_simple

from quake.alerts import Characterisation
from quake.data.decision import log_odds
from streamer import onset
from streamer.grid import Grid
from streamer.stages import NS, Detection, Score, Unscored, Unused, Window
from streamer.trigger import (
    TRACE_WINDOWS,
    ModelName,
    Thresholds,
    Trigger,
    TriggerState,
    detection_id,
    mean_log_odds,
)

GRID = Grid(20, 40, 20)
LIMITS = Thresholds(on=0.8, off=0.4, in_a_row=2, release=2, dead_k=6, longest_k=12)
MODEL = ModelName("quake", 1)


def trigger(state: TriggerState | None = None, **limits: Any) -> Trigger:
    return Trigger(
        SUBJECT, GRID, Thresholds(**{**{f: getattr(LIMITS, f) for f in LIMITS.__slots__}, **limits}), MODEL, state
    )


def decide(one: Trigger, probabilities: str, first: int = 100) -> list[Detection]:
    """One window for each digit (tenths), ``-`` for one that was not scored."""
    items = [
        Unscored(SUBJECT, k, k, Unused.GAP) if c == "-" else score(k, int(c) / 10)
        for k, c in enumerate(probabilities, first)
    ]
    return [d for item in items if (d := one.decide(item)) is not None]


def test_opens_with_the_run_and_closes_with_the_release() -> None:
    opening, closing = decide(trigger(), "0098550311")
    assert (opening.k, opening.opened_k, opening.off_ns) == (102, 103, None)
    assert opening.id == closing.id == detection_id(SUBJECT, MODEL, 102)
    assert opening.decided_ns == GRID.end_ns(103)
    assert closing.off_ns == closing.decided_ns == GRID.end_ns(107)
    assert closing.probability == 0.9
    assert opening.trace == ((100, 0.0), (101, 0.0), (102, 0.9), (103, 0.8))
    assert (opening.received_ns, closing.received_ns) == (103, 107), "latency counts from the window that decides"


@pytest.mark.parametrize("row", ["0908080", "09-90", "0390390", "0000", "777777", "0950950"])
def test_what_stands_in_no_row_or_reaches_too_little_opens_nothing(row: str) -> None:
    """0.9 and 0.5 are 0.75 together, by their log-odds."""
    assert not decide(trigger(), row)


def test_what_windows_say_together_opens() -> None:
    """An earthquake's windows grow less sure as its P grows old."""
    assert next((d.k, d.opened_k) for d in decide(trigger(), "0970000")) == (101, 102)
    one = trigger(on=0.99, off=0.495, in_a_row=4)
    found = [one.decide(score(k, p)) for k, p in enumerate((0.1, 0.994, 0.990, 0.992, 0.984, 0.982))]
    assert [d.k for d in found if d is not None] == [1], "a magnitude 6.8 at 80 km"


def test_the_run_that_opens_is_the_newest() -> None:
    """Windows above off that reached too little together are not of it."""
    assert next((d.k, d.opened_k) for d in decide(trigger(), "055578990000")) == (105, 106)


def test_it_asks_at_the_opening_and_as_it_grows_and_the_closing_says_the_newest() -> None:
    one, asked = trigger(), []
    closing = None
    for k, p in enumerate("0099988888880000000", 100):
        decided = one.decide(score(k, int(p) / 10))
        if one.asks(k):
            asked.append(k)
            size = {"Large": k / 1000} if k < 110 else None
            opened = one.characterise(Characterisation(magnitude=size, azimuth=None, unknown={"azimuth": str(k)}))
            assert opened.characterisation is not None
            assert opened.characterisation.magnitude == {"Large": min(k, 107) / 1000}, "a gap takes nothing back"
        closing = decided or closing
    assert asked == [103, 107, 112], "GRID's hop is a second: 5 and 10 s after window 102"
    assert closing is not None and closing.characterisation is not None  # noqa: PT018
    assert closing.off_ns is not None
    assert closing.characterisation.magnitude == {"Large": 0.107}


def test_what_is_no_number_between_0_and_1_has_log_odds() -> None:
    assert log_odds(0.5) == 0
    assert -17 < log_odds(0.0) < -16 < 16 < log_odds(1.0) < 17
    assert mean_log_odds([0.9, 0.1]) == pytest.approx(0)


def test_windows_that_nobody_decided_break_a_run() -> None:
    one = trigger()
    assert not decide(one, "09")
    assert not decide(one, "9", first=105)
    assert [d.k for d in decide(one, "9", first=106)] == [105]


def test_dead_time_runs_from_the_first_window_of_an_opening() -> None:
    found = decide(trigger(), "99009999999")
    assert [(d.k, d.off_ns is None) for d in found] == [(100, True), (100, False), (106, True)]


def test_a_held_detection_opens_and_closes_held_and_the_next_one_does_not() -> None:
    one = trigger()
    one.hold()
    assert one.state == TriggerState()
    decide(one, "99")
    one.hold()
    assert [(d.k, d.held) for d in decide(one, "00990", first=102)] == [(100, True)]
    assert [(d.k, d.held) for d in decide(one, "99", first=107)] == [(107, False)]


def test_a_window_exactly_at_off_keeps_it_open() -> None:
    assert len(decide(trigger(), "9944444")) == 1
    assert len(decide(trigger(), "9934343")) == 1
    assert len(decide(trigger(), "9933")) == 2


def test_a_detection_names_the_components_of_the_window_that_opened_it() -> None:
    one = trigger(in_a_row=1, release=1)
    opening, closing = (one.decide(score(k, p, components=c)) for k, p, c in ((5, 0.9, "ZN"), (6, 0.0, "ZNE")))
    assert opening is not None
    assert closing is not None
    assert {(d.components, d.complete) for d in (opening, closing)} == {("ZN", False)}


def test_the_trace_holds_the_newest_windows() -> None:
    one = trigger()
    assert not decide(one, "0" * 50)
    one.decide(score(150, 0.9))
    opening = one.decide(score(151, 0.876_543))
    assert opening is not None
    assert len(opening.trace) == TRACE_WINDOWS
    assert opening.trace[0] == (152 - TRACE_WINDOWS, 0.0)
    assert opening.trace[-1] == (151, 0.8765)


def test_between_off_and_on_it_stays_open_up_to_the_longest() -> None:
    opening, closing = decide(trigger(), "99" + "5" * 12)
    assert closing.off_ns == GRID.end_ns(opening.k + 12)


def test_it_waits_for_data_though_not_for_ever() -> None:
    one = trigger()
    decide(one, "99")
    assert one.decide(Unscored(SUBJECT, 102, 105, Unused.GAP)) is None
    closing = one.decide(Unscored(SUBJECT, 106, 10**9, Unused.GAP))
    assert closing is not None
    assert closing.off_ns == GRID.end_ns(112)
    assert one.state.last_k == 10**9


def test_a_gap_of_the_longest_length_closes_and_a_shorter_one_does_not() -> None:
    one, other = trigger(), trigger()
    decide(one, "99")
    decide(other, "99")
    assert one.decide(Unscored(SUBJECT, 102, 111, Unused.GAP)) is None
    assert other.decide(Unscored(SUBJECT, 102, 112, Unused.GAP)) is not None


def test_nothing_is_decided_before_the_first_window() -> None:
    one = trigger()
    assert one.decided_ns == 0
    decide(one, "0")
    assert one.decided_ns == GRID.end_ns(100)


def test_a_clock_set_back_closes_what_is_open() -> None:
    one = trigger()
    decide(one, "099")
    closing = one.decide(score(10, 0.9))
    assert closing is not None
    assert closing.off_ns == closing.decided_ns == GRID.end_ns(102)
    assert closing.received_ns == 0, "no packet led to it"
    assert [k for k, _ in closing.trace] == [100, 101, 102]
    assert one.state == TriggerState(last_k=10)


def test_identity_is_of_subject_model_and_first_window() -> None:
    base = detection_id(SUBJECT, MODEL, 5)
    assert base == "bf80ea18-b58d-571c-b780-8f8a09d54006"  # pinned: alerts of two releases are one alert
    others = [
        detection_id("X", MODEL, 5),
        detection_id(SUBJECT, ModelName("quake", 2), 5),
        detection_id(SUBJECT, MODEL, 6),
    ]
    assert len({base, *others}) == 4


ITEMS = st.lists(st.one_of(st.sampled_from([0.0, 0.3, 0.5, 0.81, 0.9]), st.none()), min_size=1, max_size=60)


@settings(max_examples=150, deadline=None)
@given(ITEMS, st.sets(st.integers(0, 60)))
def test_a_restart_anywhere_changes_nothing(row: list[float | None], restarts: set[int]) -> None:
    items = [Unscored(SUBJECT, k, k, Unused.GAP) if p is None else score(k, p) for k, p in enumerate(row)]

    def decided(by: Trigger, item: Score | Unscored) -> Detection | None:
        found = by.decide(item)
        if isinstance(item, Score) and by.asks(item.window.k):
            by.characterise(Characterisation(magnitude={"Large": item.window.k / 100}, azimuth=None))
        return found

    whole = trigger()
    expected = [decided(whole, item) for item in items]
    one, found = trigger(), []
    for n, item in enumerate(items):
        if n in restarts:
            one = trigger(TriggerState.model_validate_json(one.state.model_dump_json()))
        found.append(decided(one, item))
    assert found == expected
    assert one.state == whole.state


@settings(max_examples=100, deadline=None)
@given(ITEMS)
def test_unscored_windows_told_one_by_one_or_together(row: list[float | None]) -> None:
    singly, together = trigger(), trigger()
    expected = [d for k, p in enumerate(row) if (d := singly.decide(_item(k, k, p))) is not None]
    found, k = [], 0
    while k < len(row):
        last = k
        while row[k] is None and last + 1 < len(row) and row[last + 1] is None:
            last += 1
        if (d := together.decide(_item(k, last, row[k]))) is not None:
            found.append(d)
        k = last + 1
    assert [(d.id, d.off_ns) for d in found] == [(d.id, d.off_ns) for d in expected]


def _item(first: int, last: int, probability: float | None) -> Score | Unscored:
    return Unscored(SUBJECT, first, last, Unused.GAP) if probability is None else score(first, probability)


@pytest.mark.parametrize("at", [900, 1200, 1500, 1900])
def test_onset_is_refined_on_the_vertical(at: int) -> None:
    samples = np.random.default_rng(at).normal(0, 1, (3, 2080)).astype(np.float32)
    samples[0, at:] += np.random.default_rng(1).normal(0, 12, 2080 - at).astype(np.float32)
    assert abs(onset.refine(samples[0], max(0, at - 500)) - at) <= 5
    grid = Grid(100, 2080, 100)
    one = Trigger(SUBJECT, grid, Thresholds(0.8, 0.4, 1, 2, 6, 12), MODEL)
    detection = one.decide(Score(Window(SUBJECT, 7, samples, "ZNE", True, 0), 0.9))
    assert detection is not None
    if at >= 1080:
        assert abs(detection.onset_ns - (7 * NS + at * NS // 100)) <= 5 * NS // 100
    else:  # not before the stretch that the first window above threshold newly saw
        assert detection.onset_ns >= 7 * NS + 10 * NS + 8 * NS // 10


@pytest.mark.parametrize("seed", range(20))
def test_the_criterion_is_obspys(seed: int) -> None:
    random = np.random.default_rng(seed)
    samples = random.normal(0, 1e3, 1000)
    samples[random.integers(50, 950) :] *= random.uniform(1.2, 50)
    theirs = aic_simple(samples)[1:-2]  # the first is of one sample, the last repeated
    ours = onset.criterion(samples)[1:-1]
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    assert ours.argmin() == theirs.argmin()


def test_nothing_to_pick() -> None:
    assert onset.refine(np.zeros(2080, np.float32), 500) == 500
    assert onset.refine(np.ones(15, np.float32), 3) == 3
