"""Times: integer nanoseconds UTC inside, RFC 3339 outside. POSIX time: leap seconds do not exist here."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from fractions import Fraction
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

NS = 1_000_000_000
"""Nanoseconds a second."""

LARGEST_NS = 60_000_000_000 * NS
"""From 1970: the years 69 to 3871, within what a calendar can write."""

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|z|[+-]\d\d:\d\d)", re.ASCII)


def span_ns(samples: int, rate: Fraction) -> int:
    """How long so many samples last, to the nearest nanosecond, halves to even: `round` of the quotient, but without making a
    fraction, for each packet asks several times."""
    whole, rest = divmod(samples * NS * rate.denominator, rate.numerator)
    twice = 2 * rest
    return whole + (twice > rate.numerator or (twice == rate.numerator and whole % 2 == 1))


def format_ns(time_ns: int) -> str:
    """RFC 3339 in UTC with six decimals, nine where the nanoseconds need them."""
    seconds, rest = divmod(time_ns, NS)
    fraction = f"{rest // 1000:06d}" if rest % 1000 == 0 else f"{rest:09d}"
    return f"{datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()}.{fraction}Z"


def parse_ns(text: str) -> int:
    """Nanoseconds of an RFC 3339 time; ValueError for anything else."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an RFC 3339 time such as 2010-05-27T16:24:33Z")
    day, clock, fraction, zone = match.groups()
    whole = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in 'Zz' else zone}")
    return int(whole.timestamp()) * NS + int((fraction or "0").ljust(9, "0"))


def _validate(value: object) -> int:
    if isinstance(value, str):
        return parse_ns(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_NS:
        return value
    raise ValueError("a time is an RFC 3339 string or integer nanoseconds")


Timestamp = Annotated[
    int,
    BeforeValidator(_validate),
    PlainSerializer(format_ns, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""Nanoseconds in Python, an RFC 3339 string in JSON."""
