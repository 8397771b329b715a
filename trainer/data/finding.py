"""What every kind of source has in common: it finds recordings, says what is known of them, and reads them when asked.

A `Find` is a recording whose samples have not been read yet; a `Raw` is what reading gives, at the rate of the data;
`recorded` brings both together as a `Record`. What is not here: the kinds themselves (`trainer.data.sources` lists
them), and what makes a recording unfit (`trainer.data.quality`).
"""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NoReturn, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.signal import resample_poly

from quake.data.offset import without_offset
from quake.data.resampling import taps
from trainer.data.record import GUARD_S, LEAD_S, RATE_HZ, UNKNOWN, Record, Samples, with_lead
from trainer.section import Positive, Section

Reason = Literal[
    "no_p",
    "no_split",
    "no_waveform",
    "no_gain",
    "suspect",
    "rate",
    "not_finite",
    "dead",
    "clipped",
    "short",
    "p_outside",
    "s_before_p",
    "spike",
    "duplicate",
    "snr",
    "leave_out",
]
"""Why a recording is left out."""
NOT_READ = np.zeros((3, 0), np.float32)
LARGEST_TERM = 1000
RATE_TOLERANCE = 1e-5
"""Rates p/q with p and q up to LARGEST_TERM, and what is this near to one, are resampled; the daemon does the same."""
DIGITS = 9
"""Of a time in a name: nanoseconds."""


class Unusable(Exception):  # noqa: N818  # no error: a recording less
    """A recording that is left out."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A recording that is not used, and why."""

    source: str
    name: str
    """Of the trace, or of the line or file where there is none."""
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Raw:
    """Samples as they were stored."""

    samples: NDArray[np.floating[Any]]
    """(3, N) Z, N, E; a component that was not recorded is zeros."""
    rate_hz: float
    p: float = UNKNOWN
    """Index of P; NaN where there is none."""
    s: float = UNKNOWN


@dataclass(frozen=True, slots=True)
class Find:
    """A recording that a source holds. Its samples are read only where its split is wanted."""

    record: Record
    """All that is known before reading: its samples are NOT_READ, and P and S are not set."""
    read: Callable[[], Raw]
    """Unusable, or DataError, where it cannot be."""
    split: str = ""
    """Empty where the data do not say: the source's shares decide."""
    group: str = ""
    """What a split must keep whole: the earthquake, also for noise from before its P. Empty: the recording alone."""


class Shares(Section):
    """Parts of a source that its own split puts aside; whole earthquakes, so the shares are met nearly."""

    dev: float = Field(default=0.2, ge=0, lt=1, description="share of the recordings that models are chosen by")
    test: float = Field(default=0.0, ge=0, lt=1, description="share that nothing is chosen by")
    seed: int = Field(default=0, ge=0, description="another one divides otherwise")

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        if self.dev + self.test >= 1:
            raise ValueError(f"dev {self.dev:g} and test {self.test:g} leave nothing to train on")
        return self


@dataclass(frozen=True, slots=True)
class Findings:
    """All that a source holds."""

    finds: tuple[Find, ...]
    shares: Shares | None = None
    """How finds without a split are divided; None: they are left out."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Every file that the data are read from, by its path as the recipe gives it."""


class SourceSection(Section, ABC):
    """What all kinds of sources are asked for in a recipe."""

    name: str = Field(default="", description="what the data set is called where the data do not say themselves")
    weight: Positive = Field(default=1.0, description="of its records in the mixture of all sources")
    licence: str = Field(default="not stated", description="of the data where they do not say themselves")

    @abstractmethod
    def find(self, folder: Path) -> Findings:
        """All recordings of the source; ``folder``: what relative paths count from. DataError where it is none."""


@dataclass(frozen=True, slots=True)
class Collection:
    """Records of one split."""

    records: tuple[Record, ...]
    left_out: tuple[LeftOut, ...] = ()
    hashes: Mapping[str, str] = field(default_factory=dict)
    """sha256 of each file that was read, by its path as the recipe gives it."""

    def write_left_out(self, path: Path | str) -> None:
        """CSV: source, trace, reason, detail."""
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(("source", "trace", "reason", "detail"))
            table.writerows((item.source, item.name, item.reason, item.detail) for item in self.left_out)


def unreadable(reason: Reason, detail: str) -> Callable[[], Raw]:
    """For a `Find` that is known to be unfit before it is read."""

    def read() -> NoReturn:
        raise Unusable(reason, detail)

    return read


def recorded(find: Find, raw: Raw) -> Record:
    """The record at RATE_HZ, with its lead; Unusable for a sampling rate that no ratio of small numbers reaches."""
    samples, known = at_common_rate(raw), find.record
    p = _index(raw.p, raw.rate_hz)
    s = _index(raw.s, raw.rate_hz)
    guarded = max(p - round(GUARD_S * RATE_HZ), min(p, RATE_HZ), 1)  # an early P leaves no room for a guard
    quiet = guarded if p >= 0 else samples.shape[1]
    lead = 0 if known.kind == "unlabelled" else LEAD_S * RATE_HZ
    return replace(
        known,
        samples=with_lead(samples, quiet, lead),
        lead=lead,
        p=p + lead if p >= 0 else -1,
        s=s + lead if p <= s < samples.shape[1] and s >= 0 else -1,
    )


def at_common_rate(raw: Raw) -> Samples:
    """(3, n) float32 at RATE_HZ; Unusable for a sampling rate that no ratio of small numbers reaches."""
    ratio = Fraction(RATE_HZ / raw.rate_hz).limit_denominator(LARGEST_TERM) if raw.rate_hz > 0 else Fraction(0)
    if not 0 < ratio.numerator <= LARGEST_TERM or abs(raw.rate_hz * ratio / RATE_HZ - 1) > RATE_TOLERANCE:
        raise Unusable("rate", f"{raw.rate_hz:g} Hz cannot be resampled to {RATE_HZ} Hz")
    if ratio == 1 and raw.samples.dtype == np.float32:
        return raw.samples.astype(np.float32, copy=False)
    wide = without_offset(raw.samples)  # of a large offset float32 would keep little else
    if ratio == 1:
        return wide.astype(np.float32)
    window: Any = taps(ratio) / ratio.numerator  # `resample_poly` multiplies by it; its stubs know no array here
    # The ends continue in a line: zeros there would be a step, and the filter would ring.
    resampled = resample_poly(wide, ratio.numerator, ratio.denominator, axis=1, window=window, padtype="line")
    return np.asarray(resampled, np.float32)


def _index(place: float, rate_hz: float) -> int:
    return round(place * RATE_HZ / rate_hz) if np.isfinite(place) else -1
