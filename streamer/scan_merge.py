"""Scores of an archive's pieces, put in the order of the data: what triggers and coincidence would have been given live. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

from streamer.scan_piece import Scored, clipped, newest
from streamer.stages import Unscored, Unused
from streamer.worker import Decided

AT_ONCE = 16
"""Windows of each station that are decided before the coincidence looks at them. It makes no difference to what it says."""


class Merge:
    """Follows each subject from window to window: none twice, none left out."""

    def __init__(self, decided: Mapping[str, int]) -> None:
        """``decided``: the newest window of each subject that an earlier run decided."""
        self._decided = dict(decided)

    def slices(self, scored: Iterable[Scored]) -> Iterator[list[Decided]]:
        """``scored``: the pieces that begin with one window of the grid."""
        items = sorted((i for piece in scored for i in piece.items), key=lambda item: (newest(item), item.subject))
        for _, group in groupby(items, lambda item: newest(item) // AT_ONCE):
            fresh = [one for item in group for one in self._fresh(item)]
            if fresh:
                yield fresh

    def _fresh(self, item: Decided) -> Iterator[Decided]:
        """What of it was not decided before, and that nothing was known of the windows before it."""
        before = self._decided.get(item.subject)
        last = newest(item)
        if before is not None:
            if last <= before:
                return
            if item.k > before + 1:
                yield Unscored(item.subject, before + 1, item.k - 1, Unused.GAP)
            left = clipped(item, before + 1, last)
            assert left is not None
            item = left
        self._decided[item.subject] = last
        yield item
