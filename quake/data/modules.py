"""Torch modules that keep samples samples and images images: tensors of arrays, means, deviations, tapers, sizes.

The plainer part of `quake.data.transforms`; import from there, its docstring says what all modules share.
"""

import math
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor, nn

from quake.data.image import IMAGENET_DEVIATION, IMAGENET_MEAN
from quake.data.spectrogram import LARGEST, SpectrogramShape


def as_tensor(samples: Any) -> Tensor:
    """An array of real numbers or a tensor -> a tensor; a tensor is handed on as it is. ValueError for other types."""
    if isinstance(samples, Tensor):
        return samples
    if np.ma.is_masked(samples):
        raise ValueError("samples are masked: fill the gaps first")
    array = np.asarray(samples)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"samples must be real numbers, not {array.dtype}")
    native = np.float64 if array.dtype.itemsize > 8 else array.dtype.newbyteorder("=")  # records are often big-endian
    return torch.from_numpy(np.require(array, native, ["C", "W"]))  # torch warns of memory that is read-only


class Transform(nn.Module):
    """What all modules share: arrays become tensors, arithmetic is float64, types survive. Subclasses `compute`."""

    def __init__(self) -> None:
        super().__init__()
        self.always_float32 = False

    def forward(self, samples: Tensor) -> Tensor:
        # mypy finds the name missing in torch.jit's list, and TorchScript reads no other name.
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            samples = as_tensor(samples)
        keep = samples.is_floating_point() and not self.always_float32
        dtype = samples.dtype if keep else torch.float32
        return self.compute(samples.to(torch.float64)).to(dtype)

    def compute(self, wide: Tensor) -> Tensor:
        """float64 -> float64, or float32 where no more is known."""
        raise NotImplementedError


class ToTensor(Transform):
    """Array or tensor of any shape -> float32 tensor of that shape."""

    def __init__(self) -> None:
        super().__init__()
        self.always_float32 = True

    def compute(self, wide: Tensor) -> Tensor:
        return wide


class Demean(Transform):
    """(..., N) -> (..., N) less the mean of the last axis.

    Zeros for a component that does not vary, that holds NaN or infinity, or whose range is beyond
    `quake.data.spectrogram.LARGEST`.
    """

    largest: Final[float] = LARGEST  # TorchScript sees no globals

    def compute(self, wide: Tensor) -> Tensor:
        spread = wide.amax(dim=-1, keepdim=True) - wide.amin(dim=-1, keepdim=True)  # (..., 1)
        varies = (spread > 0) & (spread < self.largest)  # neither holds for NaN
        return torch.where(varies, wide - wide.mean(dim=-1, keepdim=True), 0.0)


