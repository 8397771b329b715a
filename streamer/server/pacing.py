"""When the next record is due: an absolute schedule, so that being late once does not make all that follows late.

Pure arithmetic on seconds of a monotonic clock that the caller reads; it neither sleeps nor releases anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .faults import Release
from .records import NS


@dataclass(slots=True)
class Schedule:
    """The releases, and how many of them are out."""

    releases: Sequence[Release]
    """In order of release."""
    speed: float = 1.0
    """Seconds of data a second of the clock; 0: all are due at once."""
    began_s: float | None = None
    """The clock when the first was due; None before that."""
    done: int = field(default=0)

    def __post_init__(self) -> None:
        if self.speed < 0:
            raise ValueError(f"speed must not be negative, is {self.speed}")

    @property
    def finished(self) -> bool:
        return self.done >= len(self.releases)

    def begin(self, now_s: float) -> None:
        """From now on time counts; a second call changes nothing."""
        if self.began_s is None:
            self.began_s = now_s

    def due_s(self) -> float | None:
        """When the next one is due; None when there is none or time does not count yet."""
        if self.began_s is None or self.finished:
            return None
        if self.speed == 0:
            return self.began_s
        passed_ns = self.releases[self.done].at_ns - self.releases[0].at_ns
        return self.began_s + passed_ns / NS / self.speed

    def take(self) -> Release:
        """The next one, which now counts as out."""
        release = self.releases[self.done]
        self.done += 1
        return release
