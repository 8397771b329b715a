"""Keeps a fault that repeats every second from filling the log: the first of its kind is written, then one an hour with their number."""

from __future__ import annotations

import logging
from collections.abc import Hashable

EVERY_S = 3600.0
KINDS = 10_000
"""Kinds remembered: beyond it the oldest are forgotten, so that a stream of ever new names cannot fill the memory."""


class Seldom:
    def __init__(self, log: logging.Logger, every_s: float = EVERY_S) -> None:
        self._log, self._every_s = log, every_s
        self._seen: dict[Hashable, tuple[float, int]] = {}
        """Kind -> when it was written last, and how often it came since."""

    def warning(self, kind: Hashable, now_s: float, message: str) -> bool:
        """Whether it was written. ``now_s`` from a monotonic clock."""
        written_s, since = self._seen.pop(kind, (-self._every_s, 0))
        due = now_s - written_s >= self._every_s
        self._seen[kind] = (now_s, 0) if due else (written_s, since + 1)
        if len(self._seen) > KINDS:
            del self._seen[next(iter(self._seen))]
        if due:
            self._log.warning("%s%s", message, f" (and {since} more like it)" if since else "")
        return due
