"""The small frozen types that one stage hands to the next, in the order of the data.

`Packet` (or `Refused`) from the source, `Window` from the cutter, `Score` (a scan: or `Passed`) from the worker, `Detection`
from the trigger.
The alert that leaves the machine is `quake.alerts.Alert`. Times are integer nanoseconds UTC since 1970 without leap seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from quake.alerts import Characterisation
from quake.times import span_ns

NS = 1_000_000_000
"""Nanoseconds a second."""


def station_of(name: str) -> str:
    """``BW_UH1`` of a channel's or a subject's source identifier."""
    return "_".join(name.removeprefix("FDSN:").split("_")[:2])


class Unused(StrEnum):
    """Why a sample or a window was not used: the label ``reason`` of the metrics."""

    GAP = "gap"
    OVERLAP = "overlap"
    LATE = "late"
    FUTURE = "future"
    CLOCK = "clock"
    PHASE = "phase"
    FLAT = "flat"
    CLIPPED = "clipped"
    RATE = "rate"
    COMPONENT = "component"
    OVERLOAD = "overload"
    CORRUPT = "corrupt"
    ENCODING = "encoding"
    EMPTY = "empty"


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where in a server's stream a packet stood: what a resume point is made of."""

    server: str
    """The server's address as configured, with its transport: ``seedlink://host:18000``."""
    station: str
    """SeedLink's station, ``NET_STA``: sequence numbers belong to one station of one server."""
    sequence: int


@dataclass(frozen=True, slots=True)
class Packet:
    """The samples of one miniSEED record."""

    channel: str
    """FDSN source identifier, ``FDSN:BW_UH3__S_H_Z``."""
    start_ns: int
    """Time of the first sample."""
    rate: Fraction
    """Hertz, as the record's header states it."""
    samples: NDArray[np.int32] | NDArray[np.float32]
    """(n,) counts, n > 0; int32 where the record holds integers, its own copy."""
    cursor: Cursor | None
    """None for a file."""
    received_ns: int
    """When its last byte was read, on this machine's clock: on a busy connection up to 20 ms after it had come."""
    size: int
    """Bytes on the wire."""

    @property
    def subject(self) -> str:
        """The channel without its component: ``FDSN:BW_UH3__S_H``. Z, N and E of one sensor share it."""
        return self.channel.rpartition("_")[0]

    @property
    def component(self) -> str:
        return self.channel.rpartition("_")[2]

    @property
    def end_ns(self) -> int:
        """Time of the last sample."""
        return self.start_ns + span_ns(len(self.samples) - 1, self.rate)


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that holds no usable samples; its cursor still counts as received."""

    reason: Unused
    detail: str
    """What is wrong, for the log: names the station, and the channel and time where they can be read."""
    cursor: Cursor | None
    size: int


@dataclass(frozen=True, slots=True)
class Subscribed:
    """A station was asked for "from now on" for the first time: what comes from here on must never be missed again, even
    if no packet of it has come before the daemon is killed."""

    server: str
    station: str
    newest_ns: int | None
    """Time of the newest sample that the server had; None where it had none or does not tell."""


@dataclass(frozen=True, slots=True)
class Window:
    """One window of one station on the grid, ready to be scored."""

    subject: str
    k: int
    """Number on the grid: it begins k hops after 1970."""
    samples: NDArray[np.float32]
    """(3, N) Z, N, E in counts at the model's rate, each row's mean removed; a row of zeros where a component is missing."""
    components: str
    """Those that hold data, of ``ZNE``."""
    complete: bool
    """Every component that was expected is there."""
    received_ns: int
    """When the newest packet of the station had come: what the alert's processing latency counts from."""


@dataclass(frozen=True, slots=True)
class Unscored:
    """Windows [first, last] of one station that are not scored."""

    subject: str
    first: int
    last: int
    reason: Unused

    @property
    def k(self) -> int:
        return self.first


@dataclass(frozen=True, slots=True)
class Passed:
    """Windows [first, last] of one station that a scan did not score, because those beside them say enough: they count as
    below ``off`` (`streamer.scan_passes`)."""

    subject: str
    first: int
    last: int

    @property
    def k(self) -> int:
        return self.first


@dataclass(frozen=True, slots=True)
class Score:
    """What the model says of a window."""

    window: Window
    probability: float
    """Of an earthquake, 0 to 1."""
    onset_ns: int | None = None
    """Of an earthquake that this window would open, where the samples are not kept to look for it."""

    @property
    def subject(self) -> str:
        return self.window.subject

    @property
    def k(self) -> int:
        return self.window.k


@dataclass(frozen=True, slots=True)
class Detection:
    """One station saw an earthquake begin, or, with ``off_ns``, end."""

    id: str
    subject: str
    k: int
    """The first window of the run that opened it."""
    opened_k: int
    """The window that completed the run."""
    onset_ns: int
    """Refined onset; not part of the identity."""
    decided_ns: int
    """End of the window that decided this."""
    off_ns: int | None
    probability: float
    """Highest so far."""
    components: str
    complete: bool
    received_ns: int
    trace: tuple[tuple[int, float], ...]
    """(k, probability) of the windows that led to it, oldest first."""
    held: bool = False
    """Too many stations opened within the minute: no alert of its own."""
    characterisation: Characterisation | None = None
    """Of the newest window that was asked about."""
