"""Noise that people make: what passes by, and what steps or falls. Sensors in towns are full of both.

Each is noise within a band of its own on top of the window's, and only noise gets it: what it teaches is that energy
which swells slowly, or comes and goes at once, is no earthquake. What is not here: wind and swell over the window's own
band (`trainer.augmentation.mixing.Gust`), faults of the sensor (`trainer.augmentation.faults`).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import signal

from trainer.augmentation.base import HertzRange, PositiveRange, Range, Rng, Waveform, alive, drawn_log, factor, level
from trainer.data.record import RATE_HZ, Example, Material

WEAKEST = 0.2
"""Of the strongest component, what another one may have."""


class Traffic(Waveform):
    """What both kinds share: a band, and a level against the window's own noise."""

    on: Literal["noise"] = Field(default="noise", description="never an earthquake, which it could hide")
    level_db: Range = Field(default=(0.0, 36.0), description="range of its strongest above the noise, 2 to 40 Hz, dB")
    centre_hz: HertzRange = Field(default=(3.0, 40.0), description="range of the middle of its band, Hz")
    octaves: PositiveRange = Field(default=(0.5, 3.0), description="range of the band's width, octaves")

    @abstractmethod
    def motion(self, rng: Rng, length: int) -> NDArray[np.float64]:
        """(3, length), its strongest about 1."""

    def apply(self, example: Example, rng: Rng, material: Material) -> Example:
        samples = example.samples
        heard_on = alive(samples)  # (3,)
        if not heard_on.any():
            return example
        size = level(samples[heard_on]) * factor(rng.uniform(*self.level_db))
        shares = rng.uniform(WEAKEST, 1, 3) * heard_on
        added = shares[:, None] * size * self.motion(rng, samples.shape[1])
        return example.having((samples + added).astype(np.float32))

    def in_band(self, rng: Rng, length: int) -> NDArray[np.float64]:
        """(3, length) noise of deviation 1, its spectrum a bell over the logarithm of the frequency."""
        spectrum = np.fft.rfft(rng.standard_normal((3, length)), axis=1)  # (3, F)
        frequencies_hz = np.maximum(np.fft.rfftfreq(length, 1 / RATE_HZ), RATE_HZ / length)
        off = np.log2(frequencies_hz / drawn_log(rng, self.centre_hz)) / (drawn_log(rng, self.octaves) / 2)
        noise = np.fft.irfft(spectrum * np.exp(-0.5 * off**2), length, axis=1)
        return np.asarray(noise / noise.std())


class Passing(Traffic):
    """A car, a lorry, a train: comes, goes, and may be met at any time of it."""

    type: Literal["passing"]
    p: float = Field(default=0.2, ge=0, le=1, description="probability")
    rise_s: PositiveRange = Field(default=(0.5, 8.0), description="range of the time scale of its coming, s")
    fall_s: PositiveRange = Field(default=(0.5, 15.0), description="range of the time scale of its going, s")
    beyond: float = Field(default=0.3, ge=0, description="how far outside of the window it may be nearest, windows")

    def motion(self, rng: Rng, length: int) -> NDArray[np.float64]:
        times = np.arange(length) / RATE_HZ - rng.uniform(-self.beyond, 1 + self.beyond) * length / RATE_HZ
        scale_s = np.where(times < 0, drawn_log(rng, self.rise_s), drawn_log(rng, self.fall_s))
        swell = np.exp(-(np.abs(times / scale_s) ** rng.uniform(1, 2)))
        return np.asarray(self.in_band(rng, length) * (swell / swell.max()))


class Footsteps(Traffic):
    """Blows that die away at once: one, or many in a more or less even beat."""

    type: Literal["footsteps"]
    p: float = Field(default=0.1, ge=0, le=1, description="probability")
    most: int = Field(default=30, ge=1, description="largest number of blows")
    interval_s: PositiveRange = Field(default=(0.3, 1.5), description="range from one to the next, s")
    decay_s: PositiveRange = Field(default=(0.02, 0.2), description="range of the time to fall to 1/e, s")

    def motion(self, rng: Rng, length: int) -> NDArray[np.float64]:
        count = round(drawn_log(rng, (1, self.most)))
        gaps_s = drawn_log(rng, self.interval_s) * rng.normal(1, 0.1, count)
        starts = (np.cumsum(gaps_s) * RATE_HZ).astype(int) + int(rng.integers(-length // 2, length))
        blows = np.zeros(length)
        within = (starts >= 0) & (starts < length)
        blows[starts[within]] = rng.uniform(0.5, 1, count)[within]
        decay = np.exp(-np.arange(RATE_HZ) / (RATE_HZ * drawn_log(rng, self.decay_s)))  # one second of it
        return np.asarray(
            signal.fftconvolve(self.in_band(rng, length)[:, :RATE_HZ] * decay, blows[None], axes=1)[:, :length]
        )
