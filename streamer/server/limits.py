"""How much one server does for strangers: connections, how fast they come, how fast they ask, how long they may take.

Numbers, and the bucket that holds a rate to one of them. Sizes of a request are protocol.py's limits. It reads no clock
and waits for nothing: whoever asks a bucket is told how long to.
"""

from __future__ import annotations

from dataclasses import dataclass

CLIENTS = 100
"""Connections at a time; more are closed at once."""
ARRIVALS_A_SECOND, ARRIVALS_AT_ONCE = 20.0, 200.0
"""New connections; more are closed at once. A hundred daemons that come back together open two each."""
BYTES_A_SECOND, BYTES_AT_ONCE = 16 * 1024.0, 1024 * 1024.0
"""Read from one connection: ten thousand stations with selectors are a megabyte. More stays in the socket, so TCP holds
the sender back."""
LISTINGS_A_SECOND, LISTINGS_AT_ONCE = 1.0, 10.0
"""Answers that look through the whole ring or all connections, to one connection: each may take a tenth of a second. More
are answered late."""
ASKING_S = 120.0
"""A connection that has asked for no data after so long is closed: it would hold a place for ever."""


@dataclass(slots=True)
class Bucket:
    """Lets ``at_once`` through, and ``a_second`` for ever."""

    a_second: float
    at_once: float
    left: float | None = None
    """What may pass now; negative while what passed is being waited for."""
    seen_s: float = 0.0

    def take(self, count: float, now_s: float) -> float:
        """Take so much; the seconds to wait before it may pass."""
        self._refill(now_s)
        assert self.left is not None
        self.left -= count
        return max(0.0, -self.left / self.a_second)

    def may(self, now_s: float) -> bool:
        """Take one if there is one."""
        self._refill(now_s)
        assert self.left is not None
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True

    def _refill(self, now_s: float) -> None:
        if self.left is None:
            self.left = self.at_once
        else:
            self.left = min(self.at_once, self.left + (now_s - self.seen_s) * self.a_second)
        self.seen_s = now_s
