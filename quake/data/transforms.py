"""The spectrogram as torch modules: the definition of `quake.data.spectrogram`, on a device and scriptable.

Held to the NumPy definition within 1e-6 of scale by the tests. What is not here: augmentation (the trainer's),
resampling.
"""

import torch
from torch import Tensor, nn

from quake.data.spectrogram import SpectrogramShape


class Spectrogram(nn.Module):
    """(B, C, N) samples -> (B, C, frequencies, frames) float32 ``log1p(gain x |STFT|)`` of standardised components.

    A component that does not vary gives zeros. Input finite; float32 or float64, inside all is float64.
    """

    taper: Tensor  # declared for mypy; TorchScript resolves it because this file does not postpone annotations

    def __init__(self, shape: SpectrogramShape | None = None) -> None:
        super().__init__()
        shape = shape or SpectrogramShape()
        self.nperseg = shape.nperseg
        self.hop = shape.hop
        self.gain = shape.gain
        self.register_buffer("taper", torch.from_numpy(shape.taper()), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        wide = samples.to(torch.float64)
        varies = wide.amax(dim=-1, keepdim=True) > wide.amin(dim=-1, keepdim=True)  # (B, C, 1)
        centred = wide - wide.mean(dim=-1, keepdim=True)
        deviation = centred.square().mean(dim=-1, keepdim=True).sqrt()
        deviation = torch.where(varies & (deviation > 0), deviation, torch.ones_like(deviation))
        standard = torch.where(varies, centred, torch.zeros_like(centred)) / deviation
        frames = standard.unfold(-1, self.nperseg, self.hop)  # (B, C, T, nperseg), a view
        spectra = torch.fft.rfft(frames * self.taper, dim=-1)  # (B, C, T, F)
        magnitude = (self.gain * spectra.abs()).to(torch.float32)
        return torch.log1p(magnitude).transpose(-1, -2).contiguous()  # (B, C, F, T)
