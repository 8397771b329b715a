"""Whether a sink is sent a revision of an alert: filter, mutes, quiet hours, rate limit. No I/O, and no clock of its own."""

from __future__ import annotations

from datetime import UTC, datetime, time
from enum import StrEnum
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from quake.alerts import Alert, Kind, Mode, Status
from quake.times import NS

Magnitude = Literal["Large", "Medium", "Moderate", "Normal"]
"""`quake.data.spec.MAGNITUDE_HEAD`, which brings NumPy and SciPy along."""
ENDS = (Status.CLOSED, Status.CANCELLED)
Told = tuple[tuple[int, int], ...]
"""What a sink was told of an alert so far: (revision, nanoseconds when it was made), oldest first."""


class LeftOut(StrEnum):
    """Why a revision is not sent."""

    MODE = "mode"
    STALE = "stale"
    OLD = "old"
    REPEAT = "repeat"
    UNTOLD = "untold"
    STATUS = "status"
    PROBABILITY = "probability"
    STATIONS = "stations"
    MUTED = "muted"
    QUIET = "quiet"
    RATE = "rate"


class Section(BaseModel):
    """A table of the configuration: a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # not there; a folder; not a name
        raise ValueError("no time zone that this machine knows (Debian's package tzdata holds them)") from None
    return name


class Quiet(Section):
    """Hours in which nothing is sent but what is large enough; without an exception, nothing."""

    begin: time = Field(description="Local time in `zone`, 22:00")
    end: time = Field(
        description="The first minute that is no longer quiet; before `begin` where midnight lies between"
    )
    zone: Annotated[str, AfterValidator(_zone)] = Field(description="Europe/Berlin; summer time is its own affair")
    min_stations: int | None = Field(default=None, ge=1, description="Sent all the same from so many stations on")
    magnitudes: tuple[Magnitude, ...] = Field(
        default=(), description="Sent all the same where one of these classes is the likeliest"
    )

    @model_validator(mode="after")
    def _not_empty(self) -> Quiet:
        if self.begin.tzinfo or self.end.tzinfo:
            raise ValueError("begin and end are local times of `zone`, without an offset")
        if self.begin == self.end:
            raise ValueError("begin and end are the same")
        return self

    def holds(self, now_ns: int) -> bool:
        local = datetime.fromtimestamp(now_ns // NS, UTC).astimezone(ZoneInfo(self.zone)).time()
        if self.begin < self.end:
            return self.begin <= local < self.end
        return local >= self.begin or local < self.end

    def excepts(self, alert: Alert) -> bool:
        large = self.min_stations is not None and len(alert.stations) >= self.min_stations
        return large or likeliest(alert) in self.magnitudes


class Rate(Section):
    """A token bucket: so many at once, and then one each `every_s`."""

    burst: int = Field(default=10, ge=1)
    every_s: float = Field(default=60.0, gt=0, le=86_400)


class Bucket:
    """Full at the start. It fills with the time between alerts, or between their turns where that is longer: those that a dead
    server held up all have their turn at once."""

    def __init__(self, rate: Rate) -> None:
        self._rate, self._tokens = rate, float(rate.burst)
        self._made_s = self._now_s = 0.0

    def take(self, made_s: float, now_s: float) -> bool:
        """``made_s``: when the alert was, by the daemon's clock; ``now_s``: of a monotonic clock."""
        gained = max(made_s - self._made_s, now_s - self._now_s) / self._rate.every_s
        self._tokens = min(self._rate.burst, self._tokens + gained)
        self._made_s, self._now_s = made_s, now_s
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class Wants(Section):
    """What a sink is to be sent."""

    mode: Mode = Field(default=Mode.LIVE, description="An exercise has a sink of its own, so that it wakes nobody")
    kinds: tuple[Kind, ...] = Field(default=(Kind.EVENT,), min_length=1, description="`event`, `detection`")
    statuses: tuple[Status, ...] = Field(
        default=(Status.OPEN, Status.CLOSED, Status.CANCELLED),
        min_length=1,
        description="`update` for every revision; the first that passes counts as `open`, whatever its number",
    )
    min_probability: float = Field(default=0.0, ge=0, le=1)
    min_stations: int = Field(default=1, ge=1)
    quiet: Quiet | None = None
    rate: Rate | None = None
    give_up_s: float = Field(
        default=86_400.0, gt=0, description="An alert that could not be delivered for so long is given up"
    )


def likeliest(alert: Alert) -> str | None:
    """The class of magnitude, where one is told."""
    classes = alert.characterisation and alert.characterisation.magnitude
    return max(classes, key=classes.__getitem__) if classes else None


def left_out(wants: Wants, alert: Alert, told: Told, now_ns: int, *, muted: bool = False) -> LeftOut | None:
    """Why it is not sent, but for the rate limit; None where it is to be. ``muted``: all its stations are.

    Quiet hours are looked up for when the alert was made: its turn may come hours later, behind one that cannot be delivered.
    """
    if reason := _never(wants, alert, told, now_ns):
        return reason
    if alert.status is Status.CANCELLED:
        return None  # whoever was woken is to hear that it was for nothing
    if muted:
        return LeftOut.MUTED
    if wants.quiet and wants.quiet.holds(min(alert.created, now_ns)) and not wants.quiet.excepts(alert):
        return LeftOut.QUIET
    return None


def _never(wants: Wants, alert: Alert, told: Told, now_ns: int) -> LeftOut | None:
    """Reasons that another hour would not take away."""
    first = alert.status is Status.UPDATE and not told
    status = Status.OPEN if first else alert.status
    ends = bool(told) and alert.status in ENDS  # who was told is to hear the end, however late
    faults = (
        (LeftOut.MODE, alert.mode is not wants.mode),
        (LeftOut.STALE, alert.stale and not ends),
        (LeftOut.OLD, now_ns - alert.created > wants.give_up_s * NS),
        (LeftOut.REPEAT, bool(told) and alert.revision <= told[-1][0]),
        (LeftOut.UNTOLD, alert.status is Status.CANCELLED and not told),
        (LeftOut.STATUS, status not in wants.statuses),
        (LeftOut.PROBABILITY, alert.probability < wants.min_probability),
        (LeftOut.STATIONS, len(alert.stations) < wants.min_stations),
    )
    return next((reason for reason, holds in faults if holds), None)


def decide(
    wants: Wants, alert: Alert, told: Told, bucket: Bucket | None, now_ns: int, now_s: float, *, muted: bool = False
) -> LeftOut | None:
    """Why it is not sent; None where it is to be, and the bucket is then one poorer. ``now_s``: monotonic."""
    reason = left_out(wants, alert, told, now_ns, muted=muted)
    if reason or bucket is None or alert.status is Status.CANCELLED:
        return reason
    return None if bucket.take(alert.created / NS, now_s) else LeftOut.RATE