class Difference(Transform):
    """(..., N) -> (..., N) half of each sample less the one before, the first 0. Zeros where `Demean` gives zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.demean = Demean()

    def compute(self, wide: Tensor) -> Tensor:
        centred = 0.5 * self.demean.compute(wide)
        return torch.diff(centred, dim=-1, prepend=centred[..., :1])


class ZScore(Transform):
    """(..., N) -> (..., N) less the mean, divided by the standard deviation (of the population, not the sample).

    ``per``: "component", each by its own; "window", the last two axes by one, which keeps the ratios of components.
    Zeros where `Demean` gives zeros.
    """

    def __init__(self, per: Literal["component", "window"] = "component") -> None:
        super().__init__()
        if per not in {"component", "window"}:
            raise ValueError(f"per {per!r} is none of component, window")
        self.together = per == "window"
        self.demean = Demean()

    def compute(self, wide: Tensor) -> Tensor:
        centred = self.demean.compute(wide)
        axes = [-2, -1] if self.together and wide.dim() > 1 else [-1]
        deviation = centred.square().mean(dim=axes, keepdim=True).sqrt()  # (..., 1) or (..., 1, 1)
        return centred / torch.where(deviation > 0, deviation, 1.0)


class Finite(Transform):
    """(..., N) -> (..., N) as it is, but zeros for a component with NaN, infinity or a value beyond LARGEST."""

    largest: Final[float] = LARGEST

    def compute(self, wide: Tensor) -> Tensor:
        usable = (wide.abs() < self.largest).all(dim=-1, keepdim=True)  # (..., 1)
        return torch.where(usable, wide, 0.0)


class Taper(Transform):
    """(..., N) -> (..., N) under a Tukey window, `scipy.signal.windows.tukey`.

    ``fraction``: share of the samples, both ends together, that a cosine lets down to zero.
    """

    def __init__(self, fraction: float) -> None:
        super().__init__()
        self.fraction = float(SpectrogramShape(taper_fraction=fraction).taper_fraction)  # refuses what cannot be

    def compute(self, wide: Tensor) -> Tensor:
        last = wide.shape[-1] - 1
        if self.fraction == 0.0 or last < 1:
            return wide
        indices = torch.arange(last + 1, dtype=torch.float64, device=wide.device)
        to_end = torch.minimum(indices, last - indices)  # (N,) samples to the nearer end
        inside = (2 * to_end / (self.fraction * last)).clamp(max=1.0)  # 0 at the end, 1 where the cosine is over
        return wide * (0.5 * (1 - torch.cos(math.pi * inside)))


def resize_weights(length: int, size: int, device: torch.device) -> Tensor:
    """(size, length) float64: `quake.data.image.resize_weights`, in what TorchScript can compile."""
    scale = length / size
    middles = (torch.arange(size, dtype=torch.float64, device=device) + 0.5) * scale
    pixels = torch.arange(length, dtype=torch.float64, device=device) + 0.5
    weights = (1 - (pixels - middles.unsqueeze(1)).abs() / max(scale, 1.0)).clamp(min=0.0)
    return weights / weights.sum(dim=1, keepdim=True)


class Resize(Transform):
    """(..., H, W) -> (..., height, width), bilinear, antialiased where an axis shrinks. ``size``: (height, width)."""

    def __init__(self, size: tuple[int, int] = (224, 224)) -> None:
        super().__init__()
        SpectrogramShape(image_size=size)  # refuses what cannot be
        self.height, self.width = size

    def compute(self, wide: Tensor) -> Tensor:
        rows = resize_weights(wide.shape[-2], self.height, wide.device) @ wide  # (..., height, W)
        return rows @ resize_weights(wide.shape[-1], self.width, wide.device).T  # (..., height, width)


class CenterCrop(Transform):
    """(..., H, W) -> (..., height, width), the middle. ``size``: (height, width). ValueError for smaller images."""

    def __init__(self, size: tuple[int, int] = (224, 224)) -> None:
        super().__init__()
        SpectrogramShape(image_size=size)  # refuses what cannot be
        self.height, self.width = size

    def compute(self, wide: Tensor) -> Tensor:
        if wide.shape[-2] < self.height or wide.shape[-1] < self.width:
            raise ValueError(f"{self.height} x {self.width} cannot be cut out of {wide.shape[-2]} x {wide.shape[-1]}")
        top, left = middle(wide.shape[-2], self.height), middle(wide.shape[-1], self.width)
        return wide[..., top : top + self.height, left : left + self.width]


def middle(length: int, size: int) -> int:
    """`quake.data.image.middle`, in what TorchScript can compile."""
    spare = length - size
    return spare // 2 + int(spare % 4 == 3)


class ImageNetNormalize(Transform):
    """(..., 3, H, W) -> (..., 3, H, W) each channel less ImageNet's mean, divided by its standard deviation."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", _channels(IMAGENET_MEAN), persistent=False)
        self.register_buffer("deviation", _channels(IMAGENET_DEVIATION), persistent=False)

    def compute(self, wide: Tensor) -> Tensor:
        channels = wide.shape[-3] if wide.dim() > 2 else 1
        if channels != 3:
            raise ValueError(f"imagenet needs three channels, not {channels}")
        return (wide - self.mean.to(wide.device)) / self.deviation.to(wide.device)


def _channels(values: tuple[float, ...]) -> Tensor:
    """(C,) -> (C, 1, 1)."""
    return torch.tensor(values, dtype=torch.float64)[:, None, None]
