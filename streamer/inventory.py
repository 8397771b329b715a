"""What is known of the stations beside their samples: coordinates, orientation and gain of their channels, from StationXML.

Looked up at the time of the data, never at "now": a recording from before a sensor was turned is read as it stood then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from pathlib import Path

from obspy import UTCDateTime, read_inventory
from obspy.core.inventory import Channel

from streamer.config import ConfigError, Place
from streamer.orientation import ROWS, AnySpan, Epoch, Orientation, Span, orientation, standing
from streamer.stages import station_of

ACCELEROMETERS = ("N", "G")
"""SEED instrument codes of channels that hold no velocity."""


@dataclass(frozen=True, slots=True)
class Gain(Span):
    """How many counts its ground's velocity makes."""

    counts_per_m_s: float


class Stations:
    """Coordinates by ``BW_UH3``; orientation and gain by subject."""

    def __init__(
        self,
        places: Mapping[str, tuple[float, float]],
        epochs: Mapping[str, Mapping[str, Sequence[Epoch]]],
        gains: Mapping[str, Mapping[str, Sequence[Gain]]] = {},
        given: Mapping[str, float] = {},
    ) -> None:
        """``gains`` by subject and SEED code; ``given``: counts per m/s by ``BW_UH3``, which stand above them."""
        self.places = places
        self._epochs, self._gains, self._given = epochs, gains, given

    @property
    def any_gain(self) -> bool:
        """Whether some station's gain is known."""
        return bool(self._gains or self._given)

    def counts_per_m_s(self, subject: str, time_ns: int) -> tuple[float, float, float] | None:
        """Of Z, N and E at a time; None where one of them is not known."""
        given = self._given.get(station_of(subject))
        if given is not None and subject.rpartition("_")[2] not in ACCELEROMETERS:
            return given, given, given
        codes = {code: standing(gains, time_ns) for code, gains in self._gains.get(subject, {}).items()}
        rows = {ROWS[code]: gain.counts_per_m_s for code, gain in codes.items() if gain and code in ROWS}
        return (rows[0], rows[1], rows[2]) if len(rows) == len("ZNE") else None

    def is_oriented(self, subject: str) -> bool:
        """Whether an inventory says which way its horizontals point."""
        return {ROWS[code] for code in self._epochs.get(subject, ()) if code in ROWS} >= {1, 2}

    def orient(self, subject: str) -> Callable[[dict[int, str], int], Orientation] | None:
        """How to turn a subject's rows at a time; None where nothing is known and names are taken at their word."""
        epochs = self._epochs.get(subject)
        if not epochs:
            return None
        borders = sorted(
            {t for spans in epochs.values() for e in spans for t in (e.start_ns, e.end_ns) if t is not None}
        )

        @lru_cache(maxsize=256)
        def within(codes: tuple[tuple[int, str], ...], border: int) -> Orientation:
            return orientation(dict(codes), epochs, border)

        def at(codes: dict[int, str], time_ns: int) -> Orientation:
            past = [border for border in borders if border <= time_ns]
            return within(tuple(sorted(codes.items())), past[-1] if past else time_ns)

        return at


def read_stations(files: Sequence[Path], places: Mapping[str, Place]) -> Stations:
    """Raises `ConfigError` naming a file that cannot be read."""
    found: dict[str, tuple[float, float]] = {}
    epochs: dict[str, dict[str, list[Epoch]]] = defaultdict(lambda: defaultdict(list))
    gains: dict[str, dict[str, list[Gain]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        try:
            inventory = read_inventory(str(file))
        except Exception as error:  # ObsPy raises whatever its many readers do
            raise ConfigError(f"inventory {file}: {type(error).__name__}: {error}") from error
        for network in inventory:
            for station in network:
                found[f"{network.code}_{station.code}"] = (float(station.latitude), float(station.longitude))
                for channel in station:
                    if len(channel.code) == 3:
                        subject = (
                            f"FDSN:{network.code}_{station.code}_{channel.location_code}_{'_'.join(channel.code[:2])}"
                        )
                        epochs[subject][channel.code[2]] += _epochs(channel)
                        gains[subject][channel.code[2]] += _gains(channel)
    named = {name.replace(".", "_"): place for name, place in places.items()}
    found |= {name: (place.latitude, place.longitude) for name, place in named.items()}
    given = {name: place.counts_per_m_s for name, place in named.items() if place.counts_per_m_s is not None}
    return Stations(found, _without_empty(epochs), _without_empty(gains), given)


def _without_empty(of: Mapping[str, Mapping[str, list[AnySpan]]]) -> dict[str, dict[str, list[AnySpan]]]:
    kept = {subject: {code: found for code, found in codes.items() if found} for subject, codes in of.items()}
    return {subject: codes for subject, codes in kept.items() if codes}


def _epochs(channel: Channel) -> list[Epoch]:
    """None where it does not say how it points."""
    if channel.azimuth is None or channel.dip is None:
        return []
    return [Epoch(*_span(channel), float(channel.azimuth), float(channel.dip))]


def _gains(channel: Channel) -> list[Gain]:
    """None where it does not say its sensitivity to velocity: an accelerometer's is another matter."""
    sensitivity = channel.response and channel.response.instrument_sensitivity
    if not sensitivity or (sensitivity.input_units or "").upper() != "M/S":
        return []
    if not sensitivity.value or not isfinite(sensitivity.value):
        return []
    return [Gain(*_span(channel), float(sensitivity.value))]


def _span(channel: Channel) -> tuple[int, int | None]:
    return _ns(channel.start_date) or 0, _ns(channel.end_date)


def _ns(time: UTCDateTime | None) -> int | None:
    return None if time is None else int(time.ns)
