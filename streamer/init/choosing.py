"""Which of a server's stations and sensors a new configuration names. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from streamer.source.listing import Listing
from streamer.source.selection import Pattern, Selection, select, unmatched

INSTRUMENTS = "HPLNG"
"""The best first: velocity before acceleration, of which the sizes of earthquakes are not told."""
BANDS = "HEBSFCGD"
"""The best first: from 80 Hz, from 10 Hz, from 250 Hz, from 1,000 Hz. Slower ones hear no local earthquake."""
NAMED = 12
"""Stations that an error names."""


@dataclass(frozen=True, slots=True)
class Sensor:
    """The channels of a station that share location, band and instrument: what scores, and counts, as one station."""

    network: str
    station: str
    location: str
    band: str
    source: str
    components: str

    @staticmethod
    def of(subject: str, components: Iterable[str]) -> Sensor:
        """``FDSN:BW_UH3__S_H`` and its components."""
        network, station, location, band, source = subject.removeprefix("FDSN:").split("_")
        return Sensor(network, station, location, band, source, "".join(sorted(components, key="ZNE123".index)))

    @property
    def name(self) -> str:
        return f"{self.network}.{self.station}"

    @property
    def pattern(self) -> str:
        """For `select`: ``BW.UH3..SH?``."""
        code = self.band + self.source if len(self.band + self.source) == 2 else f"{self.band}_{self.source}_"
        return f"{self.name}.{self.location}.{code}{'?' if len(self.components) > 1 else self.components}"

    @property
    def _rank(self) -> tuple[int, int, int, str]:
        return INSTRUMENTS.find(self.source), BANDS.find(self.band), -len(self.components), self.location

    @property
    def is_fit(self) -> bool:
        """Whether a detector can hear with it, by its codes: a vertical is enough."""
        return self.source in INSTRUMENTS and self.band in BANDS and bool(set("Z3") & set(self.components))


def sensors(patterns: Sequence[Pattern], listing: Listing) -> list[Sensor]:
    """All that the patterns with a channel name, and the best one of each station that the others do."""
    exact = [pattern for pattern in patterns if pattern.channel != "*"]
    named = _of(select(exact, listing))
    others: dict[str, list[Sensor]] = {}
    for sensor in _of(select([pattern for pattern in patterns if pattern not in exact], listing)):
        if sensor.is_fit:
            others.setdefault(sensor.name, []).append(sensor)
    best = [min(found, key=lambda sensor: sensor._rank) for found in others.values()]
    return sorted({*named, *best}, key=lambda sensor: sensor.pattern)


def _of(selection: Selection) -> list[Sensor]:
    return [Sensor.of(subject, components) for subject, components in selection.expected.items()]


def unlisted(patterns: Sequence[Pattern], listing: Listing) -> list[str]:
    """What is wrong with each pattern that brings nothing: the server's stations that are meant, or all there are."""
    names = sorted(station.name.replace("_", ".") for station in listing.stations)
    return [f"--station {text}: {_instead(text, names)}" for text in unmatched(patterns, listing)]


def _instead(text: str, names: Sequence[str]) -> str:
    name = ".".join(text.split(".")[:2])
    if name in names:
        return f"the server lists {name}, but no such channel of ground motion"
    near = difflib.get_close_matches(name, names, 3, 0.6)
    return f"the server lists no such station; {'did you mean ' + ' or '.join(near) + '?' if near else told(names)}"


def told(names: Sequence[str]) -> str:
    """``it lists BW.UH1, BW.UH2 and 40 more``."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"it lists {', '.join(names[:NAMED]) or 'none'}{more}"


@dataclass(frozen=True, slots=True)
class Region:
    """Degrees; one whose west lies above its east crosses the date line."""

    south: float
    north: float
    west: float
    east: float

    def holds(self, latitude: float, longitude: float) -> bool:
        return self.south <= latitude <= self.north and (longitude - self.west) % 360 <= (self.east - self.west) % 360


def within(listing: Listing, region: Region, places: Mapping[str, tuple[float, float]]) -> Listing:
    """The stations whose ``places`` (by ``BW_UH3``) lie there; one without a place does not."""
    there: Collection[str] = {name for name, place in places.items() if region.holds(*place)}
    return replace(listing, stations=tuple(station for station in listing.stations if station.name in there))
