"""What to ask an FDSN web service for, and what of its answers is kept. Pure. https://www.fdsn.org/webservices/fdsnws-specifications-1.2.pdf

One request a station and day, as operators of data centres ask for. What is kept lies as slarchive would have left it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

import numpy as np
from pymseed import sourceid2nslc

from quake.times import NS
from streamer.archive import DAY_NS
from streamer.record_index import Index
from streamer.source.selection import Pattern

GROUND_MOTION = ("?H?", "?L?", "?N?", "?G?", "?P?")
"""Asked for where a pattern leaves the channel open: not the log, mass positions and pressure."""
SERVICE = re.compile(r"/fdsnws(/dataselect(/1(/query(auth)?)?)?)?/?$")
"""Whatever of the service's own path an address has."""


@dataclass(frozen=True, slots=True)
class StationDay:
    network: str
    station: str
    begins_ns: int
    """Midnight."""
    channels: tuple[str, ...]
    """``-- HH?``: location and channel."""
    is_first: bool
    """Records that began before its midnight are its own: no day before it was asked for."""

    @property
    def ends_ns(self) -> int:
        return self.begins_ns + DAY_NS

    @property
    def name(self) -> str:
        """``GE.APE.2010.147``."""
        return f"{self.network}.{self.station}.{_day(self.begins_ns):%Y.%j}"

    @property
    def request(self) -> str:
        """To POST."""
        span = f"{_iso(self.begins_ns)} {_iso(self.ends_ns)}"
        return "".join(f"{self.network} {self.station} {channel} {span}\n" for channel in self.channels)


def root(url: str) -> str:
    """The address of a server's services, of that of the server or of dataselect."""
    return SERVICE.sub("", url.rstrip("/"))


def station_request(patterns: Iterable[Pattern], begin_ns: int, end_ns: int) -> str:
    """To POST to the station service: which stations there are."""
    span = f"{_iso(begin_ns)} {_iso(end_ns)}"
    lines = (f"{p.network} {p.station} {channel} {span}\n" for p in patterns for channel in _channels(p))
    return "level=station\nformat=text\n" + "".join(lines)


def listed(answer: str) -> set[tuple[str, str]]:
    """(network, station) of the station service's text."""
    rows = (line.split("|") for line in answer.splitlines() if line.strip() and not line.startswith("#"))
    return {(row[0].strip(), row[1].strip()) for row in rows if len(row) > 1}


def is_open(pattern: Pattern) -> bool:
    """Whether the station service is to say which stations it stands for."""
    return any(sign in pattern.network + pattern.station for sign in "*?")


def station_days(
    patterns: Sequence[Pattern], stations: Iterable[tuple[str, str]], begin_ns: int, end_ns: int
) -> Iterator[StationDay]:
    """Day by day, and the stations of each. ``stations``: those that the open patterns can stand for."""
    named = {(p.network, p.station) for p in patterns if not is_open(p)}
    wanted = {station: _channels_of(station, patterns) for station in sorted({*named, *stations})}
    first_ns = begin_ns // DAY_NS * DAY_NS
    for day_ns in range(first_ns, end_ns, DAY_NS):
        for (network, station), channels in wanted.items():
            if channels:
                yield StationDay(network, station, day_ns, channels, day_ns == first_ns)


def _channels_of(station: tuple[str, str], patterns: Iterable[Pattern]) -> tuple[str, ...]:
    mine = (p for p in patterns if fnmatchcase(station[0], p.network) and fnmatchcase(station[1], p.station))
    return tuple(dict.fromkeys(channel for p in mine for channel in _channels(p)))


def _channels(pattern: Pattern) -> list[str]:
    codes = GROUND_MOTION if pattern.channel == "*" else (pattern.channel,)
    return [f"{pattern.location or '--'} {code}" for code in codes]


def sorted_out(index: Index, day: StationDay) -> Iterator[tuple[PurePosixPath, bytes]]:
    """A path in an SDS archive for each channel of an answer, and its records.

    A service sends a record over midnight with both days: it is of the day in which it begins.
    """
    own = (index.start_ns < day.ends_ns) & ((index.start_ns >= day.begins_ns) | day.is_first)
    for number in np.unique(index.name[own]).tolist():
        records = np.flatnonzero(own & (index.name == number)).tolist()
        yield sds_path(index.names[number], day.begins_ns), b"".join(map(index.record, records))


def sds_path(source_id: str, day_ns: int) -> PurePosixPath:
    network, station, location, channel = sourceid2nslc(source_id)
    day = _day(day_ns)
    name = f"{network}.{station}.{location}.{channel}.D.{day:%Y.%j}"
    return PurePosixPath(f"{day:%Y}", network, station, f"{channel}.D", name)


def _day(time_ns: int) -> datetime:
    return datetime.fromtimestamp(time_ns // NS, UTC)


def _iso(time_ns: int) -> str:
    return f"{_day(time_ns):%Y-%m-%dT%H:%M:%S}"
