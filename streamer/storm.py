"""How many openings of single stations are told within a minute: a large earthquake opens one at every station at once.

By the data's clock, so that a replay is held as the live run was. Events are never held: they say the same in few words,
and a detection that is not told still takes part in them. Which of the stations are told is chance: those decided first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from streamer.stages import NS, Detection

MINUTE_NS = 60 * NS
KEPT = 60
"""Minutes that are remembered; stations may lag."""


class Limit:
    """``most`` a minute; None: no limit."""

    def __init__(self, most: int | None, told_ns: Iterable[int] = ()) -> None:
        """``told_ns``: when those were decided that an earlier run told."""
        self._most = most
        self._told = Counter(dict(sorted(Counter(time_ns // MINUTE_NS for time_ns in told_ns).items())[-KEPT:]))

    def allows(self, opening: Detection) -> bool:
        """Whether this one is told; it is counted if so."""
        if self._most is None:
            return True
        minute = opening.decided_ns // MINUTE_NS
        if self._told[minute] >= self._most:
            return False
        self._told[minute] += 1
        if len(self._told) > KEPT:
            del self._told[min(self._told)]
        return True
