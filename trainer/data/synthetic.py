"""Made earthquakes: for recipes that must run anywhere, and for magnitudes that no recording at hand has.

A point source after Brune (1970) in a uniform medium: P and S leave as pulses whose displacement spectrum is
``level / (1 + (f / corner)^2)``, fall with 1/distance, lose ``exp(-pi f t*)``, and drag a coda that falls with lapse
time and with ``exp(-pi f t / Q(f))``. P moves the ground along its ray, up and away from the source or down and towards
it; S moves it across. How strong each is, which way P pushes and how S is polarised follow from a shear fault that lies
in any direction. Noise is coloured, its level drawn. All pulses are causal: nothing precedes P.

Each record is a pure function of (seed, stream, number). What is not here: layers, surface waves, finite faults, noise
of real sites (mix that in), instruments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.fft import irfft, rfft, rfftfreq
from scipy.stats import special_ortho_group

from trainer.data.finding import NOT_READ, Find, Findings, Raw, SourceSection
from trainer.data.record import RATE_HZ, Record
from trainer.section import Positive

Array = NDArray[np.float64]
Spectrum = NDArray[np.complex128]
Wave = Literal["P", "S"]

SPEED_M_S: dict[Wave, float] = {"P": 6000.0, "S": 3464.0}
DENSITY_KG_M3 = 2700.0
RADIATION: dict[Wave, float] = {"P": 0.52, "S": 0.63}
"""Root mean square over the focal sphere (Boore & Boatwright 1984): what `double_couple` has on average."""
FREE_SURFACE = 2.0
BRUNE_CORNER = 0.49
"""Of S: corner = this x speed of S x (stress drop / moment)^(1/3), in SI units; that of P is higher by vP/vS."""
PATH_Q: dict[Wave, float] = {"P": 600.0, "S": 400.0}
CODA_Q, CODA_Q_POWER = 100.0, 0.8
"""Q(f) = CODA_Q x f^CODA_Q_POWER, as in a tectonically active crust."""
CODA_RISE_S = 1.0
"""The first motion keeps its direction: what is scattered comes later."""
CODA_BANDS_HZ = (0.0, 2.0, 6.0, 18.0, 50.0)
"""Edges of the bands in which the coda has one Q each."""
BEFORE_P_S, LENGTH_S = (26.0, 40.0), 100
"""Of a record; P is not always at the same place."""
SPECTRUM_SAMPLES = 1 << 14
"""164 s, so that what is spread over time does not come round to the beginning."""
FREQUENCIES_HZ: Array = np.asarray(rfftfreq(SPECTRUM_SAMPLES, 1 / RATE_HZ), np.float64)
LARGEST = {"magnitude": 10.0, "noise_db": 100.0}
"""No earthquake and no site is beyond, and far beyond no number holds what it would be."""
LOWEST_HZ = 0.05
"""Below it noise does not grow any more: no long-period drift."""


@dataclass(frozen=True, slots=True)
class Earthquake:
    """One event as one station has it."""

    magnitude: float
    """Moment magnitude."""
    stress_drop_pa: float
    distance_km: float
    """Epicentral."""
    depth_km: float
    back_azimuth_deg: float
    incidence_deg: float
    """Of the ray at the surface, from the vertical."""
    kappa_s: float
    """Attenuation of the site, whatever the path."""
    is_up: bool
    """First motion of P."""
    sideways_deg: float
    """How far S is turned from the transverse towards the plane of the ray."""
    coda: float
    """Energy of the coda against that of its pulse."""
    radiation: Mapping[Wave, float] = field(default_factory=lambda: RADIATION)
    """Share of each wave that leaves the source in the station's direction."""

    @property
    def moment_n_m(self) -> float:
        """Hanks & Kanamori 1979."""
        return float(10 ** (1.5 * self.magnitude + 9.1))

    @property
    def path_m(self) -> float:
        return 1000 * float(np.hypot(self.distance_km, self.depth_km))

    def travel_s(self, wave: Wave) -> float:
        return self.path_m / SPEED_M_S[wave]

    def level_m_s(self, wave: Wave) -> float:
        """Displacement spectrum far below the corner, metres x seconds."""
        source = self.radiation[wave] * FREE_SURFACE * self.moment_n_m
        return source / (4 * np.pi * DENSITY_KG_M3 * SPEED_M_S[wave] ** 3 * self.path_m)

    def corner_hz(self, wave: Wave) -> float:
        of_s = BRUNE_CORNER * SPEED_M_S["S"] * (self.stress_drop_pa / self.moment_n_m) ** (1 / 3)
        return float(of_s * SPEED_M_S[wave] / SPEED_M_S["S"])

    def direction(self, wave: Wave) -> Array:
        """(3,) of Z, N, E, of unit length."""
        away, rise = np.radians(self.back_azimuth_deg + 180), np.radians(self.incidence_deg)
        if wave == "P":
            ray = np.array([np.cos(rise), np.sin(rise) * np.cos(away), np.sin(rise) * np.sin(away)])
            return ray if self.is_up else -ray
        turn = np.radians(self.sideways_deg)
        transverse = np.array([0.0, -np.sin(away), np.cos(away)])
        in_plane = np.array([-np.sin(rise), np.cos(rise) * np.cos(away), np.cos(rise) * np.sin(away)])
        return np.asarray(np.cos(turn) * transverse + np.sin(turn) * in_plane)

    def amplitude(self, wave: Wave) -> Array:
        """(frequencies,) displacement spectrum at the station, without the factors of components."""
        brune = self.level_m_s(wave) / (1 + (FREQUENCIES_HZ / self.corner_hz(wave)) ** 2)
        return np.asarray(brune * np.exp(-np.pi * FREQUENCIES_HZ * (self.travel_s(wave) / PATH_Q[wave] + self.kappa_s)))

    def motion(self, rng: np.random.Generator, onsets: Mapping[Wave, int], length: int) -> Array:
        """(3, length) m/s; ``onsets``: sample at which each wave comes."""
        ground = np.zeros((3, length))
        for wave, onset in onsets.items():
            pulse = velocity_pulse(self.amplitude(wave))
            scattered = np.sqrt(self.coda) * scattering(rng, self.travel_s(wave))  # (3, SPECTRUM_SAMPLES)
            scattered[:, 0] += self.direction(wave)
            moved = irfft(pulse * rfft(scattered), SPECTRUM_SAMPLES)
            ground[:, onset:] += moved[:, : max(length - onset, 0)]
        return ground


