"""Which channels a window of a station is to have: those that were announced, and those that turned up.

A channel that turns up later counts from a fixed data time after its first sample on, when every order of packets
within ``max_wait`` knows it; so a window's components do not depend on when a packet happened to come. Where two
codes stand for one row (a sensor whose 1 and 2 became N and E), the one that began later does. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from streamer.orientation import ROWS


class Components:
    def __init__(self, announced: frozenset[str], settle_ns: int) -> None:
        """``announced``: SEED orientation codes that are known to come. ``settle_ns``: how long after its first
        sample a code that was not is expected."""
        self._announced, self._settle_ns = announced, settle_ns
        self._first_ns: dict[str, int] = {}
        self._initial: frozenset[str] = announced
        self._settled: tuple[int, Mapping[int, str]] | None = None
        """Row -> code of every window that begins at this time or later, until something is seen."""

    @property
    def announced(self) -> bool:
        return bool(self._announced)

    @property
    def first_ns(self) -> int:
        return min(self._first_ns.values(), default=0)

    def seen(self, code: str, start_ns: int) -> None:
        if start_ns < self._first_ns.get(code, start_ns + 1):
            self._first_ns[code], self._settled = start_ns, None

    def begin(self, until_ns: int) -> None:
        """The first window is about to be cut: a code seen up to ``until_ns`` has always been there."""
        self._settled = None
        self._initial = self._announced | {code for code, first_ns in self._first_ns.items() if first_ns <= until_ns}

    def of(self, start_ns: int) -> Mapping[int, str]:
        """Row -> code, for a window that begins at ``start_ns``."""
        if self._settled is not None and start_ns >= self._settled[0]:
            return self._settled[1]
        ranked = sorted((rank, code) for code in self._known if (rank := self._rank(code, start_ns)) is not None)
        found = {ROWS[code]: code for _, code in ranked}
        settled_ns = max(self._first_ns.values(), default=0) + self._settle_ns
        if start_ns >= settled_ns:
            self._settled = (settled_ns, found)
        return found

    @property
    def _known(self) -> set[str]:
        return {*self._announced, *self._first_ns}

    def _rank(self, code: str, start_ns: int) -> int | None:
        """When it began; None where it is not expected yet."""
        first_ns = self._first_ns.get(code)
        counts = first_ns is not None and (
            code in self._initial - self._announced or first_ns + self._settle_ns <= start_ns
        )
        if counts:
            return first_ns
        return -1 if code in self._initial else None
