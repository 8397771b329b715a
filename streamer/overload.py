"""Catching up is not overload. After an outage packets come as fast as the server can send, and all of them are to be
scored; a machine that cannot keep up falls further and further behind. The sign of the lag's change tells the two
apart.

Pure: told the lag now and then, says whether windows are to be dropped.
"""

from __future__ import annotations

from streamer.stages import NS

PATIENCE_NS = 10 * NS
"""Over this long a lag must shrink to count as catching up."""
LEAST_GAIN = 0.1
"""Seconds of lag gained a second that count as catching up: slower, an hour's outage would take ten."""


class Overload:
    def __init__(self, max_behind_ns: int) -> None:
        self._max_behind_ns = max_behind_ns
        self._mark: tuple[int, int] | None = None
        """Time and lag when the queue was first seen full, or at the last look."""
        self.dropping = False

    def update(self, now_ns: int, lag_ns: int, full: bool, empty: bool) -> bool:
        """``lag_ns``: how far decisions lie behind this machine's clock. ``full``, ``empty``: the source's queue."""
        if empty:
            self.dropping, self._mark = False, None
        elif self._mark is None:
            self._mark = (now_ns, lag_ns) if full else None
        elif now_ns - self._mark[0] >= PATIENCE_NS:
            gained = (self._mark[1] - lag_ns) / (now_ns - self._mark[0])
            self.dropping = self.dropping or (full and gained < LEAST_GAIN and lag_ns > self._max_behind_ns)
            self._mark = (now_ns, lag_ns)
        return self.dropping
