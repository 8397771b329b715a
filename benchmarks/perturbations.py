"""What may befall a recording on its way to a detector, as functions of the record and a random generator.

A sample that is NaN never came. Levels are multiples of the standard deviation of the record's own noise, component by
component, so that a component without data stays without. Pure. What is not here: what a detector makes of it
(`benchmarks.robustness`), and what it is trained with (`trainer.augmentation`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from quake.data.seisbench import DataError
from trainer.data.record import GUARD_S, RATE_HZ, Record, Samples

Apply = Callable[[Record, np.random.Generator], Samples]
"""A record of (3, N) -> (3, M) at the perturbation's rate; its P stays where it was, in seconds."""
Floats = NDArray[np.float64]

FILTER_PERIODS = 10
"""Of the slower rate: what `scipy.signal.resample_poly` reads to each side."""
BEFORE_S, AFTER_S = 20.0, 10.0
"""A gap begins at most this long before P, or after it."""
DRIFT_HZ, DRIFT_STD = 0.02, 30.0
RAMP_STD_S = 0.5
"""Standard deviations a second: 30 a minute."""
HUM_STD = 3.0
TELESEISM_S, TELESEISM_STD = 600.0, 30.0
TELESEISM_HZ = (0.03, 0.1)
"""The long waves come first."""
RADIAL = 0.8
"""Horizontal to vertical of a Rayleigh wave."""
CODA_S, CODA_DB = 15.0, 10.0
"""How long before P, and how much larger, the earthquake in whose coda another comes."""
TAPER_S = 0.5
CLEAR = 100.0
"""An earthquake is added only where its peak is this many standard deviations of its noise: 40 dB."""
NEEDED_S = CODA_S + AFTER_S + 1.0


@dataclass(frozen=True, slots=True)
class Perturbation:
    name: str
    apply: Apply
    rate_hz: int = RATE_HZ
    """Of what comes out."""
    late_s: float = 0.0
    """How long after the record's own times the samples were taken."""
    read_ahead_s: float = 0.0
    """How far the filter that made them looks into the future."""
    second: bool = False
    """Another earthquake stands in each event record: only whether scores are high after P is asked."""


def as_it_is(record: Record, rng: np.random.Generator) -> Samples:
    return record.samples


def scaled(gain: float, record: Record, rng: np.random.Generator) -> Samples:
    return record.samples * np.float32(gain)


def reversed_polarity(record: Record, rng: np.random.Generator) -> Samples:
    return -record.samples


def one_reversed(record: Record, rng: np.random.Generator) -> Samples:
    signs = np.ones((3, 1), np.float32)
    signs[rng.integers(3)] = -1
    return record.samples * signs


def vertical_only(record: Record, rng: np.random.Generator) -> Samples:
    samples = record.samples.copy()
    samples[1:] = np.nan
    return samples


def horizontals_swapped(record: Record, rng: np.random.Generator) -> Samples:
    return record.samples[[0, 2, 1]]


