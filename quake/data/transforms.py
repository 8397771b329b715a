"""The spectrogram as torch modules: the definition of `quake.data.spectrogram`, on a device and scriptable.

Each module takes (..., N) samples of any leading shape, components before samples: (components, N) or
(batch, components, N). Code that held its windows as (seq_len, channels) hands over the transpose. Tensors stay on
their device; eager calls take NumPy arrays too, so that a data set can hold either. Modules go into `nn.Sequential` and
through `torch.jit.script`, and nothing of them enters a state dict.

Inside all is float64; the result has the input's floating type, float32 for integers. The tests hold every module to
SciPy within 1e-5, and `Spectrogram` to the NumPy definition within 1e-6 of scale where the signal stands above the
rounding of its own offset. `Demean`, `Difference`, `ZScore`, `Finite` and `Spectrogram` make zeros of a component that is not finite;
the others hand NaN on within that component (`CrossSpectra`: and to what is crossed with it). What cannot be is a
ValueError, torch.jit.Error from a scripted module: parameters when a module is made, lengths and components when it is
called.

What is not here: augmentation (`quake.data.augmentation`), filtering, resampling.
"""

from typing import Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from quake.data.modules import (
    CenterCrop,
    Demean,
    Difference,
    Finite,
    ImageNetNormalize,
    Resize,
    Taper,
    ToTensor,
    Transform,
    ZScore,
)
from quake.data.spectrogram import FLOAT32_LARGEST, TINIEST, Normalisation, Representation, SpectrogramShape

__all__ = [
    "CenterCrop",
    "CrossSpectra",
    "Decibel",
    "Demean",
    "Difference",
    "FFTTransform",
    "Finite",
    "ImageNetNormalize",
    "Resize",
    "STFTTransform",
    "Spectrogram",
    "Taper",
    "ToTensor",
    "ZScore",
]

Scale = Literal["magnitude", "power", "log", "contrast", "decibel"]

SCALES: dict[Representation, Scale] = {
    "magnitude": "magnitude",
    "power": "power",
    "log1p_magnitude": "log",
    "log1p_contrast": "contrast",
    "decibel": "decibel",
}
"""Representations of a `SpectrogramShape` that are scales of an `STFTTransform`."""


class FFTTransform(Transform):
    """(..., N) -> (..., fft_size // 2 + 1) magnitude of the transform of the first ``fft_size`` samples.

    Not tapered, not scaled; what is shorter is continued with zeros. ``numpy.abs(numpy.fft.rfft(x, n=fft_size))``.
    """

    def __init__(self, fft_size: int = 32) -> None:
        super().__init__()
        if fft_size < 1:
            raise ValueError(f"fft_size {fft_size} is not positive")
        self.fft_size = fft_size

    def compute(self, wide: Tensor) -> Tensor:
        spectra: Tensor = torch.fft.rfft(wide, n=self.fft_size, dim=-1)  # (..., F) complex
        return spectra.abs()


class Frames(nn.Module):
    """(..., N) float64 -> (..., frequencies, frames) complex transforms of the tapered frames, not scaled."""

    taper: Tensor  # declared for mypy; TorchScript resolves it because this file does not postpone annotations

    def __init__(self, shape: SpectrogramShape) -> None:
        super().__init__()
        self.nperseg = shape.nperseg
        self.hop = shape.hop
        self.padded = shape.padded
        self.register_buffer("taper", torch.tensor(shape.taper()), persistent=False)

    def forward(self, wide: Tensor) -> Tensor:
        refuse_short(wide, self.nperseg)
        if self.padded:
            wide = self.pad(wide)
        frames = wide.unfold(-1, self.nperseg, self.hop)  # (..., T, nperseg), a view
        spectra: Tensor = torch.fft.rfft(frames * self.taper.to(wide.device), dim=-1)  # (..., T, F)
        return spectra.transpose(-1, -2)  # (..., F, T)

    def pad(self, wide: Tensor) -> Tensor:
        """Zeros: half a frame before and behind, then up to a whole frame."""
        half = self.nperseg // 2
        beyond = wide.shape[-1] + 2 * half - self.nperseg  # samples behind the first frame
        rest = (beyond + self.hop - 1) // self.hop * self.hop - beyond
        return functional.pad(wide, [half, half + rest])


