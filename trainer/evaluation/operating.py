"""Operating points: thresholds that keep a detector's false alarms to stated rates, counted in noise.

The detector should not have been fitted on that noise. What is not here: making the scores
(`trainer.evaluation.scoring`), recall at the points (`trainer.evaluation.alarms`), the daemon's dead time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from quake.data.decision import OperatingPoint
from quake.data.seisbench import DataError
from trainer.evaluation.alarms import Rule, openings
from trainer.evaluation.scoring import Curve, log_odds

AIMS_AN_HOUR: Mapping[str, float] = {"quiet": 0.1, "standard": 1.0, "sensitive": 10.0}
"""False alarms an hour of one station, by the point's name."""
CHOICES = (*(n / 1000 for n in range(500, 990)), *(n / 10_000 for n in range(9900, 10_000)))
"""That ``on`` is chosen from, finer near 1, where calibrated probabilities of sure answers crowd."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Noise of one station without a gap, scored at the hop that is shipped."""

    name: str
    curve: Curve
    """Its scores are log-odds."""
    hours: float


@dataclass(frozen=True, slots=True)
class Alarm:
    """One that is false, for a person to look at."""

    piece: str
    time_s: float
    """Of the newest sample of the window that opened it, on the clock of the piece's curve."""
    lasted_s: float
    """From there to the window that closed it, or to the last of the piece."""
    score: float
    """The highest while it stood, log-odds."""


def choose_points(
    pieces: Sequence[Piece], aims_an_hour: Mapping[str, float] = AIMS_AN_HOUR, in_a_row: int = 2
) -> tuple[OperatingPoint, ...]:
    """Of each aim the lowest ``on`` from which up all choices keep to it; ``off`` is half of it.

    DataError without noise, for a score that is not finite, and for an aim that no choice keeps to.
    """
    hours = _hours(pieces)
    counts = list(_counts(pieces, in_a_row, _allowed(max(aims_an_hour.values()), hours)))

    def point(name: str, aim: float) -> OperatingPoint:
        on, count = _lowest(counts, _allowed(aim, hours), name)
        return OperatingPoint(
            name=name, on=on, off=on / 2, in_a_row=in_a_row, aim_an_hour=aim, false_alarms=count, hours=hours
        )

    return tuple(point(name, aim) for name, aim in aims_an_hour.items())


def counted(pieces: Sequence[Piece], in_a_row: int, on: float) -> OperatingPoint:
    """A point that somebody chose by other reasons than a rate; what it aims at is what it gives."""
    hours = _hours(pieces)
    count = sum(1 for _ in _alarms(pieces, on, on / 2, in_a_row))
    return OperatingPoint(
        name="given",
        on=on,
        off=on / 2,
        in_a_row=in_a_row,
        aim_an_hour=max(count, 1) / hours,
        false_alarms=count,
        hours=hours,
    )


def alarms_at(pieces: Sequence[Piece], point: OperatingPoint) -> list[Alarm]:
    """Each alarm that the point gives, piece by piece."""
    return list(_alarms(pieces, point.on, point.off, point.in_a_row))


def _hours(pieces: Sequence[Piece]) -> float:
    for piece in pieces:
        if not np.isfinite(piece.curve.scores).all():
            raise DataError(f"{piece.name}: a score is not finite")
    hours = float(sum(piece.hours for piece in pieces))
    if hours <= 0:
        raise DataError("operating points are chosen in hours of noise, and there are none")
    return hours


def _allowed(aim_an_hour: float, hours: float) -> int:
    return int(np.floor(aim_an_hour * hours + 1e-9))


def _counts(pieces: Sequence[Piece], in_a_row: int, most: int) -> Iterator[tuple[float, int]]:
    """(on, alarms) from the highest choice down, to the first with more than ``most``."""
    for on in reversed(CHOICES):
        count = sum(1 for _ in _alarms(pieces, on, on / 2, in_a_row))
        yield on, count
        if count > most:
            return


def _lowest(counts: Sequence[tuple[float, int]], allowed: int, name: str) -> tuple[float, int]:
    """One that keeps to it below others that do not has alarms that never end, and so are few."""
    kept = list(takewhile(lambda pair: pair[1] <= allowed, counts))
    if not kept:
        on, count = counts[0]
        raise DataError(f"operating point {name}: {allowed} false alarms are allowed, and {count} come at on {on:g}")
    return kept[-1]


def _alarms(pieces: Sequence[Piece], on: float, off: float, in_a_row: int) -> Iterator[Alarm]:
    rule = Rule(log_odds(on), log_odds(off), in_a_row)
    for piece in pieces:
        times_s, scores = piece.curve.times_s, piece.curve.scores
        for opened, closed in openings(scores, rule):
            end_s = times_s[min(closed, len(scores) - 1)]
            begin_s = times_s[opened]
            first = opened - in_a_row + 1
            yield Alarm(piece.name, float(begin_s), float(end_s - begin_s), float(scores[first:closed].max()))
