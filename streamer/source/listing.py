"""What a server says it has: the replies to HELLO and INFO STREAMS, read from SeedLink 3's XML and SeedLink 4's JSON.

Pure. It does not choose among the stations (`selection`) nor decide where to resume (`resume`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree

from streamer.stages import NS

_HEX_DIGITS = 6
_SEED_CHANNEL_LENGTH = 3
_FDSN_CHANNEL_CODES = 4
"""Location, band, source and subsource."""


class ListingError(ValueError):
    """The reply is no listing: the server refused the request or does not know it."""


@dataclass(frozen=True, slots=True, order=True)
class Channel:
    """FDSN codes; for SEED channels each of the last three is one character."""

    location: str
    band: str
    source: str
    subsource: str

    @property
    def seed(self) -> str | None:
        """``SHZ``; None where the codes do not fit into SEED's three characters."""
        code = self.band + self.source + self.subsource
        return code if all(len(part) == 1 for part in (self.band, self.source, self.subsource)) else None


@dataclass(frozen=True, slots=True)
class ListedStation:
    network: str
    station: str
    channels: frozenset[Channel]
    """Those that carry waveforms (SeedLink's type D)."""
    begin: int | None
    """Number of the oldest packet in the server's ring; None where the server does not say."""
    end: int | None
    """Number of the newest packet, or the one after it: servers differ."""
    newest_ns: int | None
    """Time of the newest sample."""

    @property
    def name(self) -> str:
        """SeedLink's ``NET_STA``."""
        return f"{self.network}_{self.station}"


@dataclass(frozen=True, slots=True)
class Listing:
    shared: bool
    """One count of packets for all stations (ringserver), instead of one a station."""
    stations: tuple[ListedStation, ...]


def counts_for_all(hello: str) -> bool:
    """Whether the server's greeting names ringserver, which numbers all stations' packets in one row.

    It starts a connection at the newest number that any station asks for, and lists numbers 64 bits wide.
    """
    return "ringserver" in hello.lower()


def parse_xml(text: str, shared: bool) -> Listing:
    """SeedLink 3's ``INFO STREAMS``. Raises ListingError."""
    try:
        root = ElementTree.fromstring(text.strip().strip("\0"))
    except ElementTree.ParseError as error:
        raise ListingError(f"INFO STREAMS came back as no XML: {error}") from None
    if root.tag != "seedlink":
        raise ListingError(f"INFO STREAMS came back as <{root.tag}>")
    base = 10 if shared or not _hexadecimal(root) else 16
    return Listing(shared, tuple(_xml_station(element, base) for element in root.iter("station")))


def _hexadecimal(root: ElementTree.Element) -> bool:
    """SeisComP writes numbers as it sends them, in six hexadecimal digits; others write them in decimal, unpadded."""
    written = [station.get(name, "") for station in root.iter("station") for name in ("begin_seq", "end_seq")]
    return all(len(number) == _HEX_DIGITS for number in written if number)


def _xml_station(element: ElementTree.Element, base: int) -> ListedStation:
    streams = [stream for stream in element.iter("stream") if stream.get("type", "D") == "D"]
    channels = (_seed_channel(stream.get("location", ""), stream.get("seedname", "")) for stream in streams)
    return ListedStation(
        network=element.get("network", "").strip(),
        station=element.get("name", "").strip(),
        channels=frozenset(channel for channel in channels if channel is not None),
        begin=_number(element.get("begin_seq"), base),
        end=_number(element.get("end_seq"), base),
        newest_ns=_newest(stream.get("end_time") for stream in streams),
    )


def parse_json(text: str, shared: bool) -> Listing:
    """SeedLink 4's ``INFO STREAMS``. Raises ListingError."""
    try:
        stations = json.loads(text).get("station") or []
        return Listing(shared, tuple(_json_station(station) for station in stations))
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise ListingError(f"INFO STREAMS came back as no listing: {error}") from None


def _json_station(station: Mapping[str, Any]) -> ListedStation:
    network, _, code = str(station.get("id", "")).partition("_")
    streams = [stream for stream in station.get("stream") or [] if stream.get("subformat", "D") == "D"]
    channels = (_fdsn_channel(str(stream.get("id", ""))) for stream in streams)
    return ListedStation(
        network=network,
        station=code,
        channels=frozenset(channel for channel in channels if channel is not None),
        begin=_number(station.get("start_seq"), 10),
        end=_number(station.get("end_seq"), 10),
        newest_ns=_newest(stream.get("end_time") for stream in streams),
    )


def _seed_channel(location: str, code: str) -> Channel | None:
    location, code = location.strip().replace("-", ""), code.strip()
    if len(code) == _SEED_CHANNEL_LENGTH:
        return Channel(location, *code)
    return _fdsn_channel(f"{location}_{code}")


def _fdsn_channel(stream_id: str) -> Channel | None:
    codes = stream_id.split("_")
    return Channel(*codes) if len(codes) == _FDSN_CHANNEL_CODES and codes[-1] else None


def _number(text: str | int | None, base: int) -> int | None:
    if text is None or isinstance(text, int):
        return text
    try:
        return int(text, base)
    except ValueError:
        return None


def _newest(times: Iterable[str | None]) -> int | None:
    known = [time_ns for time_ns in map(parse_time, times) if time_ns is not None]
    return max(known, default=None)


def parse_time(text: str | None) -> int | None:
    """``2010/05/27 16:24:03.0000`` and RFC 3339 alike, to the microsecond; None where it is neither."""
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text.strip().replace("/", "-").replace("Z", "+00:00"))
    except ValueError:
        return None
    since = time.replace(tzinfo=time.tzinfo or UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * NS + since.microseconds * 1_000
