"""Change what a training window looks like, and never whether an earthquake is in it.

Each function takes a (3, n) window in Z, N, E and gives one back. Polarity and gain are not drawn: the spectrogram,
whose components are standardised one by one, does not see them. Artefacts (spikes, steps, gaps, pulses) fall on
earthquakes as on noise, so that they speak for neither.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from trainer.windows import RATE_HZ, Cut, Drawer, Samples

Rng = np.random.Generator
Coefficients = NDArray[np.float64]

MISSING = ((1, 2), (1,), (2,), (0,), (0, 2), (0, 1))
"""Components that a station lacks; stations with a vertical alone are by far the most."""
MISSING_SHARE = (0.35, 0.025, 0.025, 0.02, 0.01, 0.01)
SPEEDS = ((4, 5), (5, 4), (9, 10), (10, 9), (3, 4), (4, 3))
"""Up and down of the resampling that makes a record sound smaller or larger."""
BAND_HZ = (2.0, 40.0)
"""Where the level of earthquake against noise is compared."""
BAND = signal.firwin(65, BAND_HZ, pass_zero=False, fs=RATE_HZ)
SHARP_S = 2.0
"""Seconds after P in which an earthquake's level is measured."""


@dataclass(frozen=True, slots=True)
class Augmenter:
    """Makes training windows of ``length`` samples from what a `Drawer` cuts."""

    drawer: Drawer
    rng: Rng
    length: int

    def earthquake(self) -> Samples:
        """(3, length) with P or S in it."""
        rng = self.rng
        cut = self._at_speed(self.drawer.event)
        window, onset = cut.samples, cut.onset
        window = rotate(rng, window)
        if rng.random() < 0.55:
            window = bury(rng, window, self._noise(), onset)
        if rng.random() < 0.2:
            window = artefact(rng, window, onset)
        return finish(rng, window)

    def noise(self) -> Samples:
        """(3, length) without an earthquake."""
        rng = self.rng
        if rng.random() < 0.015:
            return np.zeros((3, self.length), np.float32)
        window = rotate(rng, self._at_speed(self.drawer.noise).samples)
        if rng.random() < 0.25:
            window = mix(window, self._noise(), 10 ** rng.uniform(-0.5, 0.5))
        if rng.random() < 0.08:
            window = gust(rng, window)
        for _ in range(int(rng.choice(3, p=(0.6, 0.3, 0.1)))):
            window = artefact(rng, window, self.length)
        return finish(rng, window)

    def _noise(self) -> Samples:
        if self.rng.random() < 0.25:
            return coloured(self.rng, self.length)
        return rotate(self.rng, self._at_speed(self.drawer.noise).samples)

    def _at_speed(self, draw: Callable[[int], Cut]) -> Cut:
        """A cut of ``length`` samples, one in four of them played slower or faster."""
        if self.rng.random() >= 0.25:
            return draw(self.length)
        up, down = SPEEDS[int(self.rng.integers(len(SPEEDS)))]
        cut = draw(-(-self.length * down // up))
        played = signal.resample_poly(cut.samples, up, down, axis=1, padtype="line").astype(np.float32)
        skipped = played.shape[1] - self.length
        return Cut(played[:, skipped:], cut.onset * up // down - skipped)


def finish(rng: Rng, window: Samples) -> Samples:
    """What recorder and station do to any signal: tilt of the spectrum, bandwidth, components that are missing."""
    if rng.random() < 0.2:
        window = tilt(rng, window)
    window = narrow(rng, window)
    return drop(rng, window).astype(np.float32)


def rotate(rng: Rng, window: Samples) -> Samples:
    """Turn the horizontals by a random angle; as often as not they are also swapped in sense."""
    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    north, east = window[1], window[2] * np.float32(rng.choice([-1, 1]))
    return np.stack([window[0], cos * north - sin * east, sin * north + cos * east])


def level(window: Samples) -> float:
    """Root mean square of all components within BAND_HZ; never 0."""
    band = signal.oaconvolve(window, BAND[None, :], mode="same", axes=1)
    return float(np.sqrt(np.mean(np.square(band)))) + 1e-12


def bury(rng: Rng, window: Samples, noise: Samples, onset: int) -> Samples:
    """Add noise so that the first seconds after P stand 2 to 30 dB above it; a quake below its noise would be a lie."""
    start = min(max(onset, 0), window.shape[1] - RATE_HZ // 2)
    loud = level(window[:, start : start + round(SHARP_S * RATE_HZ)])
    below = 10 ** (-rng.uniform(2, 30) / 20)
    return np.asarray(window + noise * (loud / level(noise) * below), np.float32)


def mix(window: Samples, noise: Samples, ratio: float) -> Samples:
    """Add noise whose level is ``ratio`` times the window's."""
    return np.asarray(window + noise * (ratio * level(window) / level(noise)), np.float32)


def coloured(rng: Rng, length: int) -> Samples:
    """(3, length) Gaussian noise whose amplitude falls as a random power of frequency."""
    spectrum = np.fft.rfft(rng.standard_normal((3, length)), axis=1)  # (3, F)
    slope = np.maximum(np.arange(spectrum.shape[1]), 4.0) ** -rng.uniform(-0.3, 1.5)
    return np.asarray(np.fft.irfft(spectrum * slope, length, axis=1), np.float32)


def gust(rng: Rng, window: Samples) -> Samples:
    """Wind or traffic: noise that swells and fades over seconds."""
    times = np.arange(window.shape[1]) / RATE_HZ
    swell = np.exp(-0.5 * ((times - rng.uniform(0, times[-1])) / rng.uniform(2.5, 8.0)) ** 2)
    return np.asarray(window * (1 + rng.uniform(0.5, 4.0) * swell), np.float32)


def tilt(rng: Rng, window: Samples) -> Samples:
    """Another kind of sensor: acceleration, displacement, or a corner frequency between 0.5 and 5 Hz."""
    kind = int(rng.integers(3))
    if kind == 0:
        return np.asarray(np.diff(window, axis=1, prepend=window[:, :1]), np.float32)
    if kind == 1:
        return _causal(np.ones(1), np.array([1.0, -0.985]), window - window.mean(axis=1, keepdims=True))
    b, a = signal.butter(1, rng.uniform(0.5, 5.0), "highpass", fs=RATE_HZ)
    return _causal(b, a, window - window[:, :1])


def _causal(b: Coefficients, a: Coefficients, window: Samples) -> Samples:
    return np.asarray(signal.lfilter(b, a, window, axis=1), np.float32)


def narrow(rng: Rng, window: Samples) -> Samples:
    """Take away high frequencies, one time in three, as a station of 50 or 40 Hz or an anti-alias filter does."""
    kind = rng.random()
    if kind < 0.2:
        return through(window, 1, 2)
    if kind < 0.24:
        return through(window, 2, 5)
    if kind < 0.34:
        centred = window - window.mean(axis=1, keepdims=True)
        taps = signal.firwin(81, rng.uniform(9.0, 45.0), fs=RATE_HZ)
        return np.asarray(signal.oaconvolve(centred, taps[None, :], mode="same", axes=1), np.float32)
    return window


def through(window: Samples, up: int, down: int) -> Samples:
    """Resample to ``up / down`` of the rate and back, by polyphase FIR inside the window."""
    low = signal.resample_poly(window, up, down, axis=1, padtype="line")
    back = signal.resample_poly(low, down, up, axis=1, padtype="line")
    return np.asarray(back[:, : window.shape[1]], np.float32)


def drop(rng: Rng, window: Samples) -> Samples:
    """Zero the components that a station may lack."""
    kind = int(rng.choice(len(MISSING) + 1, p=(*MISSING_SHARE, 1 - sum(MISSING_SHARE))))
    if kind < len(MISSING):
        window = window.copy()
        window[list(MISSING[kind])] = 0
    return window


def artefact(rng: Rng, window: Samples, onset: int) -> Samples:
    """One fault of sensor, recorder or line. ``onset``: of an earthquake, which no gap hides; n where there is none."""
    kind = int(rng.choice(len(FAULTS) + 1, p=(0.25, 0.2, 0.25, 0.3)))
    if kind == len(FAULTS):
        return gap(rng, window, onset)
    window = window - window.mean(axis=1, keepdims=True)
    spread = float(window.std()) + 1e-12
    # On an earthquake only moderate faults: a spike of a hundred times its size would leave nothing to be seen.
    size = spread * 10 ** rng.uniform(0.3, 2.5 if onset >= window.shape[1] else 1.2)
    pulse = FAULTS[kind](rng, window.shape[1]) * size
    shares = rng.uniform(-1, 1, 3) * (rng.random(3) < 0.6)  # a fault shows on some components
    shares[int(rng.integers(3))] = 1.0
    return (window + shares[:, None] * pulse).astype(np.float32)


def spike(rng: Rng, length: int) -> NDArray[np.float64]:
    """(length,) one to five samples that are wrong, once or a few times."""
    pulse = np.zeros(length)
    for start in rng.integers(0, length - 5, int(rng.integers(1, 4))):
        pulse[start : start + int(rng.integers(1, 6))] = rng.choice([-1.0, 1.0])
    return pulse


def step(rng: Rng, length: int) -> NDArray[np.float64]:
    """(length,) an offset that stays, or relaxes as a feedback sensor's or a calibration pulse does."""
    age = np.arange(length) - int(rng.integers(0, length))
    relaxed = np.exp(-np.maximum(age, 0) / (RATE_HZ * 10 ** rng.uniform(-1.7, 2.0)))
    return np.where(age >= 0, relaxed, 0.0)


def ring(rng: Rng, length: int) -> NDArray[np.float64]:
    """(length,) a tone that switches on and off, or a short wavelet: motors, relays, electronics."""
    times = (np.arange(length) - int(rng.integers(0, length))) / RATE_HZ
    tone = np.sin(2 * np.pi * rng.uniform(0.5, 49.0) * times)
    if rng.random() < 0.5:
        return np.where((times >= 0) & (times < 10 ** rng.uniform(-0.5, 1.3)), tone, 0.0)
    return np.where(times >= 0, tone * np.exp(-np.maximum(times, 0) / rng.uniform(0.01, 0.08)), 0.0)


FAULTS = (spike, step, ring)


def gap(rng: Rng, window: Samples, onset: int) -> Samples:
    """Samples that never came, filled with one value: the mean, or zero counts far from it."""
    length = window.shape[1]
    margin = RATE_HZ // 2
    if onset < length:  # either before the earthquake, or at the window's beginning
        last = max(onset - margin, 1)
        start, stop = 0, int(rng.integers(0, last + 1))
    else:
        start = int(rng.integers(0, length)) if rng.random() < 0.6 else 0
        stop = min(start + round(RATE_HZ * 10 ** rng.uniform(-1.3, 1.3)), length)
    window = window - window.mean(axis=1, keepdims=True)
    offset = window.std() * 10 ** rng.uniform(0, 2) if rng.random() < 0.3 else 0.0
    components = [int(rng.integers(3))] if rng.random() < 0.3 else [0, 1, 2]
    window[components, start:stop] = offset
    return window
