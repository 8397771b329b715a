"""Divide labelled events into training and test, so that what belongs together stays on one side.

`split_events` keeps each group whole (the stations of one earthquake), the share of the test side as near the wanted
one as the groups allow, and every class on both sides; the shares of the classes follow closely. An event without a
group is a group of its own, and then the split is stratified. What is not here: cross-validation.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

Counts = NDArray[np.int64]
"""(groups, classes) how many events of each class a group holds."""
Mask = NDArray[np.bool_]
Indices = NDArray[np.intp]


def encode(what: str, values: ArrayLike) -> tuple[Indices, tuple[Hashable, ...]]:
    """Values of one event each -> (n,) indices, and the sorted values that they stand for.

    ValueError, which calls the values ``what``, where they are not a list, of unlike types, or one is NaN or None.
    """
    array = np.asarray(values, dtype=object)  # as they were given: 1 and "1" stay apart
    if array.ndim != 1:
        raise ValueError(f"{what} must be one for each event, not of shape {array.shape}")
    if pd.isna(array).any():
        raise ValueError(f"event {int(pd.isna(array).argmax())}: its entry in {what} is NaN or None")
    try:
        uniques, codes = np.unique(array, return_inverse=True)
    except TypeError as error:
        raise ValueError(f"{what} cannot be sorted: {error}") from error
    return codes, tuple(uniques.tolist())


def split_events(labels: ArrayLike, groups: ArrayLike | None, test_ratio: float, seed: int) -> Mask:
    """(n,) True where an event belongs to the test side; the same for the same arguments.

    ``labels``, ``groups``: one for each event, of any type that can be sorted. ValueError for a ratio that is not
    between 0 and 1, and for a class that cannot be on both sides.
    """
    if not 0 < test_ratio < 1:
        raise ValueError(f"test_ratio must lie between 0 and 1, not {test_ratio}")
    label_codes, classes = encode("labels", labels)
    group_codes = np.arange(len(label_codes)) if groups is None else encode("groups", groups)[0]
    if len(group_codes) != len(label_codes):
        raise ValueError(f"{len(group_codes)} groups for {len(label_codes)} events")
    counts = np.zeros((group_codes.max(initial=-1) + 1, len(classes)), np.int64)
    np.add.at(counts, (group_codes, label_codes), 1)
    for label, holders in zip(classes, (counts > 0).sum(axis=0), strict=True):
        if holders < 2:
            whole = "event" if groups is None else "group"
            raise ValueError(f"class {label!r} lies in one {whole} alone: it cannot be on both sides")
    order = _spread(counts, np.random.default_rng(seed))
    division = _choose(counts[order], test_ratio * len(label_codes), *np.zeros((2, len(order)), np.bool_))
    if division is None:
        raise ValueError("no division of whole groups has every class on both sides")
    in_test = np.empty(len(order), np.bool_)
    in_test[order] = division
    return in_test[group_codes]


def _spread(counts: Counts, rng: np.random.Generator) -> Indices:
    """(groups,) a random order in which any first part holds its share of every class.

    The k-th of a class's m groups stands at (k + 1/2) / m, as in Webster's method of apportionment; a group of
    several classes counts as one of the rarest.
    """
    rarity = np.where(counts > 0, counts.sum(axis=0), np.iinfo(np.int64).max)  # (groups, classes)
    shuffled = rng.permutation(len(counts))
    rarest = rarity.argmin(axis=1)[shuffled]
    place = np.empty(len(counts))
    for own in np.unique(rarest):
        members = rarest == own
        place[members] = (np.arange(members.sum()) + 0.5) / members.sum()
    return shuffled[np.argsort(place, kind="stable")]


def _choose(counts: Counts, wanted: float, for_test: Mask, for_training: Mask) -> Mask | None:
    """(groups,) which groups make the test side of about ``wanted`` events; the first ones where there is a choice.

    ``for_test``, ``for_training``: (groups,) which are bound to a side. A class that is missing on one has a group
    bound to it, the smallest that leads to a division, and the others are chosen anew. None where nothing does.
    """
    sizes = counts.sum(axis=1)
    free = ~(for_test | for_training)
    in_test = for_test.copy()
    in_test[free] = nearest_sum(sizes[free], wanted - sizes[for_test].sum())
    lacking = np.stack([counts[in_test].sum(axis=0), counts[~in_test].sum(axis=0)]) == 0  # (sides, classes)
    if not lacking.any():
        return in_test
    holders = (counts > 0).sum(axis=0)
    side, rarest = np.unravel_index(np.where(lacking, holders, len(counts) + 1).argmin(), lacking.shape)
    candidates = np.flatnonzero(free & (counts[:, rarest] > 0))
    for candidate in candidates[np.argsort(sizes[candidates], kind="stable")]:
        bound = np.stack([for_test, for_training])
        bound[side, candidate] = True
        if (division := _choose(counts, wanted, *bound)) is not None:
            return division
    return None


def nearest_sum(sizes: Counts, wanted: float) -> Mask:
    """(n,) which of the sizes (each at least 1) have the sum nearest to ``wanted``; early ones are taken first."""
    goal = max(round(wanted), 0)
    completed_by = np.zeros(goal + sizes.max(initial=0) + 1, np.intp)  # sum -> the size that first made it possible
    reached = np.zeros(len(completed_by), np.bool_)
    reached[0] = True
    for index, size in enumerate(sizes):
        if reached[goal]:
            break
        fresh = reached[:-size] & ~reached[size:]  # sums that this size is the first to make
        completed_by[size:][fresh] = index
        reached[size:] |= fresh
    sums = np.flatnonzero(reached)
    rest = sums[np.abs(sums - wanted).argmin()]
    taken = np.zeros(len(sizes), np.bool_)
    while rest > 0:
        taken[completed_by[rest]] = True
        rest -= sizes[completed_by[rest]]
    return taken
