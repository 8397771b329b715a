"""Which of a source's addresses comes next, and after how long. Pure: it neither waits nor connects."""

from __future__ import annotations

from collections.abc import Callable

from streamer.source.transport import Cause

MOST_DOUBLINGS = 30
"""Far beyond any longest pause; keeps the power finite after months of failures."""
REFUSED_S = 30.0
"""Longest pause where the server is there and says no: asking again soon changes nothing, and costs it a listing each time."""
_SAYS_NO = frozenset({Cause.AUTH, Cause.INFO, Cause.EMPTY, Cause.INTERNAL})


class Rotation:
    """The addresses in a ring: after a failure the next one, and a pause once all of them have failed.

    A connection that the server closed is tried again at the same address first: servers restart. Pauses double from
    the shortest to the longest, times a random 0.5 to 1.5, so that a hundred daemons do not return in one second.
    The longest is how long data stay away after a server is back: it is short, since a refused connection costs next to nothing.
    """

    def __init__(self, addresses: int, backoff_s: tuple[float, float], random: Callable[[], float]) -> None:
        self._addresses = addresses
        self._shortest_s, self._longest_s = backoff_s
        self._random = random
        self._failures = 0
        self.index = 0

    def lost(self, cause: Cause, *, steady: bool) -> float:
        """Seconds to wait before the next try; `steady` when data had flowed for a while, which forgives the past."""
        if steady:
            self._failures = 0
        self._failures += 1
        moved = self._addresses > 1 and (cause is not Cause.CLOSED or self._failures > 1)
        if moved:
            self.index = (self.index + 1) % self._addresses
        if moved and self._failures % self._addresses:
            return 0.0
        longest_s = max(self._longest_s, REFUSED_S) if cause in _SAYS_NO else self._longest_s
        return self._pause_s((self._failures - 1) // self._addresses, longest_s)

    def first(self) -> None:
        """Back to the preferred address."""
        self.index = 0

    def _pause_s(self, round_number: int, longest_s: float) -> float:
        full_s = min(longest_s, self._shortest_s * 2.0 ** min(round_number, MOST_DOUBLINGS))
        return min(longest_s, max(self._shortest_s, full_s * (0.5 + self._random())))
