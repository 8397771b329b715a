"""What the user wrote -> which stations and channels to ask a server for, by name.

A pattern is NET.STA[.LOC[.CHA]] with ``*`` and ``?``: ``BW.UH*``, ``BW.UH3..SH?``. What is left out matches everything;
an empty LOC (or ``--``) is the blank location. Servers forget where a wildcard station stood, so wildcards are expanded
here, against the server's own listing. Pure: it fetches no listing and knows no sequence numbers.

Only channels with one of the component codes Z N E 1 2 3 are taken, and, unless the pattern names the instrument code,
only those of seismometers and accelerometers: ``BW.UH*`` does not bring mass positions, pressure or the log.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from streamer.source.listing import Channel, ListedStation, Listing

COMPONENTS = "ZNE123"
"""Orientation codes that stand for an axis of motion; 1, 2 and 3 where the axes are not aligned with the earth's."""
_INSTRUMENTS = "HLGPN"
"""FDSN source codes of ground motion: high and low gain seismometer, gravimeter (old accelerometers), geophone,
accelerometer."""
_USUAL_COMPONENTS = "ZNE"
"""What a configured ``SH?`` is taken to mean where no listing says it better."""
_WILDCARDS = frozenset("*?[")
_PARTS = (2, 3, 4)


class SelectionError(ValueError):
    """The configured selection cannot be used; the message says what to write."""


@dataclass(frozen=True, slots=True)
class Pattern:
    text: str
    network: str
    station: str
    location: str
    channel: str

    def matches(self, station: ListedStation, channel: Channel) -> bool:
        return (
            fnmatchcase(station.network, self.network)
            and fnmatchcase(station.station, self.station)
            and fnmatchcase(channel.location, self.location)
            and self._takes(channel)
        )

    def _takes(self, channel: Channel) -> bool:
        code = channel.seed or f"{channel.band}_{channel.source}_{channel.subsource}"
        named = len(self.channel) == 3 and self.channel[1] not in _WILDCARDS
        return fnmatchcase(code, self.channel) and (named or channel.source in _INSTRUMENTS)


@dataclass(frozen=True, slots=True)
class Selection:
    """What one connection asks a server for."""

    stations: Mapping[str, tuple[str, ...]]
    """NET_STA -> SeedLink 3 selectors; none means every channel."""
    channels: Mapping[str, tuple[str, ...]]
    """NET_STA -> SeedLink 4 selectors."""
    expected: Mapping[str, frozenset[str]]
    """FDSN source id without component -> the components that exist there."""


NOTHING = Selection({}, {}, {})


def parse_pattern(text: str) -> Pattern:
    """Raises SelectionError."""
    parts = text.strip().split(".")
    if len(parts) not in _PARTS or not parts[0] or not parts[1]:
        raise SelectionError(f"{text!r}: write NET.STA, NET.STA.LOC or NET.STA.LOC.CHA, as BW.UH* or BW.UH3..SH?")
    location = "*" if len(parts) == 2 else parts[2].replace("--", "")
    channel = parts[3] if len(parts) == 4 else "*"
    return Pattern(text.strip(), parts[0], parts[1], location, channel or "*")


def select(patterns: Sequence[Pattern], listing: Listing) -> Selection:
    """Expand the patterns against what the server lists."""
    chosen: dict[str, set[Channel]] = defaultdict(set)
    listed: dict[str, set[Channel]] = defaultdict(set)
    for station in listing.stations:
        listed[station.name] |= station.channels
        for channel in station.channels:
            if _usable(channel) and any(pattern.matches(station, channel) for pattern in patterns):
                chosen[station.name].add(channel)
    names = sorted(chosen)
    return Selection(
        stations={name: _seed_selectors(chosen[name], listed[name]) for name in names},
        channels={name: _fdsn_selectors(chosen[name]) for name in names},
        expected=_expected((name, channel) for name in names for channel in chosen[name]),
    )


