"""The division into training and test: what stays together, how near the share comes, and what is refused."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quake.data.split import nearest_sum, split_events

RATIOS = st.floats(0.02, 0.98)
SIZES = st.lists(st.integers(1, 12), min_size=2, max_size=9)


def every_sum(sizes: list[int]) -> set[int]:
    """Of all choices that leave something on either side."""
    return {sum(some) for count in range(1, len(sizes)) for some in combinations(sizes, count)}


@given(sizes=SIZES, wanted=st.floats(-3, 120))
def test_the_nearest_sum_is_found(sizes: list[int], wanted: float) -> None:
    taken = nearest_sum(np.array(sizes), wanted)
    best = min(abs(total - wanted) for total in every_sum(sizes) | {0, sum(sizes)})
    assert abs(np.array(sizes)[taken].sum() - wanted) == pytest.approx(best)


@given(sizes=SIZES, ratio=RATIOS, seed=st.integers(0, 99))
def test_the_share_is_as_near_as_whole_groups_allow(sizes: list[int], ratio: float, seed: int) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    in_test = split_events(np.zeros(len(groups)), groups, ratio, seed)
    assert not set(groups[in_test]) & set(groups[~in_test])
    best = min(abs(total - ratio * sum(sizes)) for total in every_sum(sizes))
    assert abs(in_test.sum() - ratio * sum(sizes)) == pytest.approx(best)


@given(members=st.lists(st.integers(2, 60), min_size=1, max_size=6), ratio=RATIOS, seed=st.integers(0, 99))
def test_without_groups_every_class_has_its_share_on_both_sides(members: list[int], ratio: float, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(members)), members))
    in_test = split_events(labels, None, ratio, seed)
    in_class = np.bincount(labels[in_test], minlength=len(members))
    assert (in_class >= 1).all()
    assert (in_class < members).all()
    fair = np.clip(ratio * np.array(members), 1, np.array(members) - 1)
    if (fair == ratio * np.array(members)).all():  # no class so small that being on both sides bends the shares
        assert np.abs(in_class - fair).max() <= 1.5  # Webster's method goes beyond 1 where many classes tie
        assert abs(in_test.sum() - ratio * len(labels)) <= 0.5


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 99))
def test_groups_of_several_classes_stay_whole_and_no_class_is_missing(data: st.DataObject, seed: int) -> None:
    count = data.draw(st.integers(4, 40))
    labels = np.array(data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)))
    groups = np.array(data.draw(st.lists(st.integers(0, 7), min_size=count, max_size=count)))
    try:
        in_test = split_events(labels, groups, 0.3, seed)
    except ValueError:
        assert not divisible(labels, groups)
        return
    assert not set(groups[in_test]) & set(groups[~in_test])
    assert set(labels[in_test]) == set(labels[~in_test]) == set(labels)


def divisible(labels: np.ndarray, groups: np.ndarray) -> bool:
    """Whether any division of whole groups has every class on both sides."""
    names, everything = np.unique(groups), set(labels)
    sides = (np.isin(groups, some) for count in range(1, len(names)) for some in combinations(names, count))
    return any(set(labels[side]) == set(labels[~side]) == everything for side in sides)


def test_a_rare_class_is_on_both_sides_with_whole_groups() -> None:
    labels = ["noise"] * 200 + ["blast"] * 6
    groups = [f"n{number // 4}" for number in range(200)] + ["b0"] * 5 + ["b1"]
    for seed in range(10):
        in_test = split_events(labels, groups, 0.3, seed)
        assert in_test[200:].sum() in {1, 5}
        assert in_test.sum() == pytest.approx(0.3 * 206, abs=2)


def test_a_group_that_a_class_needs_counts_towards_the_share() -> None:
    labels, groups = ["noise"] * 20 + ["blast"] * 10, [*range(20), *[20] * 5, *[21] * 5]
    assert split_events(labels, groups, 0.1, seed=0).sum() == 5 + 1  # wanted were 3: one group of each class


def test_the_seed_decides() -> None:
    labels = np.arange(100) % 2
    masks = [split_events(labels, None, 0.3, seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(masks[0], masks[1])
    assert (masks[0] != masks[2]).any()
    often = np.mean([split_events(labels, None, 0.3, seed) for seed in range(200)], axis=0)
    assert often.min() > 0.1, "an event that no seed puts to the test"
    assert often.max() < 0.5


def test_a_large_set_takes_no_time() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 8000, 30_000)
    in_test = split_events(groups % 5, groups, 0.3, seed=0)
    assert in_test.sum() == 9000


@pytest.mark.parametrize(
    ("labels", "groups", "ratio", "message"),
    [
        ([0, 0, 1], None, 0.3, "class 1 lies in one event alone"),
        (["a", "a", "b", "b"], [0, 1, 2, 2], 0.3, "class 'b' lies in one group alone"),
        ([0, 1, 1, 2, 0, 2], [0, 0, 1, 1, 2, 2], 0.3, "no division of whole groups has every class on both"),
        ([0, 0], None, 0.0, "test_ratio must lie between 0 and 1, not 0.0"),
        ([0, 0], None, 1.0, "test_ratio must lie between 0 and 1, not 1.0"),
        ([0, 0], None, float("nan"), "test_ratio must lie between 0 and 1, not nan"),
        ([0, 0], [1, 2, 3], 0.3, "3 groups for 2 events"),
        ([0, 0], ["a", None], 0.3, "event 1: its entry in groups is NaN or None"),
        ([0.0, np.nan], None, 0.3, "event 1: its entry in labels is NaN or None"),
        ([0, "a"], None, 0.3, "labels cannot be sorted"),
        ([[0, 1], [0, 1]], None, 0.3, r"labels must be one for each event, not of shape \(2, 2\)"),
    ],
)
def test_what_cannot_be_split_is_refused(labels: object, groups: object, ratio: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_events(labels, groups, ratio, seed=0)
