"""Earthquakes and noise out of what pickers say along time: tracks made here, step by step."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from trainer.distillation.adapter import Output
from trainer.distillation.labelling import Labelled, Said, ambient, earthquakes, listen, picks, quiet

N = 20 * 600
"""Steps: ten minutes."""
P = 20 * 300
ALL = np.ones(N, bool)


def track(peaks: Mapping[int, float]) -> np.ndarray:
    made = np.zeros(N)
    for step, value in peaks.items():
        made[step] = value
    return made


def said(
    p: Mapping[int, float] | None = None,
    s: Mapping[int, float] | None = None,
    event: Mapping[int, float] | None = None,
    threshold: float = 0.2,
) -> Said:
    return Said(track(p or {}), track(s or {}), track(event or {}), threshold)


def agreed(s: Mapping[int, float] | None = None, *others: Said, at: int = P) -> list[Said]:
    """Two pickers with a P at ``at``."""
    return [said({at: 0.5}, s), said({at: 0.5}), *others]


def only(found: list[Labelled]) -> Labelled:
    (one,) = found
    return one


@pytest.mark.parametrize(
    ("first", "second", "is_picked"),
    [
        ({P: 0.2}, {P: 0.3}, True),
        ({P: 0.2}, {P + 10: 0.3}, True),
        ({P: 0.2}, {P - 10: 0.3}, True),
        ({P: 0.2}, {P + 11: 0.3}, False),
        ({P: 0.2}, {P: 0.29}, False),
        ({P: 0.19}, {P: 0.9}, False),
        ({}, {P: 0.9}, False),
        ({P: 0.9}, {}, False),
    ],
)
def test_a_pick_is_the_first_pickers_and_anothers_word(
    first: Mapping[int, float], second: Mapping[int, float], is_picked: bool
) -> None:
    one, two = said(first), said(second, threshold=0.3)
    assert picks([one, two]) == ([P] if is_picked else [])
    assert picks([one, said(), two]) == ([P] if is_picked else [])


def test_of_two_peaks_within_a_second_the_higher_one_counts() -> None:
    assert picks([said({P: 0.5, P + 15: 0.6, P + 60: 0.3}), said({P: 0.5, P + 15: 0.5, P + 60: 0.5})]) == [
        P + 15,
        P + 60,
    ]


def test_a_record_is_45_s_to_each_side_and_p_is_in_the_middle_of_its_step() -> None:
    found = only(list(earthquakes(agreed(), ALL)))
    assert found == Labelled((5 * (P - 900), 5 * (P + 900)), 5 * P + 2, -1, False)


@pytest.mark.parametrize(
    ("s", "expected"),
    [
        ({P + 100: 0.4, P + 60: 0.3}, P + 100),
        ({P + 6: 0.2}, P + 6),
        ({P + 5: 0.9}, None),
        ({P + 499: 0.2}, P + 499),
        ({P + 500: 0.9}, None),
        ({P + 100: 0.19}, None),
        ({P - 10: 0.9}, None),
    ],
)
def test_s_is_the_first_pickers_highest_within_25_s(s: Mapping[int, float], expected: int | None) -> None:
    assert only(list(earthquakes(agreed(s), ALL))).s == (-1 if expected is None else 5 * expected + 2)
    assert only(list(earthquakes([*agreed(), said(s=s)], ALL))).s == -1


@pytest.mark.parametrize(("at", "end"), [(899, None), (900, 1800), (N - 400, N), (N - 399, None)])
def test_records_that_the_recording_does_not_hold(at: int, end: int | None) -> None:
    found = list(earthquakes(agreed(at=at), ALL))
    assert [one.part for one in found] == ([] if end is None else [(5 * (at - 900), 5 * end)])


@pytest.mark.parametrize(("step", "is_left"), [(P - 901, True), (P - 900, False), (P + 899, False), (P + 900, True)])
def test_nothing_unusable_is_in_a_record(step: int, is_left: bool) -> None:
    usable = ALL.copy()
    usable[step] = False
    assert bool(list(earthquakes(agreed(), usable))) is is_left


@pytest.mark.parametrize(
    ("other", "is_crowded"),
    [
        (said({P + 800: 0.2}), True),
        (said({P - 800: 0.2}), True),
        (said({P + 901: 0.9}), False),
        (said({P + 800: 0.19}), False),
        (said({P + 6: 0.9}), False),  # its own, said otherwise
        (said(s={P + 800: 0.9}), False),
        (said(s={P - 100: 0.11}), True),
        (said(s={P - 500: 0.11}), True),
        (said(s={P - 501: 0.11}), False),
        (said(s={P - 20: 0.11}), False),
        (said(s={P - 100: 0.1}), False),
    ],
)
def test_another_earthquake_may_be_in_the_record(other: Said, is_crowded: bool) -> None:
    assert only(list(earthquakes(agreed(None, other), ALL))).is_crowded is is_crowded


def test_two_earthquakes_are_two_records_that_hold_each_other() -> None:
    two = said({P: 0.5, P + 400: 0.5})
    assert [(one.p, one.is_crowded) for one in earthquakes([two, two], ALL)] == [
        (5 * P + 2, True),
        (5 * P + 2002, True),
    ]


@pytest.mark.parametrize("one", [said({P: 0.11}), said(s={P: 0.11}), said(event={P: 0.21})], ids=["p", "s", "event"])
def test_noise_is_where_nothing_is_said(one: Said) -> None:
    parts = list(quiet([said(), one], ALL))
    until, begin = 5 * (P - 59), 5 * (P + 600)
    assert parts == [
        (0, 15000),
        (15000, until),
        (begin, begin + 15000),
        (begin + 15000, 60000),
    ]


def test_what_is_hardly_said_is_not_heard() -> None:
    assert sum(end - begin for begin, end in quiet([said({P: 0.1}, {P: 0.1}, {P: 0.2})], ALL)) == 5 * N


def test_noise_is_no_shorter_than_30_s_and_nowhere_unusable() -> None:
    usable = np.zeros(N, bool)
    usable[100:699] = True
    usable[1000:1600] = True
    usable[2000:5000] = True
    assert list(quiet([said()], usable)) == [(5000, 8000), (10000, 25000)]


def test_where_all_is_noise_only_what_would_be_an_earthquake_is_left_out() -> None:
    assert sum(end - begin for begin, end in ambient([said({P: 0.9}, {P: 0.9}), said()], ALL)) == 5 * N
    parts = list(ambient(agreed(), ALL))
    assert parts[1][1] == 5 * (P - 40 - 59)  # 2 s before, and 3 s to what is said
    assert parts[2][0] == 5 * (P + 399 + 600)  # 20 s after, and 30 s from it


class Toy:
    """Says of P what the first component is, nothing of S, and of earthquakes that the ends of its windows are some."""

    samples = 100

    def along(self, samples: np.ndarray) -> np.ndarray:
        assert samples.shape == (16, 3, 100)
        ends = np.zeros((16, 100))
        ends[:, :10] = ends[:, -10:] = 1
        return np.stack([samples[:, 0], np.zeros((16, 100)), ends], axis=1)


@pytest.mark.parametrize("length", [100, 101, 730, 1000])
def test_all_of_a_recording_is_heard_but_the_ends_of_windows(length: int) -> None:
    samples = np.random.default_rng(0).random((3, length)).astype(np.float32)
    found = listen(Toy(), 0.25, samples)
    steps = length // 5
    assert found.p == pytest.approx(samples[0, : 5 * steps].reshape(-1, 5).max(axis=1), abs=1e-7)
    assert not found.s.any()
    assert set(np.flatnonzero(found.event)) <= {0, 1, *range(steps - 3, steps)}
    assert found.event[0] == 1
    assert found.threshold == 0.25


def test_overlapping_windows_are_averaged() -> None:
    class Grows(Toy):
        calls = 0.0

        def along(self, samples: np.ndarray) -> np.ndarray:
            return np.broadcast_to(np.arange(16.0)[:, None, None] / 16, (16, 3, 100))  # the k-th window says k / 16

    found = listen(Grows(), 0.2, np.zeros((3, 150), np.float32)).p  # windows at 0, 25 and 50
    assert found[0] == 0
    assert found[6] == 0  # to 35 the second one is not listened to
    assert found[10] == pytest.approx(0.5 / 16)  # 50 to 54: the first two
    assert found[14] == pytest.approx(1 / 16)  # 70 to 74: all three
    assert found[29] == pytest.approx(2 / 16)


OUTPUT = {"layout": "class_time", "classes": ("N", "S", "P", "event"), "earthquake": ("event", "P")}


def test_along_has_p_s_and_what_else_tells_of_an_earthquake() -> None:
    answer = torch.tensor([[[0.1, 0.2], [0.3, 0.4], [0.5, 0.6], [0.7, 0.8]]])  # (1, 4 classes, 2)
    found = Output.model_validate(OUTPUT).along(answer, 4)
    expected = [[[0.5, 0.5, 0.6, 0.6], [0.3, 0.3, 0.4, 0.4], [0.7, 0.7, 0.8, 0.8]]]
    assert found == pytest.approx(np.array(expected))
    bare = Output.model_validate({**OUTPUT, "classes": ("N", "P"), "earthquake": ("P",)})
    assert not bare.along(answer[:, :2], 2)[:, 1:].any()


@pytest.mark.parametrize("wrong", [-3.0, 1.5, float("nan")])
def test_along_refuses_what_is_no_probability(wrong: float) -> None:
    answer = torch.zeros(1, 4, 2)
    answer[0, 1, 1] = wrong
    with pytest.raises(ValueError, match=r"no probability \(is activation right\?\)"):
        Output.model_validate(OUTPUT).along(answer, 2)
