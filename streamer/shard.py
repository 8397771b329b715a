"""Which of several daemons watches a station: rendezvous hashing of its name. Pure.

Every daemon comes to the same answer by itself, of stations that a server has only just announced too. Of n daemons, one more
takes a share of each of the others and moves no other station; one less leaves its own to the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256


@dataclass(frozen=True, slots=True)
class Shard:
    """One part of all stations: number ``index`` of ``count``, from 0."""

    count: int = 1
    index: int = 0

    def has(self, station: str) -> bool:
        """``station``: ``NET_STA``."""
        return owner(station, self.count) == self.index

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


WHOLE = Shard()
"""All stations."""


@lru_cache(maxsize=65_536)
def owner(station: str, count: int) -> int:
    """The index, of ``count``, whose hash with the station is the highest. Never another function: stations would move."""
    return max(range(count), key=lambda index: sha256(f"{index}|{station}".encode()).digest())
