"""miniSEED bytes -> `Packet | Refused`: the one place where a record's bytes become samples.

Pure: no sockets, no clock. libmseed does the parsing (through pymseed); miniSEED 2 and 3, any record length. It never
raises on what the bytes hold: whatever cannot be used comes back as a `Refused` that says why. This module does not
judge the data (gaps, overlaps, leap-second flags, clipped or flat traces): later stages do.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pymseed import MS3Record, get_error_messages

from streamer.stages import Cursor, Packet, Refused, Unused

_RATE_TOLERANCE = Fraction(1, 2**24)
"""Relative: half a unit in the last place of the float32 that blockette 100 and many writers keep a rate in."""
_DENOMINATORS = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
"""Tried in this order: the simplest fraction that the header's float can stand for is taken as what was meant."""
_RATES = (1e-6, 1e6)
"""Hertz; a number outside is no sampling rate but a broken header."""
_INTEGER_ENCODINGS = frozenset({1, 3, 10, 11})
"""SEED's numbers for INT16, INT32, Steim1 and Steim2."""
_FLOAT_ENCODINGS = frozenset({4, 5})
"""FLOAT32 and FLOAT64."""
_SOURCE_ID = re.compile(
    r"FDSN:([A-Za-z0-9]{1,8})_([A-Za-z0-9-]{1,8})_[A-Za-z0-9-]{0,8}_[A-Za-z0-9]*_[A-Za-z0-9]*_[A-Za-z0-9]+"
)
"""What the grid, the configuration and the alerts can name; anything else is noise in a header's codes."""
_EARLIEST_NS = -(2**62)
"""libmseed marks an unset or wrong time with values near -2**63."""
_V2_CODES = re.compile(
    rb"[0-9]{6}[DRQM][ \0](?P<station>[A-Z0-9 ]{5})..(?P<channel>[A-Z0-9 ]{3})(?P<network>[A-Z0-9 ]{2})"
)
"""The start of miniSEED 2's fixed header: enough to name a station when the rest is broken."""


@lru_cache(maxsize=1024)
def exact_rate(raw: float) -> Fraction | None:
    """Hertz from libmseed's number (negative: a period in seconds); None where it is no rate.

    Below 1 Hz the period is what instruments define, so it is the period that is made exact: 0.333333 is 1/3.
    """
    if not math.isfinite(raw) or raw == 0 or not _RATES[0] <= (raw if raw > 0 else -1 / raw) <= _RATES[1]:
        return None
    if raw < 0:
        return 1 / _simplest(-raw)
    return _simplest(raw) if raw >= 1 else 1 / _simplest(1 / raw)


def _simplest(value: float) -> Fraction:
    exact = Fraction(value)
    for denominator in _DENOMINATORS:
        rational = exact.limit_denominator(denominator)
        if abs(rational - exact) <= exact * _RATE_TOLERANCE:
            return rational or exact
    return exact


def decode(payload: bytes, cursor: Cursor | None, received_ns: int, size: int | None = None) -> Packet | Refused:
    """One record; `size` is the number of bytes on the wire (the record's own without it)."""
    size = len(payload) if size is None else size
    try:
        record = MS3Record.parse(payload)
        channel = record.sourceid
    except (RuntimeError, ValueError, OverflowError) as error:  # pymseed's errors; UnicodeDecodeError is a ValueError
        detail = f"{_who(payload, cursor)}: not a whole miniSEED record: {error}"
        return Refused(Unused.CORRUPT, detail, cursor, size)
    fault = _header_fault(record, channel)
    if fault is not None:
        return Refused(fault[0], f"{_where(record, channel, cursor)}: {fault[1]}", cursor, size)
    return _unpack(record, channel, cursor, received_ns, size)


def _header_fault(record: MS3Record, channel: str) -> tuple[Unused, str] | None:
    if not _SOURCE_ID.fullmatch(channel) or record.starttime < _EARLIEST_NS:
        return Unused.CORRUPT, "header holds no valid codes or time"
    if record.encoding not in _INTEGER_ENCODINGS | _FLOAT_ENCODINGS:
        return Unused.ENCODING, f"encoding {record.encoding} holds no samples that can be used"
    if record.samplecnt <= 0:
        return Unused.EMPTY, "no samples"
    if exact_rate(record.samprate_raw) is None:
        return Unused.RATE, f"sampling rate {record.samprate_raw}"
    return None


def _unpack(record: MS3Record, channel: str, cursor: Cursor | None, received_ns: int, size: int) -> Packet | Refused:
    try:
        record.unpack_data()
        samples = _samples(record)
    except (RuntimeError, ValueError) as error:
        return Refused(Unused.CORRUPT, f"{_where(record, channel, cursor)}: {error}", cursor, size)
    # libmseed only warns when Steim's last value disagrees with the header: the samples are wrong all the same.
    complaints = get_error_messages()
    if complaints:
        return Refused(Unused.CORRUPT, f"{_where(record, channel, cursor)}: {'; '.join(complaints)}", cursor, size)
    rate = exact_rate(record.samprate_raw)
    if rate is None or len(samples) != record.samplecnt:
        detail = f"{len(samples)} of {record.samplecnt} samples could be read"
        return Refused(Unused.CORRUPT, f"{_where(record, channel, cursor)}: {detail}", cursor, size)
    return Packet(channel, record.starttime, rate, samples, cursor, received_ns, size)


def _samples(record: MS3Record) -> NDArray[np.int32] | NDArray[np.float32]:
    """A copy: the view belongs to the record and dies with it. Integers stay int32, doubles are narrowed."""
    view = record.np_datasamples
    if record.encoding in _INTEGER_ENCODINGS:
        return np.array(view, dtype=np.int32)
    with np.errstate(over="ignore"):  # a double beyond float32 becomes inf, which later stages refuse
        return np.array(view, dtype=np.float32)


def station_of(payload: bytes) -> str | None:
    """``NET_STA`` as SeedLink 3 means it, from the record itself; None where the header cannot be read."""
    found = _V2_CODES.match(payload)
    if found is not None:
        network, station = (found[name].decode("ascii").strip() for name in ("network", "station"))
        return f"{network}_{station}" if station else None
    try:
        found_id = _SOURCE_ID.fullmatch(MS3Record.parse(payload).sourceid)
    except (RuntimeError, ValueError, OverflowError):
        return None
    return f"{found_id[1]}_{found_id[2]}" if found_id else None


def _who(payload: bytes, cursor: Cursor | None) -> str:
    found = _V2_CODES.match(payload)
    if found is not None:
        return "_".join(found[name].decode("ascii").strip() for name in ("network", "station", "channel"))
    return cursor.station if cursor else "unknown station"


def _where(record: MS3Record, channel: str, cursor: Cursor | None) -> str:
    name = channel if channel.isprintable() and channel else cursor.station if cursor else "unknown station"
    return f"{name} {record.starttime_str()}"