def refuse_short(samples: Tensor, nperseg: int) -> None:
    """ValueError where (..., N) samples do not make one frame."""
    if samples.shape[-1] < nperseg:
        raise ValueError(f"{samples.shape[-1]} samples are fewer than one frame of {nperseg}")


class Decibel(Transform):
    """Density of any shape, unit^2/Hz -> -1..1: its decibels, ``floor_db`` 0 and ``ceiling_db`` 1, times its sign."""

    tiniest: Final[float] = TINIEST  # TorchScript sees no globals

    def __init__(self, floor_db: float = -180.0, ceiling_db: float = -60.0) -> None:
        super().__init__()
        shape = SpectrogramShape(floor_db=floor_db, ceiling_db=ceiling_db)  # refuses what cannot be
        self.floor_db = float(shape.floor_db)
        self.ceiling_db = float(shape.ceiling_db)

    def compute(self, wide: Tensor) -> Tensor:
        decibels = 10 * torch.log10(wide.abs().clamp(min=self.tiniest))
        level = (decibels.clamp(self.floor_db, self.ceiling_db) - self.floor_db) / (self.ceiling_db - self.floor_db)
        return torch.copysign(level, wide)


class STFTTransform(Transform):
    """(..., N) samples -> (..., frequencies, frames); frames = 1 + (N - nperseg) // hop.

    By default the magnitude that `scipy.signal.stft` gives with ``boundary=None, padded=False``; with ``padded=True``
    SciPy's own defaults. ``scale``: "magnitude"; "power", its square; "log", ``log1p(gain x |X|)`` of the transform that
    is not scaled; "contrast", that less each frequency's mean over the frames; "decibel", the power spectral density of
    samples in physical units, from 0 (``floor_db``) to 1 (``ceiling_db``), dB of unit^2/Hz at ``sampling_rate_hz``.
    Neither mean nor deviation of the samples is taken off: put `Demean` or `ZScore` before it. At the default frame
    3 x 2080 samples become 3 x 33 x 64. ValueError for fewer samples than one frame.
    """

    density: Tensor
    largest: Final[float] = FLOAT32_LARGEST

    def __init__(
        self,
        nperseg: int = 64,
        hop: int = 32,
        window: str = "hann",
        scale: Scale = "magnitude",
        padded: bool = False,
        *,
        gain: float = 1e5,
        sampling_rate_hz: float = 100.0,
        floor_db: float = -180.0,
        ceiling_db: float = -60.0,
    ) -> None:
        super().__init__()
        if scale not in SCALES.values():
            raise ValueError(f"scale {scale!r} is none of {', '.join(SCALES.values())}")
        shape = SpectrogramShape(nperseg, hop, window, gain, padded, sampling_rate_hz=sampling_rate_hz)
        self.scale = scale
        self.gain = float(gain)
        self.taper_sum = float(shape.taper().sum())
        self.frames = Frames(shape)
        self.decibel = Decibel(floor_db, ceiling_db)
        self.register_buffer("density", _density_weights(shape), persistent=False)

    def compute(self, wide: Tensor) -> Tensor:
        spectra = self.frames(wide)  # (..., F, T) complex
        if self.scale == "decibel":
            power = spectra.real.square() + spectra.imag.square()
            return self.decibel.compute(power * self.density.to(wide.device))
        if self.scale == "log":
            return torch.log1p((self.gain * spectra.abs()).clamp_(max=self.largest).to(torch.float32))
        if self.scale == "contrast":
            level = torch.log1p((self.gain * spectra.abs()).clamp_(max=self.largest))
            return level - level.mean(dim=-1, keepdim=True)
        magnitude: Tensor = spectra.abs() / self.taper_sum
        return magnitude.square() if self.scale == "power" else magnitude


