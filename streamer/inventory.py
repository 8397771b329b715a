"""What is known of the stations beside their samples: coordinates and the orientation of their channels, from StationXML.

Looked up at the time of the data, never at "now": a recording from before a sensor was turned is read as it stood then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from obspy import UTCDateTime, read_inventory

from streamer.config import ConfigError, Place
from streamer.orientation import Epoch, Orientation, orientation


class Stations:
    """Coordinates by ``BW_UH3``; orientation by subject."""

    def __init__(
        self, places: Mapping[str, tuple[float, float]], epochs: Mapping[str, Mapping[str, Sequence[Epoch]]]
    ) -> None:
        self.places = places
        self._epochs = epochs

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
    for file in files:
        try:
            inventory = read_inventory(str(file))
        except Exception as error:  # ObsPy raises whatever its many readers do
            raise ConfigError(f"inventory {file}: {type(error).__name__}: {error}") from error
        for network in inventory:
            for station in network:
                found[f"{network.code}_{station.code}"] = (float(station.latitude), float(station.longitude))
                for channel in station:
                    _add(epochs, network.code, station.code, channel)
    found |= {name.replace(".", "_"): (place.latitude, place.longitude) for name, place in places.items()}
    return Stations(found, {subject: dict(codes) for subject, codes in epochs.items()})


def _add(epochs: dict[str, dict[str, list[Epoch]]], network: str, station: str, channel: object) -> None:
    code, azimuth, dip = channel.code, channel.azimuth, channel.dip  # type: ignore[attr-defined]
    if len(code) != 3 or azimuth is None or dip is None:
        return
    subject = f"FDSN:{network}_{station}_{channel.location_code}_{code[0]}_{code[1]}"  # type: ignore[attr-defined]
    epochs[subject][code[2]].append(
        Epoch(_ns(channel.start_date) or 0, _ns(channel.end_date), float(azimuth), float(dip))  # type: ignore[attr-defined]
    )


def _ns(time: UTCDateTime | None) -> int | None:
    return None if time is None else int(time.ns)
