"""What the networks see: the definition of the spectrogram, in NumPy and SciPy alone.

`SpectrogramShape` says how a window of samples becomes an image, step by step:

1. ``normalisation``: each component loses its mean and is divided by its standard deviation (``zscore_component``), the
   same is done to its successive differences (``zscore_difference``), all components are divided by one deviation
   (``zscore_window``), by none (``demean``), or nothing is done (``none``);
2. a Tukey taper over the window (``taper_fraction``);
3. frames of ``nperseg`` samples every ``hop``, tapered by ``window``: ``1 + (N - nperseg) // hop`` of them, or with
   SciPy's padding (``padded``);
4. ``representation`` of the one-sided transform X: ``log1p(gain x |X|)`` (``log1p_magnitude``), that less each
   frequency's mean over the frames (``log1p_contrast``), |X| divided by the taper's sum (``magnitude``), its square
   (``power``), decibels of the power spectral density (``decibel``), or of it and the signed cross-spectra
   (``cross_decibel``);
5. resizing to ``image_size``, or to ``resized_size`` of which the middle is cut out, and ImageNet's statistics, where
   asked for (`quake.data.image`).

At the defaults each component is scaled by itself, so a station with a vertical alone looks to the network's Z as any
other does, and gains that differ between components do not matter. ``gain`` sets how far below the window's own level
weak signals remain visible: a broadband sensor's microseism is often a thousand times stronger than the first motion
of a small earthquake, and a plain ``log1p(|X|)`` would leave of that nothing. Who needs the ratios of the components
takes ``zscore_window``; who needs absolute size, ``demean`` and decibels of samples in physical units.

``log1p_contrast`` leaves of the spectrum what changes within the window. The colour of a station's noise, a steady hum
and the sensor's own response, which differ from site to site and tell nothing of earthquakes, are gone before a network
could learn them by heart. ``zscore_difference`` before it changes little but what a frame's taper lets through: a drift
or a teleseism a thousand times stronger than the first motion no longer leaks into the frequencies of that.

A component that does not vary (missing: all zeros; or stuck at a value) is zero throughout once it loses its mean, or
at the floor, never NaN. One that holds NaN, infinity or a value beyond LARGEST is taken for missing under every
normalisation, and leaves the others alone; `quake.artifact.CompiledModel` refuses such windows before. Under ``none`` an
offset stays, and decibels show float64's rounding of it, some 300 dB below.

**The sign of cross-spectra.** The cross-spectral density of Z and N is conj(Z) N, as in `scipy.signal.csd`; only its
real part is kept, which is the same with the other one conjugated. It is positive where up goes with north. A P wave
moves the ground along its path: up and away from the source, or down and towards it. So Z-N is negative where the
source is in the north, Z-E where it is in the east, whichever the polarity of the first motion, and the back-azimuth is
``atan2(-ZE, -ZN)``. Rayleigh waves, whose horizontal motion is a quarter of a period off, leave nothing. Without Z there
is nothing to hold N and E against, and the image is that of silence.

All arithmetic up to the magnitude is float64: at a gain of 1e5 the rounding of float32 would show. The torch module of
`quake.data.transforms` is held to this one. Filtering, resampling and removal of the response are not done here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from quake.data.image import crop, imagenet_normalise, resize

LARGEST = 1e140
"""Of a sample, or of a component's range: beyond it the square of a transform is no float64."""
FLOAT32_LARGEST = float(np.finfo(np.float32).max)
"""Where magnitudes saturate: infinity in an image would make NaN in a network."""
TINIEST = 1e-300
"""Density whose logarithm stands for that of zero: far below any floor."""

Normalisation = Literal["none", "demean", "zscore_component", "zscore_difference", "zscore_window"]
Representation = Literal["log1p_magnitude", "log1p_contrast", "magnitude", "power", "decibel", "cross_decibel"]
ImageNormalisation = Literal["none", "imagenet"]


