"""When a detector's probabilities become an alarm: thresholds, and operating points with the false alarms they gave.

Parts of a model's spec (`quake.data.spec`).
"""

from __future__ import annotations

from math import log
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

STANDARD = "standard"
"""The operating point that holds where nobody names one."""
ALARMS_NEEDED = 3
"""Hours in which a rate would give fewer alarms than this say little of it."""
CONFIDENCE = 0.95
"""Of intervals."""

SURE = 1e-7
"""A probability nearer to 0 or 1 counts as this near where windows are taken together: float32 knows no more."""
ROUNDING = 1e-9
"""In log-odds: windows that are all at `on` reach it."""

Text = Annotated[str, StringConstraints(min_length=1)]
Probability = Annotated[float, Field(ge=0, le=1)]


def log_odds(probability: float) -> float:
    """Finite for 0 and 1 too, by `SURE`."""
    within = min(max(probability, SURE), 1 - SURE)
    return log(within / (1 - within))


class Section(BaseModel):
    """A part of a model's spec."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Thresholds(Section):
    """Recommended probabilities of the last class at which a detection begins and ends."""

    on: Probability = Field(description="windows that reach it together open a detection")
    off: Probability = Field(description="windows below it close one")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.off > self.on:
            raise ValueError(f"off {self.off} is above on {self.on}")
        return self


class OperatingPoint(Thresholds):
    """A detector's decision that was chosen for a rate of false alarms, and the false alarms that it gave."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$", description="as quiet, standard and sensitive")
    in_a_row: int = Field(
        ge=1,
        description="windows that open a detection: none below `off`, their mean log-odds at or above those of `on`",
    )
    aim_an_hour: float = Field(gt=0, description="false alarms an hour of one station that it was chosen for")
    false_alarms: int = Field(ge=0, description="counted in noise")
    hours: float = Field(gt=0, description="of one station's noise that they were counted in")

    @property
    def thresholds(self) -> Thresholds:
        return Thresholds(on=self.on, off=self.off)

    @property
    def an_hour(self) -> float:
        """False alarms an hour of one station, as counted."""
        return self.false_alarms / self.hours

    @property
    def interval(self) -> tuple[float, float]:
        """What `an_hour` may be at CONFIDENCE, exact for Poisson counts (Garwood 1936)."""
        from scipy.special import gammaincinv  # a daemon needs none of it

        tail, count = (1 - CONFIDENCE) / 2, self.false_alarms
        low = gammaincinv(count, tail) if count else 0.0  # half of chi-square's quantile
        return float(low / self.hours), float(gammaincinv(count + 1, 1 - tail) / self.hours)

    @property
    def is_extrapolated(self) -> bool:
        """Whether the hours hold too few alarms at the rate that was aimed at to tell it."""
        return self.aim_an_hour * self.hours < ALARMS_NEEDED
