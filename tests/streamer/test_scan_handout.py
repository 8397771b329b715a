"""Pieces given out to workers that come and go: the answers of one worker that never went."""

from __future__ import annotations

import numpy as np
import pytest

from streamer.scan_handout import TRIES, Handout
from streamer.scan_piece import Scored
from streamer.scan_plan import Piece
from streamer.scan_pool import ProcessDiedError


def pieces(count: int) -> list[Piece]:
    return [Piece(n, n, (), {}, {}, frozenset()) for n in range(count)]


def answer(piece: Piece) -> Scored:
    return Scored(piece.first, piece.last)


def given(handout: Handout) -> list[tuple[int, Piece]]:
    """All that it gives."""
    return list(iter(handout.give, None))  # type: ignore[arg-type]


def test_answers_wait_for_their_turn_and_few_are_ahead() -> None:
    handout = Handout(pieces(5), 3)
    first, second, third = given(handout)
    handout.take(third[0], answer(third[1]))
    handout.take(second[0], answer(second[1]))
    assert list(handout.in_turn()) == []
    assert handout.give() is None, "what waits is ahead too"
    handout.take(first[0], answer(first[1]))
    assert [scored.first for scored in handout.in_turn()] == [0, 1, 2]
    rest = given(handout)
    assert [number for number, _ in rest] == [3, 4]
    for number, piece in rest:
        assert not handout.is_done
        handout.take(number, answer(piece))
    assert not handout.is_done
    assert [scored.first for scored in handout.in_turn()] == [3, 4]
    assert handout.is_done


def test_what_was_lost_is_given_first_again_the_oldest_before_others() -> None:
    handout = Handout(pieces(5), 4)
    assert len(given(handout)) == 4
    handout.lost([2, 1], "gone")
    assert [number for number, _ in given(handout)] == [1, 2]


def test_a_piece_that_ends_everybody_ends_the_scan() -> None:
    handout = Handout(pieces(2), 1)
    for _ in range(TRIES - 1):
        (lost,) = given(handout)
        handout.lost([lost[0]], "memory")
    given(handout)
    with pytest.raises(ProcessDiedError, match=rf"{TRIES} processes in a row ended while they had one piece.*memory"):
        handout.lost([0], "memory")


@pytest.mark.parametrize("seed", range(20))
def test_workers_that_are_slow_and_die_change_nothing(seed: int) -> None:
    chance = np.random.default_rng(seed)
    handout, found, has = Handout(pieces(60), 6), list[int](), dict[int, list[tuple[int, Piece]]]()
    lost = 0
    while not handout.is_done:
        mine, draw = has.setdefault(int(chance.integers(3)), []), chance.random()
        if draw < 0.5 and len(mine) < 2 and (one := handout.give()) is not None:
            mine.append(one)
        elif 0.5 < draw < 0.95 and mine:
            number, piece = mine.pop(0)
            handout.take(number, answer(piece))
        elif draw > 0.95:
            lost += len(mine)
            handout.lost([number for number, _ in mine], "gone")
            mine.clear()
        found += [scored.first for scored in handout.in_turn()]
        assert sum(map(len, has.values())) <= 6
    assert found == list(range(60))
    assert lost