def resampled(rate_hz: int, record: Record, rng: np.random.Generator) -> Samples:
    """Without its end, which the filter's own edge has touched."""
    common = math.gcd(rate_hz, RATE_HZ)
    out = resample_poly(record.samples.astype(np.float64), rate_hz // common, RATE_HZ // common, axis=1)
    return out[:, : out.shape[1] - math.ceil(read_ahead_s(rate_hz) * rate_hz)].astype(np.float32)


def read_ahead_s(rate_hz: int) -> float:
    """Of `resampled`."""
    return FILTER_PERIODS / min(rate_hz, RATE_HZ)


def half_a_sample_later(record: Record, rng: np.random.Generator) -> Samples:
    """What a clock that is late by half a sample makes of it."""
    fine = resample_poly(record.samples.astype(np.float64), 2, 1, axis=1)[:, 1::2]  # (3, 2N) -> (3, N)
    return fine[:, :-FILTER_PERIODS].astype(np.float32)


def gap(
    seconds: float, where: Literal["before P", "after P"], row: int | None, record: Record, rng: np.random.Generator
) -> Samples:
    """Of all components, or of one row. Noise has its gap anywhere."""
    length = round(seconds * RATE_HZ)
    if not record.is_event:
        begin = int(rng.integers(record.lead, max(record.samples.shape[1] - length, record.lead + 1)))
    elif where == "before P":
        begin = record.p - int(rng.integers(length, round(BEFORE_S * RATE_HZ) + 1))
    else:
        begin = record.p + int(rng.integers(0, round(AFTER_S * RATE_HZ)))
    samples = record.samples.copy()
    samples[slice(None) if row is None else row, begin : begin + length] = np.nan
    return samples


def clipped(share: float, record: Record, rng: np.random.Generator) -> Samples:
    """At a share of the highest amplitude of the real samples, all components at the same."""
    level = share * np.abs(record.samples[:, record.lead :]).max()
    return np.clip(record.samples, -level, level)


def drifting(record: Record, rng: np.random.Generator) -> Samples:
    return humming(DRIFT_HZ, DRIFT_STD, record, rng)


def humming(hz: float, times_std: float, record: Record, rng: np.random.Generator) -> Samples:
    """A sine on every component, each with a phase of its own."""
    phases = rng.uniform(0, 2 * np.pi, (3, 1))
    return _plus(record, times_std * noise_std(record) * np.sin(2 * np.pi * hz * _seconds(record) + phases))


def ramped(record: Record, rng: np.random.Generator) -> Samples:
    return _plus(record, RAMP_STD_S * noise_std(record) * _seconds(record))


def with_teleseism(record: Record, rng: np.random.Generator) -> Samples:
    """Some part of a dispersed Rayleigh wave from a drawn direction, which swells and fades over ten minutes."""
    seconds = _seconds(record)
    whole_s = max(TELESEISM_S, float(seconds[-1]))
    at = seconds + rng.uniform(0, whole_s - seconds[-1])
    low, high = TELESEISM_HZ
    phase = 2 * np.pi * (low * at + (high - low) * at**2 / (2 * whole_s))
    azimuth = rng.uniform(0, 2 * np.pi)
    radial = RADIAL * np.cos(phase)
    wave = np.stack([np.sin(phase), np.cos(azimuth) * radial, np.sin(azimuth) * radial])  # (3, N)
    return _plus(record, TELESEISM_STD * noise_std(record) * np.sin(np.pi * at / whole_s) ** 2 * wave)


def in_coda(donors: Sequence[Record], record: Record, rng: np.random.Generator) -> Samples:
    """With a larger earthquake of another record CODA_S before P. Noise stays as it is.

    DataError where there is none to add.
    """
    if not record.is_event:
        return record.samples
    others = [donor for donor in donors if donor.source_id != record.source_id]
    if not others:
        raise DataError(f"{record.name}: no other earthquake is clear and long enough to be added")
    donor = others[rng.integers(len(others))]
    lead_in = round(GUARD_S * RATE_HZ)
    added = donor.samples[:, donor.p - lead_in :].astype(np.float64)
    added[:, : round(TAPER_S * RATE_HZ)] *= np.sin(np.linspace(0, np.pi / 2, round(TAPER_S * RATE_HZ))) ** 2
    added *= 10 ** (CODA_DB / 20) * np.abs(record.samples[:, record.p :]).max() / np.abs(added).max()
    begin = record.p - round(CODA_S * RATE_HZ) - lead_in
    added = added[:, : record.samples.shape[1] - begin] * (noise_std(record) > 0)
    samples = record.samples.copy()
    samples[:, begin : begin + added.shape[1]] += added.astype(np.float32)
    return samples


def donors_of(records: Sequence[Record]) -> list[Record]:
    """Event records that `in_coda` may add: clear ones on three components, and long enough."""
    return [record for record in records if record.is_event and not record.is_crowded and _is_clear(record)]


def noise_std(record: Record) -> Floats:
    """(3, 1) of the samples before P, the mirrored ones too; of all where there is no P."""
    until = record.p - round(GUARD_S * RATE_HZ) if record.is_event else record.samples.shape[1]
    return np.asarray(record.samples[:, :until].std(axis=1, keepdims=True, dtype=np.float64))


def perturbations(records: Sequence[Record]) -> tuple[Perturbation, ...]:
    """All of them. ``records``: of which some are added to others."""
    rates = [
        Perturbation(f"{hz} Hz", partial(resampled, hz), rate_hz=hz, read_ahead_s=read_ahead_s(hz))
        for hz in (50, 80, 125, 200)
    ]
    late = Perturbation(
        "clock half a sample off", half_a_sample_later, late_s=0.5 / RATE_HZ, read_ahead_s=FILTER_PERIODS / RATE_HZ
    )
    plain: dict[str, Apply] = {
        **{f"gain x {gain:g}": partial(scaled, gain) for gain in (1e-6, 1e-3, 1e3, 1e6)},
        "polarity reversed": reversed_polarity,
        "polarity of one component reversed": one_reversed,
        "horizontals missing": vertical_only,
        "horizontals swapped": horizontals_swapped,
        **_gaps(),
        "clipped at 50 % of the peak": partial(clipped, 0.5),
        "drift, 0.02 Hz": drifting,
        "drift, linear": ramped,
        "hum, 49.9 Hz": partial(humming, 49.9, HUM_STD),
        "hum, 40 Hz": partial(humming, 40.0, HUM_STD),
        "teleseism": with_teleseism,
    }
    coda = Perturbation("in the coda of another", partial(in_coda, donors_of(records)), second=True)
    return (*(Perturbation(name, apply) for name, apply in plain.items()), *rates, late, coda)


def _gaps() -> dict[str, Apply]:
    found: dict[str, Apply] = {}
    for where in ("before P", "after P"):
        for seconds in (0.1, 0.5, 1.0, 2.0):
            found[f"gap of {seconds:g} s {where}"] = partial(gap, seconds, where, None)
        found[f"gap of 0.5 s {where}, one horizontal"] = partial(gap, 0.5, where, 1)
    return found


def _is_clear(record: Record) -> bool:
    std = noise_std(record)
    after = record.samples[:, record.p :]
    return bool((std > 0).all() and np.abs(after).max() >= CLEAR * std.max() and after.shape[1] >= NEEDED_S * RATE_HZ)


def _seconds(record: Record) -> Floats:
    """(N,) from its first sample."""
    return np.arange(record.samples.shape[1]) / RATE_HZ


def _plus(record: Record, added: Floats) -> Samples:
    return (record.samples + added).astype(np.float32)
