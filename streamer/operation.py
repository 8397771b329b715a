"""What the daemon decides by: an operating point of the model, and what the configuration gives instead.

Pure. What is not here: what thresholds do (`streamer.trigger`), how operating points are chosen (the trainer does).
"""

from __future__ import annotations

from dataclasses import dataclass

from quake.data.decision import STANDARD, OperatingPoint
from quake.data.spec import ModelSpec
from streamer.config import Config, ConfigError

HOP_S = 1.0
"""Between windows, where neither the model nor the configuration says."""
IN_A_ROW = 2
"""Windows that open a detection, where neither says."""


@dataclass(frozen=True, slots=True)
class Operation:
    """Of one model under one configuration."""

    hop_s: float
    on: float
    off: float
    in_a_row: int
    point: OperatingPoint | None
    """None where the model has none."""
    point_hop_s: float | None
    """That the model's points were measured at."""

    @classmethod
    def of(cls, config: Config, spec: ModelSpec) -> Operation:
        """ConfigError where the model has no operating point of the name, or no thresholds."""
        point, given = _point(config, spec), config.trigger
        limits = point or spec.thresholds
        if limits is None:
            raise ConfigError(f"model: {spec.name} has no thresholds")
        on = limits.on if given.on is None else given.on
        return cls(
            hop_s=config.windows.hop_s or spec.hop_s or HOP_S,
            on=on,
            off=min(limits.off if given.off is None else given.off, on),
            in_a_row=given.in_a_row or (point.in_a_row if point else IN_A_ROW),
            point=point,
            point_hop_s=spec.hop_s,
        )

    @property
    def is_other_hop(self) -> bool:
        """Whether the model's points were measured at another."""
        return self.point_hop_s not in (None, self.hop_s)

    @property
    def changed(self) -> tuple[str, ...]:
        """Keys of the configuration that are not as when the point's false alarms were counted."""
        if self.point is None:
            return ()
        is_other = {
            "trigger.on": self.on != self.point.on,
            "trigger.off": self.off != self.point.off,
            "trigger.in_a_row": self.in_a_row != self.point.in_a_row,
            "windows.hop_s": self.is_other_hop,
        }
        return tuple(key for key, other in is_other.items() if other)

    def __str__(self) -> str:
        """The point and its false alarms, for people."""
        if self.point is None:
            return "no operating point: the model does not say how many false alarms its thresholds give"
        if self.changed:
            return (
                f"operating point {self.point.name}, with another {', '.join(self.changed)}: false alarms not counted"
            )
        low, high = self.point.interval
        counted = f"{self.point.false_alarms} in {self.point.hours:.4g} h"
        return (
            f"operating point {self.point.name}: {self.point.an_hour:.3g} false alarms an hour a station "
            f"(95 % {low:.3g} to {high:.3g}; {counted}{', extrapolated' if self.point.is_extrapolated else ''})"
        )

    def applied(self, config: Config) -> Config:
        """The configuration with all that it leaves to the model."""
        name = self.point.name if self.point else None
        decision = {"operating_point": name, "on": self.on, "off": self.off, "in_a_row": self.in_a_row}
        return config.model_copy(
            update={
                "trigger": config.trigger.model_copy(update=decision),
                "windows": config.windows.model_copy(update={"hop_s": self.hop_s}),
            }
        )


def _point(config: Config, spec: ModelSpec) -> OperatingPoint | None:
    """None where nobody asks for one and the model has none."""
    name = config.trigger.operating_point
    if name is None and not spec.operating_points:
        return None
    try:
        return spec.point(name or STANDARD)
    except ValueError as error:
        raise ConfigError(f"trigger.operating_point: {error}") from error
