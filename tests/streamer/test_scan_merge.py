"""Scores of pieces in the order of the data: nothing twice, nothing left out, an outage where it is known of."""

from __future__ import annotations

import numpy as np

from streamer.scan_merge import AT_ONCE, Merge
from streamer.scan_piece import Scored
from streamer.stages import Passed, Score, Unscored, Unused, Window
from streamer.worker import Decided

A, B = "FDSN:XX_A__H_H", "FDSN:XX_B__H_H"
SAMPLES = np.zeros((3, 0), np.float32)


def score(subject: str, k: int) -> Score:
    return Score(Window(subject, k, SAMPLES, "ZNE", True, 0), 0.5)


def merged(merge: Merge, *items: Decided) -> list[list[Decided]]:
    return list(merge.slices([Scored(0, 99, list(items))]))


def test_stations_come_side_by_side_and_an_outage_when_it_is_over() -> None:
    outage, passed = Unscored(A, 5, 8, Unused.GAP), Passed(B, 6, 7)
    a = [score(A, 4), outage, score(A, 9)]
    b = [*(score(B, k) for k in (4, 5)), passed, *(score(B, k) for k in (8, 9))]
    assert merged(Merge({}), *a, *b) == [[a[0], b[0], b[1], passed, outage, b[3], a[2], b[4]]]


def test_no_slice_parts_windows_of_one_number() -> None:
    items = [score(subject, k) for subject in (A, B) for k in range(3 * AT_ONCE)]
    slices = merged(Merge({}), *items)
    assert len(slices) == 3
    assert all(
        a.subject == A and b.subject == B and a.k == b.k for s in slices for a, b in zip(s[::2], s[1::2], strict=True)
    )


def test_what_an_earlier_run_decided_is_left_out() -> None:
    assert merged(Merge({A: 6}), score(A, 5), score(A, 6), score(A, 7)) == [[score(A, 7)]]
    assert merged(Merge({A: 6}), Passed(A, 3, 6), Passed(A, 7, 9)) == [[Passed(A, 7, 9)]]
    assert merged(Merge({A: 6}), Unscored(A, 2, 9, Unused.GAP)) == [[Unscored(A, 7, 9, Unused.GAP)]]
    assert merged(Merge({A: 6}), score(A, 6)) == []


def test_what_no_piece_tells_of_is_a_gap() -> None:
    """Hours without a file belong to no piece; a station's first windows are no gap."""
    merge = Merge({B: 3})
    assert merged(merge, score(A, 5), score(B, 6)) == [[score(A, 5), Unscored(B, 4, 5, Unused.GAP), score(B, 6)]]
    assert merged(merge, score(A, 400)) == [[Unscored(A, 6, 399, Unused.GAP), score(A, 400)]]
