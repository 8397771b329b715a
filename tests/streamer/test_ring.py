from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamer.ring import Ring

CAPACITY = 32
INSERTS = st.lists(
    st.tuples(st.integers(-40, 120), st.lists(st.integers(-9, 9), min_size=1, max_size=50), st.integers(0, 2**50)),
    max_size=12,
)


@given(INSERTS, st.one_of(st.none(), st.integers(-20, 60)))
def test_ring_is_a_dictionary_that_forgets(inserts: list[tuple[int, list[int], int]], floor: int | None) -> None:
    ring, model, newest = Ring(Fraction(100), CAPACITY, np.dtype(np.int32)), dict[int, int](), None
    for first, values, holes in inserts:
        valid = np.array([not holes >> i & 1 for i in range(len(values))])
        placed = ring.insert(first, np.array(values, np.int32), valid=valid, floor=floor)
        newest = first + len(values) if newest is None else max(newest, first + len(values))
        model = {n: v for n, v in model.items() if n >= newest - CAPACITY}
        counts = {"stored": 0, "overlap": 0, "late": 0}
        for number, value, good in zip(range(first, first + len(values)), values, valid, strict=True):
            if not good:
                continue
            if number in model:
                counts["overlap"] += 1
            elif number < newest - CAPACITY or (floor is not None and number < floor):
                counts["late"] += 1
            else:
                counts["stored"] += 1
                model[number] = value
        assert (placed.stored, placed.overlap, placed.late) == tuple(counts.values())
        samples, present = ring.read(newest - CAPACITY - 3, newest + 3)
        assert {int(n) for n in np.flatnonzero(present) + newest - CAPACITY - 3} == set(model)
        assert all(samples[n - (newest - CAPACITY - 3)] == v for n, v in model.items())
        for begin in range(newest - CAPACITY - 2, newest, 5):
            assert ring.complete(begin, begin + 4) == all(n in model for n in range(begin, begin + 4))
            assert ring.next_present(begin) == min((n for n in model if n >= begin), default=None)
        assert ring.fill == len(model) / CAPACITY
        assert (ring.begin, ring.end) == (newest - CAPACITY, newest)


def test_an_empty_ring_has_nothing() -> None:
    ring = Ring(Fraction(100), CAPACITY, np.dtype(np.int32))
    assert not ring.complete(0, 1)
    assert ring.next_present(0) is None
    assert not ring.read(0, 5)[1].any()
    assert ring.begin is None


def test_integers_stay_integers_until_floats_come() -> None:
    ring = Ring(Fraction(100), CAPACITY, np.dtype(np.int32))
    ring.insert(0, np.array([2**31 - 1], np.int32))
    assert ring.dtype == np.int32
    ring.insert(1, np.array([0.5], np.float32))
    assert ring.read(0, 2)[0].tolist() == [2**31 - 1, 0.5]
