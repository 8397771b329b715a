"""Stations that are not there: an hour of noise with events in it, and any number of such hours in a row.

An hour is packed once; the others are the same bytes under another time, so that weeks fit into memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import overload

import numpy as np
import obspy
from numpy.typing import NDArray

from streamer.server import Record
from streamer.server.faults import Release
from streamer.server.records import pack
from streamer.stages import NS

HOUR_S = 3600
EVENTS_S = (600, 1500, 2700)
"""Seconds into the hour at which all stations hear something, one tenth of a second after the other."""
LONELY_S = 2100
"""When the first station alone does."""
LOUDER, LASTS_S, FADES_S = 25.0, 40.0, 12.0
RATE = 20
"""Hertz: the made detector's too, so that a day of data is a matter of seconds."""


def samples(station: int, component: int, seconds: int, events_s: Sequence[float] = EVENTS_S) -> NDArray[np.int32]:
    """Of one channel."""
    noise = np.random.default_rng([station, component]).standard_normal(seconds * RATE) * 4
    for event_s in [*events_s, *([LONELY_S] if not station and seconds > LONELY_S else [])]:
        first = round((event_s + station / 10) * RATE)
        time_s = np.arange(min(round(LASTS_S * RATE), len(noise) - first)) / RATE
        noise[first : first + len(time_s)] *= 1 + LOUDER * np.exp(-time_s / FADES_S)
    return np.rint(noise).astype(np.int32)


def network(
    stations: int, start_ns: int, seconds: int = HOUR_S, events_s: Sequence[float] = EVENTS_S, fill: float = 1.0
) -> list[Record]:
    """Records in the order in which they could be sent: three components of every fourth station, the others' vertical."""
    records: list[Record] = []
    for station in range(stations):
        for component, code in enumerate("Z" if station % 4 else "ZNE"):
            header = {"network": "XX", "station": f"S{station:02d}", "channel": f"HH{code}", "sampling_rate": RATE}
            start = obspy.UTCDateTime(ns=start_ns)
            trace = obspy.Trace(samples(station, component, seconds, events_s), {**header, "starttime": start})
            records += pack(trace, fill)
    return sorted(records, key=lambda r: (r.end_ns, r.stream_id))


class Hours(Sequence[Release]):
    """The hour's records again and again, each made when it is asked for."""

    def __init__(
        self, hour: Sequence[Record], count: int, on_hour: Callable[[int], None] = lambda number: None
    ) -> None:
        """``on_hour`` hears the number of each hour as its first record is taken."""
        self._hour, self._count, self._on_hour = hour, count, on_hour

    def __len__(self) -> int:
        return len(self._hour) * self._count

    @overload
    def __getitem__(self, at: int) -> Release: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Release]: ...
    def __getitem__(self, at: int | slice) -> Release | Sequence[Release]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        number, place = divmod(at, len(self._hour))
        if place == 0:
            self._on_hour(number)
        record = later(self._hour[place], number)
        return Release(record.end_ns, record)


def later(record: Record, hours: int) -> Record:
    """The record so many hours later: year, day and hour of a miniSEED 2 header are written anew."""
    (year, day), hour = struct.unpack_from(">HH", record.data, 20), record.data[24]
    moment = datetime(year, 1, 1, hour, tzinfo=UTC) + timedelta(days=day - 1, hours=hours)
    when = struct.pack(">HHB", moment.year, moment.timetuple().tm_yday, moment.hour)
    shift_ns = hours * HOUR_S * NS
    data = record.data[:20] + when + record.data[25:]
    return replace(record, start_ns=record.start_ns + shift_ns, end_ns=record.end_ns + shift_ns, data=data)