class Synthetic(SourceSection):
    """Earthquakes and noise made from a seed, in m/s times ``counts_per_m_s``."""

    type: Literal["synthetic"]
    count: int = Field(ge=0, description="earthquakes to train on")
    noise: int = Field(ge=0, description="records of noise to train on")
    dev_count: int = Field(default=0, ge=0, description="earthquakes of the split dev")
    dev_noise: int = Field(default=0, ge=0, description="records of noise of the split dev")
    seed: int = Field(default=0, ge=0)
    magnitude: tuple[float, float] = Field(default=(2.0, 7.0), description="from, to; all alike often")
    distance_km: tuple[Positive, Positive] = Field(default=(5.0, 100.0), description="from, to; logarithmically even")
    depth_km: tuple[Positive, Positive] = Field(default=(2.0, 20.0))
    stress_drop_mpa: tuple[Positive, Positive] = Field(default=(0.5, 20.0), description="logarithmically even")
    noise_db: tuple[float, float] = Field(default=(-150.0, -120.0), description="at 1 Hz, dB of (m/s)^2/Hz")
    counts_per_m_s: Positive = Field(default=1.0, description="gain of the instrument")

    @model_validator(mode="after")
    def _ranges_rise(self) -> Self:
        for name in ("magnitude", "distance_km", "depth_km", "stress_drop_mpa", "noise_db"):
            low, high = getattr(self, name)
            if high < low:
                raise ValueError(f"{name} goes from {low:g} down to {high:g}")
            if high > LARGEST.get(name, high):
                raise ValueError(f"{name} goes up to {high:g}: {LARGEST[name]:g} is the most")
        return self

    def find(self, folder: Path) -> Findings:  # nothing is read
        streams = (("train", True, self.count), ("dev", True, self.dev_count))
        quiet = (("train", False, self.noise), ("dev", False, self.dev_noise))
        plan = [(stream, *what) for stream, what in enumerate((*streams, *quiet))]
        return Findings(
            tuple(
                self._find(split, is_event, (self.seed, stream, number))
                for stream, split, is_event, count in plan
                for number in range(count)
            )
        )

    def earthquake(self, rng: np.random.Generator) -> Earthquake:
        of_p, of_sv, of_sh = double_couple(rng)
        return Earthquake(
            magnitude=rng.uniform(*self.magnitude),
            stress_drop_pa=1e6 * _log_uniform(rng, self.stress_drop_mpa),
            distance_km=_log_uniform(rng, self.distance_km),
            depth_km=rng.uniform(*self.depth_km),
            back_azimuth_deg=rng.uniform(0, 360),
            incidence_deg=rng.uniform(20, 50),
            kappa_s=rng.uniform(0.01, 0.05),
            is_up=of_p > 0,
            sideways_deg=float(np.degrees(np.arctan2(of_sv, of_sh))),
            coda=rng.uniform(0.5, 3.0),
            radiation={"P": abs(of_p), "S": float(np.hypot(of_sv, of_sh))},
        )

    def _find(self, split: str, is_event: bool, place: tuple[int, int, int]) -> Find:
        label = self.name or "synthetic"
        name = f"{label}.{'quake' if is_event else 'noise'}.{'.'.join(map(str, place))}"
        record = Record(
            name,
            label,
            name if is_event else "",
            NOT_READ,
            "earthquake" if is_event else "noise",
            origin="" if is_event else "synthetic",
            licence="made by this program",
            weight=self.weight,
        )
        if is_event:
            quake = self.earthquake(np.random.default_rng(place))
            known = {key: getattr(quake, key) for key in ("magnitude", "back_azimuth_deg", "distance_km")}
            record = replace(record, **known)
        return Find(record, partial(self._make, is_event, place), split)

    def _make(self, is_event: bool, place: tuple[int, int, int]) -> Raw:
        rng = np.random.default_rng(place)
        length = LENGTH_S * RATE_HZ
        if not is_event:
            return Raw(self.counts_per_m_s * coloured_noise(rng, self.noise_db, length), RATE_HZ)
        quake = self.earthquake(rng)
        p = round(rng.uniform(*BEFORE_P_S) * RATE_HZ)
        s = p + round((quake.travel_s("S") - quake.travel_s("P")) * RATE_HZ)
        ground = quake.motion(rng, {"P": p, "S": s}, length) + coloured_noise(rng, self.noise_db, length)
        return Raw(self.counts_per_m_s * ground, RATE_HZ, p, s)


