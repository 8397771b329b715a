"""What goes wrong on the way, on purpose and the same each time.

`plan` says which record is released when, and with which bytes. The faults of a connection (stall, close, truncate,
refuse) are only described here; client.py and server.py carry them out. Nothing here reads a clock or touches a socket.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from .records import NS, Record

DATA_AT = 64
"""libmseed's records have their data from here; before it lie the headers, which `corrupt` leaves alone."""
CORRUPT_BYTES = 16
"""Enough that Steim's own check, the last sample of the record, fails."""
REPEAT_WITHIN_S = 2.0
"""A duplicate comes so much later at most, in data time: other packets lie between, as after a retransmission."""


@dataclass(frozen=True, slots=True)
class Faults:
    """All off by default."""

    seed: int = 1
    drop: float = 0.0
    """Share of records that never come."""
    duplicate: float = 0.0
    """Share of records that come twice, the second time under a new number."""
    corrupt: float = 0.0
    """Share of records whose samples are damaged; their headers stay whole."""
    shuffle_s: float = 0.0
    """Records come up to so much later, in data time, each by its own amount."""
    delay_s: float = 0.0
    """Records come so much later, in data time, all by the same."""
    delay_stations: tuple[str, ...] = ("*",)
    """Whose records are delayed: ``BW_UH1``, ``BW_*``."""
    stall_after: int | None = None
    """A connection that got so many packets gets nothing more; the socket stays open."""
    close_after: int | None = None
    """A connection that got so many packets is closed."""
    truncate_after: int | None = None
    """A connection that got so many packets gets half of the next one and is closed, as when a server dies."""
    times: int = 1
    """On how many connections the three above happen; 0 for all."""
    refuse_s: float = 0.0
    """After such a close nobody is let in for so long; without one, so long from the start."""

    def __post_init__(self) -> None:
        for name in ("drop", "duplicate", "corrupt"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is a share from 0 to 1, not {getattr(self, name)}")
        for name in ("shuffle_s", "delay_s", "refuse_s", "times"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")

    @property
    def breaks(self) -> bool:
        """Whether connections break at all."""
        return any(at is not None for at in (self.stall_after, self.close_after, self.truncate_after))


NONE = Faults()


@dataclass(frozen=True, slots=True)
class Release:
    """A record and when it leaves its station."""

    at_ns: int
    """Data time."""
    record: Record


def plan(records: Iterable[Record], faults: Faults = NONE) -> list[Release]:
    """The records as they will come, in order of release."""
    chance = random.Random(faults.seed)
    releases = [release for record in records for release in _fate(record, faults, chance)]
    return sorted(releases, key=lambda release: release.at_ns)


def _fate(record: Record, faults: Faults, chance: random.Random) -> Iterator[Release]:
    """What becomes of one record. Each draws the same numbers, so that one fault does not change another's choices."""
    drop, duplicate, corrupt, shuffle, repeat, where = (chance.random() for _ in range(6))
    if drop < faults.drop:
        return
    if corrupt < faults.corrupt:
        record = damaged(record, where)
    at_ns = record.end_ns + round(shuffle * faults.shuffle_s * NS) + _delay_ns(record, faults)
    yield Release(at_ns, record)
    if duplicate < faults.duplicate:
        yield Release(at_ns + round(repeat * REPEAT_WITHIN_S * NS), record)


def _delay_ns(record: Record, faults: Faults) -> int:
    late = any(fnmatchcase(record.station_id, pattern) for pattern in faults.delay_stations)
    return round(faults.delay_s * NS) if late else 0


def damaged(record: Record, where: float) -> Record:
    """The record with some bytes of its samples inverted, from ``where`` (0 to 1) of the first frame on."""
    first = DATA_AT + int(where * DATA_AT / 2)
    middle = bytes(byte ^ 0xFF for byte in record.data[first : first + CORRUPT_BYTES])
    return replace(record, data=record.data[:first] + middle + record.data[first + CORRUPT_BYTES :])