class CrossSpectra(Transform):
    """(..., 3, N) samples of Z, N, E -> (..., 3, frequencies, frames) densities, unit^2/Hz, one-sided.

    The power spectral density of Z, then the real parts of the cross-spectral densities of Z with N and with E, as
    `scipy.signal.csd` defines them. Their signs tell the back-azimuth of a P wave: see `quake.data.spectrogram`.
    ValueError for another number of components or fewer samples than one frame.
    """

    density: Tensor

    def __init__(
        self,
        nperseg: int = 64,
        hop: int = 32,
        window: str = "hann",
        padded: bool = False,
        *,
        sampling_rate_hz: float = 100.0,
    ) -> None:
        super().__init__()
        shape = SpectrogramShape(nperseg, hop, window, padded=padded, sampling_rate_hz=sampling_rate_hz)
        self.frames = Frames(shape)
        self.register_buffer("density", _density_weights(shape), persistent=False)

    def compute(self, wide: Tensor) -> Tensor:
        components = wide.shape[-2] if wide.dim() > 1 else 1
        if components != 3:
            raise ValueError(f"cross-spectra need three components in the order Z, N, E, not {components}")
        spectra: Tensor = self.frames(wide)  # (..., 3, F, T) complex
        vertical = spectra[..., :1, :, :]
        products = vertical.real * spectra.real + vertical.imag * spectra.imag  # real part of conj(Z) times each
        return products * self.density.to(wide.device)


def _density_weights(shape: SpectrogramShape) -> Tensor:
    """(F, 1)."""
    return torch.tensor(shape.density_weights()[:, None])


class Spectrogram(Transform):
    """(..., components, N) samples -> (..., channels, height, width) float32: `quake.data.spectrogram.spectrogram`."""

    largest: Final[float] = FLOAT32_LARGEST

    def __init__(self, shape: SpectrogramShape | None = None) -> None:
        super().__init__()
        shape = shape or SpectrogramShape()
        self.always_float32 = True
        self.nperseg = shape.nperseg
        self.stages = nn.ModuleList(_stages(shape))

    def compute(self, wide: Tensor) -> Tensor:
        refuse_short(wide, self.nperseg)
        image = wide
        for stage in self.stages:
            image = stage.compute(image.to(torch.float64))  # type: ignore[operator]
        if image.dtype == torch.float64:
            image = image.clamp(-self.largest, self.largest)
        return image.contiguous()


def _stages(shape: SpectrogramShape) -> list[Transform]:
    stages = _normalisation(shape.normalisation)
    if shape.taper_fraction > 0:
        stages.append(Taper(shape.taper_fraction))
    stages += _spectra(shape)
    if shape.image_size is not None:
        stages.append(Resize(shape.resized_size or shape.image_size))
        if shape.resized_size is not None:
            stages.append(CenterCrop(shape.image_size))
    if shape.image_normalisation == "imagenet":
        stages.append(ImageNetNormalize())
    return stages


def _normalisation(name: Normalisation) -> list[Transform]:
    if name == "none":
        return [Finite()]
    if name == "demean":
        return [Demean()]
    if name == "zscore_difference":
        return [Difference(), ZScore()]
    return [ZScore("window" if name == "zscore_window" else "component")]


def _spectra(shape: SpectrogramShape) -> list[Transform]:
    frame = (shape.nperseg, shape.hop, shape.window)
    rate = shape.sampling_rate_hz
    if shape.representation == "cross_decibel":
        return [CrossSpectra(*frame, shape.padded, sampling_rate_hz=rate), Decibel(shape.floor_db, shape.ceiling_db)]
    scale = SCALES[shape.representation]
    return [
        STFTTransform(
            *frame,
            scale,
            shape.padded,
            gain=shape.gain,
            sampling_rate_hz=rate,
            floor_db=shape.floor_db,
            ceiling_db=shape.ceiling_db,
        )
    ]
