"""What a client asked for: stations, selectors, a number, a time; and whether a stream is part of it.

Wildcards and selectors mean what they mean to ringserver 4.5.3: a location must be matched by as many characters as it
has (``??SHZ`` does not match a blank one, ``--SHZ`` and ``SHZ`` do), case counts, the type after a point is ignored. It
knows nothing of the ring or of connections.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

STATION = re.compile(r"[A-Za-z0-9?*_]+")
SELECTOR = re.compile(r"(!?)([A-Za-z0-9?*_-]{2})?([A-Za-z0-9?*_-]{3})")
WILD = frozenset("*?")
MAX_STATION = 9
"""Characters of a station or network in ``STATION``; longer ones are cut, as the real server does."""


@dataclass(frozen=True, slots=True)
class Selector:
    """A pattern over ``LOC_B_S_s``."""

    pattern: str
    negated: bool = False


@dataclass(slots=True)
class StationRequest:
    """The streams of the stations that match ``station``, and from where."""

    station: str
    """``BW_UH3``; ``*`` and ``?`` are wildcards."""
    selectors: list[Selector] = field(default_factory=list)
    """None at all: every stream."""
    sequence: int | None = None
    """The number of the first packet wanted: the number of the last one received, and one. None: the next new one."""
    last_start_ns: int | None = None
    """With a number: when the last packet received starts. A number whose packet starts otherwise is not trusted."""
    begin_ns: int | None = None
    """Where no number is given or trusted: from the first packet that ends at or after this time."""
    end_ns: int | None = None
    """Packets that start later are not sent."""

    @property
    def literal(self) -> bool:
        """One station by its name."""
        return WILD.isdisjoint(self.station)

    def accepts(self, stream_id: str) -> bool:
        """Whether ``BW_UH3__S_H_Z`` is asked for."""
        if self.literal and not stream_id.startswith(f"{self.station}_"):
            return False  # thousands of stations are asked for in one request: most need no pattern
        if not self.selectors:
            return _matches(f"{self.station}_*", stream_id)
        wanted = [s.pattern for s in self.selectors if not s.negated] or ["*"]
        refused = [s.pattern for s in self.selectors if s.negated]
        return self._any(wanted, stream_id) and not self._any(refused, stream_id)

    def _any(self, patterns: list[str], stream_id: str) -> bool:
        return any(_matches(f"{self.station}_{pattern}", stream_id) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class Request:
    """What one connection wants."""

    stations: tuple[StationRequest, ...]
    """Never empty: a uni-station request is one for ``*``."""
    dialup: bool = False
    """END and close where the ring ends (FETCH), rather than wait for more."""


def station_pattern(station: str, network: str | None) -> str:
    """``STATION sta [net]`` as ``net_sta``. Raises ValueError on characters that no station has."""
    text = f"{(network or '*')[:MAX_STATION]}_{station[:MAX_STATION]}"
    if not STATION.fullmatch(text):
        raise ValueError("Invalid characters in station ID")
    return text


def selector(text: str) -> Selector:
    """``SHZ``, ``00SHZ``, ``--SH?``, ``!SHE``, ``SHZ.D``. Raises ValueError on anything else."""
    found = SELECTOR.fullmatch(text.rpartition(".")[0] if "." in text else text)
    if found is None:
        raise ValueError("Invalid selector pattern")
    negation, location, channel = found.groups()
    location = "*" if location is None else location.lstrip("-")
    return Selector(f"{location}_{'_'.join(channel)}", negated=bool(negation))


def _matches(pattern: str, text: str) -> bool:
    return _compiled(pattern).fullmatch(text) is not None


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = {"*": ".*", "?": "."}
    return re.compile("".join(parts.get(c, re.escape(c)) for c in pattern))