def double_couple(rng: np.random.Generator) -> tuple[float, float, float]:
    """Radiation of P, SV and SH along a ray, from a shear fault that is turned any way against it.

    Aki & Richards 2002, 4.33: with the fault's normal n and slip d, and of the ray's frame the unit vectors r (along),
    v and h (across): 2 (n r)(d r), and (n r)(d x) + (d r)(n x) for x of v and h.
    """
    normal, slip, _ = special_ortho_group.rvs(3, random_state=rng)  # in the frame r, v, h
    across = normal[0] * slip[1:] + slip[0] * normal[1:]  # (2,)
    return float(2 * normal[0] * slip[0]), float(across[0]), float(across[1])


def velocity_pulse(displacement: Array) -> Spectrum:
    """(frequencies,) amplitudes in m s -> transform of causal samples in m/s with 2 pi f times these amplitudes."""
    turning = 2 * np.pi * FREQUENCIES_HZ
    step = RATE_HZ * (1 - np.exp(-1j * turning / RATE_HZ))  # of a difference backwards, which looks at nothing to come
    too_small = np.divide(turning, np.abs(step), out=np.ones_like(turning), where=turning > 0)
    return np.asarray(RATE_HZ * step * minimum_phase(displacement * too_small))


def minimum_phase(amplitude: Array) -> Spectrum:
    """(frequencies,) -> transform of the causal pulse that is shortest with these amplitudes: folds the cepstrum."""
    cepstrum = irfft(np.log(amplitude), SPECTRUM_SAMPLES)
    half = SPECTRUM_SAMPLES // 2
    cepstrum[1:half] *= 2
    cepstrum[half + 1 :] = 0
    return np.asarray(np.exp(rfft(cepstrum)))


def scattering(rng: np.random.Generator, travel_s: float) -> Array:
    """(3, SPECTRUM_SAMPLES) what a pulse becomes after its arrival at ``travel_s``; its energy is 1."""
    age_s = np.arange(SPECTRUM_SAMPLES) / RATE_HZ
    spread = travel_s / (travel_s + age_s) * (1 - np.exp(-age_s / CODA_RISE_S)) * (age_s < LENGTH_S)
    white = rfft(rng.standard_normal((3, SPECTRUM_SAMPLES)))
    scattered = np.zeros((3, SPECTRUM_SAMPLES))
    for low_hz, high_hz in pairwise(CODA_BANDS_HZ):
        band = irfft(white * ((low_hz <= FREQUENCIES_HZ) & (high_hz > FREQUENCIES_HZ)), SPECTRUM_SAMPLES)
        centre_hz = (low_hz + high_hz) / 2
        scattered += band * spread * np.exp(-np.pi * centre_hz * age_s / (CODA_Q * centre_hz**CODA_Q_POWER))
    return np.asarray(scattered / np.sqrt(np.sum(scattered**2)))


def coloured_noise(rng: np.random.Generator, level_db: tuple[float, float], length: int) -> Array:
    """(3, length) m/s; its density falls with a drawn power of the frequency, 0 to 2."""
    density = 10 ** (rng.uniform(*level_db) / 10) * np.maximum(FREQUENCIES_HZ, LOWEST_HZ) ** -rng.uniform(0, 2)
    white = rfft(rng.standard_normal((3, SPECTRUM_SAMPLES)))
    return irfft(white * np.sqrt(density * RATE_HZ / 2), SPECTRUM_SAMPLES)[:, :length]


def _log_uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(*np.log(bounds))))
