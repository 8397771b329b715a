"""What the networks see: the definition of the spectrogram, in NumPy alone.

A window of samples becomes log-magnitudes of its short-time Fourier transform:

1. each component loses its mean and is divided by its standard deviation (``zscore_component``);
2. frames of ``nperseg`` samples every ``hop``, tapered, none padded: ``1 + (N - nperseg) // hop`` of them;
3. ``log1p(gain x |X|)`` of the one-sided transform (``log1p_magnitude``).

Each component is scaled by itself, so a station with a vertical alone looks to the network's Z as any other does, and
gains that differ between components do not matter. A component that does not vary (missing: all zeros; or stuck at a
value) is zero throughout, never NaN. ``gain`` sets how far below the window's own level weak signals remain visible:
a broadband sensor's microseism is often a thousand times stronger than the first motion of a small earthquake, and a
plain ``log1p(|X|)`` would leave of that nothing.

All arithmetic up to the magnitude is float64: at a gain of 1e5 the rounding of float32 would show. The torch module of
`quake.data.transforms` is held to this one. Filtering and resampling are not done here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.fft import rfft
from scipy.signal import get_window


@dataclass(frozen=True, slots=True)
class SpectrogramShape:
    """The numbers that define a spectrogram."""

    nperseg: int = 64
    """Samples a frame."""
    hop: int = 32
    """Samples from one frame to the next."""
    window: str = "hann"
    """Taper, by the name `scipy.signal.get_window` knows it by; periodic."""
    gain: float = 1e5
    """What the magnitude is multiplied by before ``log1p``."""

    def __post_init__(self) -> None:
        if self.nperseg < 2 or self.hop < 1 or not self.gain > 0:
            raise ValueError(f"no spectrogram with nperseg {self.nperseg}, hop {self.hop}, gain {self.gain}")

    @property
    def frequencies(self) -> int:
        return self.nperseg // 2 + 1

    def frames(self, samples: int) -> int:
        """How many frames ``samples`` samples make; ValueError where they do not make one."""
        if samples < self.nperseg:
            raise ValueError(f"{samples} samples are fewer than one frame of {self.nperseg}")
        return 1 + (samples - self.nperseg) // self.hop

    def taper(self) -> NDArray[np.float64]:
        """(nperseg,) the taper's weights."""
        return np.asarray(get_window(self.window, self.nperseg), dtype=np.float64)


def standardise(samples: NDArray[Any]) -> NDArray[np.float64]:
    """(..., N) -> (..., N) mean 0 and standard deviation 1 along the last axis; zeros where nothing varies."""
    centred = np.asarray(samples, dtype=np.float64)
    centred = centred - centred.mean(axis=-1, keepdims=True)
    deviation = np.sqrt(np.mean(np.square(centred), axis=-1, keepdims=True))  # (..., 1)
    varies = np.ptp(samples, axis=-1, keepdims=True) > 0
    return np.where(varies, centred, 0.0) / np.where(varies & (deviation > 0), deviation, 1.0)


def stft_magnitude(samples: NDArray[np.float64], shape: SpectrogramShape) -> NDArray[np.float64]:
    """(..., N) -> (..., frequencies, frames) magnitude of the tapered frames' transforms, not scaled."""
    shape.frames(samples.shape[-1])  # refuses what is too short
    frames = sliding_window_view(samples, shape.nperseg, axis=-1)[..., :: shape.hop, :]  # (..., T, nperseg), a view
    spectra = rfft(frames * shape.taper(), axis=-1)  # (..., T, F)
    return np.swapaxes(np.abs(spectra), -1, -2)  # (..., F, T)


def spectrogram(samples: NDArray[Any], shape: SpectrogramShape | None = None) -> NDArray[np.float32]:
    """Turn windows into what a network reads.

    ``samples``: (..., components, N) in any unit, finite. Returns (..., components, frequencies, frames) float32,
    from 0 upward. At the defaults 3 x 2080 samples become 3 x 33 x 64. ValueError where N is less than one frame.
    """
    shape = shape or SpectrogramShape()
    magnitude = stft_magnitude(standardise(samples), shape)
    return np.ascontiguousarray(np.log1p((shape.gain * magnitude).astype(np.float32)))