@dataclass(frozen=True, slots=True)
class SpectrogramShape:
    """What defines a spectrogram. ValueError, naming the field, for what cannot be."""

    nperseg: int = 64
    """Samples a frame."""
    hop: int = 32
    """Samples from one frame to the next."""
    window: str = "hann"
    """Taper of a frame, by the name `scipy.signal.get_window` knows it by; periodic."""
    gain: float = 1e5
    """What the magnitude is multiplied by before ``log1p``."""
    padded: bool = False
    """Half a frame of zeros at both ends, then zeros up to a whole frame: the defaults of `scipy.signal.stft`."""
    taper_fraction: float = 0.0
    """Share of the window, both ends together, under a Tukey taper; applied after the normalisation."""
    normalisation: Normalisation = "zscore_component"
    representation: Representation = "log1p_magnitude"
    sampling_rate_hz: float = 100.0
    """Only densities need it."""
    floor_db: float = -180.0
    """Density, dB of unit^2/Hz, that becomes 0."""
    ceiling_db: float = -60.0
    """Density, dB of unit^2/Hz, that becomes 1 (or -1 where it is negative)."""
    image_size: tuple[int, int] | None = None
    """(height, width), or None: frequencies and frames as they are."""
    image_normalisation: ImageNormalisation = "none"
    resized_size: tuple[int, int] | None = None
    """(height, width) that the image is brought to before its middle, ``image_size``, is cut out; None: no cropping."""

    def __post_init__(self) -> None:
        if self.nperseg < 2 or self.hop < 1 or not 0 < self.gain < np.inf:
            raise ValueError(f"no spectrogram with nperseg {self.nperseg}, hop {self.hop}, gain {self.gain}")
        self._refuse_unknown_names()
        self.taper()  # refuses a window nobody knows
        if not 0 <= self.taper_fraction <= 1:
            raise ValueError(f"taper_fraction {self.taper_fraction} is not within 0 and 1")
        if not 0 < self.sampling_rate_hz < np.inf:
            raise ValueError(f"sampling_rate_hz {self.sampling_rate_hz} is not positive and finite")
        if not -np.inf < self.floor_db < self.ceiling_db < np.inf:
            raise ValueError(f"floor_db {self.floor_db} is not below ceiling_db {self.ceiling_db}, both finite")
        if self.image_size is not None and (len(self.image_size) != 2 or min(self.image_size) < 1):
            raise ValueError(f"image_size {self.image_size} is not (height, width), both at least 1")
        self._refuse_crop()

    def _refuse_crop(self) -> None:
        if self.resized_size is None:
            return
        cut = self.image_size
        if cut is None or len(self.resized_size) != 2 or any(np.less(self.resized_size, cut)):
            raise ValueError(f"resized_size {self.resized_size} is not (height, width), neither below image_size {cut}")

    def _refuse_unknown_names(self) -> None:
        for field, known in _NAMES.items():
            value = getattr(self, field)
            if value not in known:
                raise ValueError(f"{field} {value!r} is none of {', '.join(known)}")

    @property
    def frequencies(self) -> int:
        return self.nperseg // 2 + 1

    def frames(self, samples: int) -> int:
        """How many frames ``samples`` samples make; ValueError where they are fewer than one, padded or not."""
        if samples < self.nperseg:
            raise ValueError(f"{samples} samples are fewer than one frame of {self.nperseg}")
        if self.padded:
            return 1 - (-(samples + 2 * (self.nperseg // 2) - self.nperseg) // self.hop)
        return 1 + (samples - self.nperseg) // self.hop

    def input_shape(self, components: int, samples: int) -> tuple[int, int, int]:
        """(channels, height, width) of the image of a window; ValueError where it makes none."""
        needs = "cross_decibel" if self.representation == "cross_decibel" else self.image_normalisation
        if needs != "none" and components != 3:
            order = " in the order Z, N, E" if needs == "cross_decibel" else ""
            raise ValueError(f"{needs} needs three components{order}, not {components}")
        plain = (self.frequencies, self.frames(samples))
        return components, *(self.image_size or plain)

    def taper(self) -> NDArray[np.float64]:
        """(nperseg,) the weights of a frame's taper, read-only."""
        return _frame_taper(self.window, self.nperseg)

    def density_weights(self) -> NDArray[np.float64]:
        """(frequencies,) what |X|^2 is multiplied by to be a one-sided density, unit^2/Hz."""
        weights = np.full(self.frequencies, 2 / (self.sampling_rate_hz * np.sum(self.taper() ** 2)))
        weights[0] /= 2  # 0 Hz has no negative counterpart,
        if self.nperseg % 2 == 0:
            weights[-1] /= 2  # nor has half the sampling rate
        return weights


_NAMES: dict[str, tuple[str, ...]] = {
    "normalisation": get_args(Normalisation),
    "representation": get_args(Representation),
    "image_normalisation": get_args(ImageNormalisation),
}


@lru_cache(maxsize=64)
def _frame_taper(window: str, nperseg: int) -> NDArray[np.float64]:
    weights = _hann(nperseg) if window == "hann" else _by_scipy(window, nperseg)
    weights.setflags(write=False)
    return weights


def _hann(nperseg: int) -> NDArray[np.float64]:
    """To the last bit SciPy's, without what importing `scipy.signal` takes of a station box: 70 MB, and a second."""
    return np.asarray(0.5 + 0.5 * np.cos(np.linspace(-np.pi, np.pi, nperseg + 1)), np.float64)[:-1]


def _by_scipy(window: str, nperseg: int) -> NDArray[np.float64]:
    from scipy.signal import get_window

    try:
        return np.array(get_window(window, nperseg), dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"window {window!r} is none that scipy.signal.get_window makes: {error}") from error


def demean(samples: NDArray[Any]) -> NDArray[np.float64]:
    """(..., N) -> (..., N) less the mean of the last axis; zeros where nothing varies, or a sample is unusable."""
    wide = np.asarray(samples, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # infinity less infinity
        spread = wide.max(axis=-1, keepdims=True) - wide.min(axis=-1, keepdims=True)  # (..., 1)
        varies = (spread > 0) & (spread < LARGEST)  # neither holds for NaN
        return np.where(varies, wide - wide.mean(axis=-1, keepdims=True), 0.0)


def standardise(samples: NDArray[Any], *, together: bool = False) -> NDArray[np.float64]:
    """(..., N) -> (..., N) mean 0 and standard deviation 1 along the last axis; zeros where nothing varies.

    ``together``: one standard deviation for the last two axes, components and samples, so that ratios are kept.
    """
    centred = demean(samples)
    axes = (-2, -1) if together and centred.ndim > 1 else (-1,)
    deviation = np.sqrt(np.mean(np.square(centred), axis=axes, keepdims=True))  # (..., 1) or (..., 1, 1)
    return centred / np.where(deviation > 0, deviation, 1.0)


def difference(samples: NDArray[Any]) -> NDArray[np.float64]:
    """(..., N) -> (..., N) half of each sample less the one before, the first 0; zeros where `demean` gives zeros.

    Halves have no wider range than the samples, so that `demean` can take them again.
    """
    centred = 0.5 * demean(samples)
    return np.diff(centred, axis=-1, prepend=centred[..., :1])


def normalise(samples: NDArray[Any], how: Normalisation) -> NDArray[np.float64]:
    """(..., N) -> (..., N) float64."""
    if how == "none":
        wide = np.asarray(samples, dtype=np.float64)
        return np.where((np.abs(wide) < LARGEST).all(axis=-1, keepdims=True), wide, 0.0)
    if how == "demean":
        return demean(samples)
    return standardise(difference(samples) if how == "zscore_difference" else samples, together=how == "zscore_window")


def stft(samples: NDArray[np.float64], shape: SpectrogramShape) -> NDArray[np.complex128]:
    """(..., N) -> (..., frequencies, frames) transforms of the tapered frames, not scaled."""
    count, length = shape.frames(samples.shape[-1]), samples.shape[-1]  # refuses what is too short
    if shape.padded:
        before = shape.nperseg // 2
        after = shape.nperseg + (count - 1) * shape.hop - length - before
        samples = np.pad(samples, [(0, 0)] * (samples.ndim - 1) + [(before, after)])
    frames = sliding_window_view(samples, shape.nperseg, axis=-1)[..., :: shape.hop, :]  # (..., T, nperseg), a view
    return np.swapaxes(np.fft.rfft(frames * shape.taper(), axis=-1), -1, -2)  # (..., F, T)


def contrast(magnitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., F, T) from 0 upward -> (..., F, T) its log1p less each frequency's mean over the frames.

    float64: where little changes, float32's rounding of the level would be most of what is left. The logarithm of the sum
    is within 2e-16 of log1p, which takes two to three times as long, a fifth of the whole transform.
    """
    level = np.log(1.0 + magnitude)
    return np.asarray(level - level.mean(axis=-1, keepdims=True))


def signed_decibel(density: NDArray[np.float64], floor_db: float, ceiling_db: float) -> NDArray[np.float64]:
    """Density of any shape, unit^2/Hz -> -1..1: its decibels, floor 0 and ceiling 1, times its sign."""
    decibels = 10 * np.log10(np.maximum(np.abs(density), TINIEST))
    level: NDArray[np.float64] = (np.clip(decibels, floor_db, ceiling_db) - floor_db) / (ceiling_db - floor_db)
    return np.copysign(level, density)


def spectrogram(samples: NDArray[Any], shape: SpectrogramShape | None = None) -> NDArray[np.float32]:
    """Turn windows into what a network reads.

    ``samples``: (..., components, N) real numbers, in any unit where they are standardised. Returns
    (..., channels, height, width) float32, as `SpectrogramShape.input_shape` says. At the defaults 3 x 2080 samples
    become 3 x 33 x 64, from 0 upward. ValueError where N is less than one frame, or the number of components is not
    what the shape needs.
    """
    shape = shape or SpectrogramShape()
    samples = np.asarray(samples)
    components = samples.shape[-2] if samples.ndim > 1 else 1
    shape.input_shape(components, samples.shape[-1])  # refuses what cannot be
    signal = normalise(samples, shape.normalisation)
    if shape.taper_fraction > 0:
        from scipy.signal.windows import tukey

        signal = signal * tukey(signal.shape[-1], shape.taper_fraction)
    image = _represent(stft(signal, shape), shape)
    if shape.image_size is not None:
        image = crop(resize(image, shape.resized_size or shape.image_size), shape.image_size)
    if shape.image_normalisation == "imagenet":
        image = imagenet_normalise(image)
    if image.dtype != np.float32:
        image = np.clip(image, -FLOAT32_LARGEST, FLOAT32_LARGEST)
    return np.ascontiguousarray(image, dtype=np.float32)


def _represent(spectra: NDArray[np.complex128], shape: SpectrogramShape) -> NDArray[Any]:
    """(..., C, F, T) complex -> (..., C, F, T) real."""
    if shape.representation.startswith("log1p"):
        magnitude = np.minimum(shape.gain * np.abs(spectra), FLOAT32_LARGEST)
        return (
            contrast(magnitude) if shape.representation == "log1p_contrast" else np.log1p(magnitude.astype(np.float32))
        )
    if shape.representation in {"magnitude", "power"}:
        amplitude: NDArray[np.float64] = np.abs(spectra) / shape.taper().sum()
        return amplitude if shape.representation == "magnitude" else np.square(amplitude)
    partner = spectra[..., :1, :, :] if shape.representation == "cross_decibel" else spectra  # Z, or each itself
    density = (partner.real * spectra.real + partner.imag * spectra.imag) * shape.density_weights()[:, None]
    return signed_decibel(density, shape.floor_db, shape.ceiling_db)