def merge(old: Selection, new: Selection) -> Selection:
    """Both: a server that has just restarted lists only what has sent since, and must still be asked for the rest."""

    def both(one: Mapping[str, Iterable[str]], other: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
        return {name: {*one.get(name, ()), *other.get(name, ())} for name in sorted({*one, *other})}

    return Selection(
        stations={name: tuple(sorted(found)) for name, found in both(old.stations, new.stations).items()},
        channels={name: tuple(sorted(found)) for name, found in both(old.channels, new.channels).items()},
        expected={name: frozenset(found) for name, found in both(old.expected, new.expected).items()},
    )


def unmatched(patterns: Sequence[Pattern], listing: Listing) -> tuple[str, ...]:
    """The patterns that match nothing the server lists: worth a line in the log."""
    usable = [(station, channel) for station in listing.stations for channel in station.channels if _usable(channel)]
    return tuple(p.text for p in patterns if not any(p.matches(station, channel) for station, channel in usable))


def select_unlisted(patterns: Sequence[Pattern], server: str) -> Selection:
    """The selection for a server that refuses INFO STREAMS: every pattern must name its station and channels.

    Raises SelectionError, which names the server and says what to write.
    """
    stations: dict[str, set[Channel]] = defaultdict(set)
    for pattern in patterns:
        stations[f"{pattern.network}_{pattern.station}"] |= _named_channels(pattern, server)
    return Selection(
        stations={name: tuple(sorted(map(_selector, found))) for name, found in sorted(stations.items())},
        channels={name: _fdsn_selectors(found) for name, found in sorted(stations.items())},
        expected=_expected((name, channel) for name, found in stations.items() for channel in _spelled_out(found)),
    )


def _named_channels(pattern: Pattern, server: str) -> set[Channel]:
    code = pattern.channel
    fixed = pattern.network + pattern.station + pattern.location + code[:2]
    if len(code) != 3 or _WILDCARDS & set(fixed) or code[2] not in COMPONENTS + "?*":
        raise SelectionError(
            f"{server} does not list its streams (INFO STREAMS), so {pattern.text!r} cannot be expanded: "
            f"name network, station, location and channel, as in BW.UH3..SH? (component Z, N, E, 1, 2, 3 or ?)"
        )
    return {Channel(pattern.location, code[0], code[1], code[2].replace("*", "?"))}


def _spelled_out(channels: Iterable[Channel]) -> Iterable[Channel]:
    for channel in channels:
        codes = _USUAL_COMPONENTS if channel.subsource == "?" else channel.subsource
        yield from (Channel(channel.location, channel.band, channel.source, code) for code in codes)


def _usable(channel: Channel) -> bool:
    return channel.subsource in COMPONENTS and len(channel.subsource) == 1


def _expected(channels: Iterable[tuple[str, Channel]]) -> dict[str, frozenset[str]]:
    components: dict[str, set[str]] = defaultdict(set)
    for station, channel in channels:
        components[f"FDSN:{station}_{channel.location}_{channel.band}_{channel.source}"].add(channel.subsource)
    return {subject: frozenset(found) for subject, found in sorted(components.items())}


def _seed_selectors(chosen: set[Channel], listed: set[Channel]) -> tuple[str, ...]:
    """One selector for the channels of a sensor that are all wanted: each one costs a round trip to the server."""
    selectors = set()
    for channel in chosen:
        if channel.seed is None:
            continue  # SeedLink 3 has no way to ask for codes that are not SEED's
        sensor = {other for other in listed if _same_sensor(other, channel)}
        whole = len(sensor) > 1 and sensor <= chosen
        selectors.add(_selector(replace(channel, subsource="?") if whole else channel))
    return tuple(sorted(selectors))


def _fdsn_selectors(chosen: Iterable[Channel]) -> tuple[str, ...]:
    return tuple(sorted(f"{c.location}_{c.band}_{c.source}_{c.subsource}" for c in chosen))


def _same_sensor(one: Channel, other: Channel) -> bool:
    return (one.location, one.band, one.source) == (other.location, other.band, other.source)


def _selector(channel: Channel) -> str:
    """``00SHZ``; blanks in a location are written as ``-``."""
    return f"{channel.location:-<2}{channel.band}{channel.source}{channel.subsource}"
