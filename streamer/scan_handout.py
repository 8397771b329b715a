"""Which piece is given out next, for workers that come and go: answers in the order of the pieces, few of them ahead. Pure.

A piece that is scored twice gives the same twice, so what a lost worker had is simply given to another.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator

from streamer.scan_piece import Scored
from streamer.scan_plan import Piece
from streamer.scan_pool import ProcessDiedError

TRIES = 4
"""Of a piece: one that ends whoever scores it would go round for ever."""


class Handout:
    """Pieces by number, from 0."""

    def __init__(self, pieces: Iterable[Piece], ahead: int) -> None:
        """``ahead``: pieces given out before they are asked for, at most; what they came to waits in memory."""
        self._pieces, self._ahead = enumerate(pieces), ahead
        self._next = 0
        self._ended = False
        self._out: dict[int, Piece] = {}
        """Given to somebody, or to be given again."""
        self._again: list[int] = []
        """A heap: the oldest is the one that is waited for."""
        self._lost: Counter[int] = Counter()
        self._found: dict[int, Scored] = {}

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to give, to wait for or to take."""
        return self._ended and not self._out and not self._found

    def give(self) -> tuple[int, Piece] | None:
        """None where nothing is to be given now."""
        if self._again:
            number = heapq.heappop(self._again)
            return number, self._out[number]
        if len(self._out) + len(self._found) >= self._ahead:
            return None
        given = next(self._pieces, None)
        if given is None:
            self._ended = True
        else:
            self._out[given[0]] = given[1]
        return given

    def take(self, number: int, scored: Scored) -> None:
        """What a piece that was given out came to."""
        del self._out[number]
        self._found[number] = scored

    def lost(self, numbers: Iterable[int], why: str) -> None:
        """Whoever had these is gone. Raises `ProcessDiedError` where that befell one of them for the last time."""
        for number in numbers:
            self._lost[number] += 1
            if self._lost[number] >= TRIES:
                raise ProcessDiedError(f"{TRIES} processes in a row ended while they had one piece; the last: {why}")
            heapq.heappush(self._again, number)

    def in_turn(self) -> Iterator[Scored]:
        """What is there of those whose turn it is."""
        while (scored := self._found.pop(self._next, None)) is not None:
            self._next += 1
            yield scored
