"""From the components a sensor has to Z, N and E: by azimuth and dip, epoch by epoch.

Azimuth in degrees from north, dip in degrees down from the horizontal (a normal vertical has -90), as SEED and
StationXML say. Pure; reading StationXML is in `streamer.inventory`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

ROWS = {"Z": 0, "3": 0, "N": 1, "1": 1, "E": 2, "2": 2}
"""Which row of a window a SEED orientation code stands in before it is turned."""
ALIGNED_DEG = 0.05
"""A component this near to its axis is on it: no arithmetic, the counts stay as they came."""
USABLE_DEG = 10.0
"""Without the other two a component this near to its axis still stands for it: a vertical tilted by a degree is one."""
INDEPENDENT = 0.1
"""Least determinant of three unit vectors that can be turned: below it they lie nearly in a plane."""

_AXES = {"Z": (0.0, -90.0), "N": (0.0, 0.0), "E": (90.0, 0.0), "1": (0.0, 0.0), "2": (90.0, 0.0), "3": (0.0, -90.0)}
"""Azimuth and dip where no metadata say otherwise; 1 and 2 are taken as north and east."""


@dataclass(frozen=True, slots=True)
class Span:
    """What is known of one channel from ``start_ns`` on until ``end_ns`` (None: still)."""

    start_ns: int
    end_ns: int | None

    def holds(self, time_ns: int) -> bool:
        return self.start_ns <= time_ns and (self.end_ns is None or time_ns < self.end_ns)


@dataclass(frozen=True, slots=True)
class Epoch(Span):
    """How it points."""

    azimuth_deg: float
    dip_deg: float


AnySpan = TypeVar("AnySpan", bound=Span)


def standing(spans: Iterable[AnySpan], time_ns: int) -> AnySpan | None:
    """Of those that hold at a time the one that began last; None where there is none."""
    return max((span for span in spans if span.holds(time_ns)), key=lambda span: span.start_ns, default=None)


def unit_vector(azimuth_deg: float, dip_deg: float) -> NDArray[np.float64]:
    """(3,) up, north, east."""
    azimuth, dip = np.radians(azimuth_deg), np.radians(dip_deg)
    return np.array([-np.sin(dip), np.cos(azimuth) * np.cos(dip), np.sin(azimuth) * np.cos(dip)])


@dataclass(frozen=True, slots=True)
class Orientation:
    """Turns the rows that a station has at one time."""

    matrix: NDArray[np.float64] | None
    """(3, 3) rows as they came -> Z, N, E; None where they stand along the axes already, or cannot be turned."""
    signs: NDArray[np.float64]
    """(3,) of each row along its own axis, for when it is not turned."""
    usable: NDArray[np.bool_]
    """(3,) which rows mean something without the other two."""

    def turn(self, rows: NDArray[np.float64], present: Sequence[bool]) -> tuple[NDArray[np.float64], list[bool]]:
        """``rows`` (3, N) with zeros where absent -> Z, N, E and which of them hold data."""
        if self.matrix is not None and all(present):
            return self.matrix @ rows, [True, True, True]
        kept = [bool(here and alone) for here, alone in zip(present, self.usable, strict=True)]
        return rows * (self.signs * kept)[:, None], kept


def orientation(codes: Mapping[int, str], epochs: Mapping[str, Sequence[Epoch]], time_ns: int) -> Orientation:
    """``codes`` says which SEED code stands in which row; one without an epoch at that time points as its name says."""
    vectors = np.eye(3)
    for row, code in codes.items():
        vectors[row] = unit_vector(*_direction(code, epochs.get(code, ()), time_ns))
    along = np.diag(vectors)
    signs, usable = np.where(along < 0, -1.0, 1.0), _within(along, USABLE_DEG)
    if _within(along, ALIGNED_DEG).all() or abs(np.linalg.det(vectors)) < INDEPENDENT:
        return Orientation(None, signs, usable)
    return Orientation(np.linalg.inv(vectors).astype(np.float64), signs, usable)


def _direction(code: str, epochs: Sequence[Epoch], time_ns: int) -> tuple[float, float]:
    """Azimuth and dip; of epochs that overlap the later one holds."""
    epoch = standing(epochs, time_ns)
    return (epoch.azimuth_deg, epoch.dip_deg) if epoch else _AXES[code]


def _within(along: NDArray[np.float64], angle_deg: float) -> NDArray[np.bool_]:
    return np.asarray(np.abs(along) >= np.cos(np.radians(angle_deg)), dtype=np.bool_)
