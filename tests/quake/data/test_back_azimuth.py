"""What the signs of cross-spectra tell: plane waves from eight directions, as a three-component station sees them."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch

from quake.data.spectrogram import SpectrogramShape, spectrogram
from quake.data.transforms import CrossSpectra

RATE_HZ = 100.0
SAMPLES = 2080
SECTORS = {"N": 0, "NE": 45, "E": 90, "SE": 135, "S": 180, "SW": 225, "W": 270, "NW": 315}
SIGNS = {
    "N": (-1, 0),
    "NE": (-1, -1),
    "E": (0, -1),
    "SE": (1, -1),
    "S": (1, 0),
    "SW": (1, 1),
    "W": (0, 1),
    "NW": (-1, 1),
}
"""Of Z-N and Z-E; 0: far below Z's own density."""
INCIDENCE_DEGREES = 35
"""Of the ray at the surface, from the vertical."""


def wavelet(frequency_hz: float) -> np.ndarray:
    """(SAMPLES,) micrometres a second: a short oscillation in the middle of the window."""
    times = (np.arange(SAMPLES) - SAMPLES // 2) / RATE_HZ
    return 1e-6 * np.exp(-((times / 0.8) ** 2)) * np.sin(2 * np.pi * frequency_hz * times)


def p_wave(back_azimuth: float, polarity: int, noise: float = 1e-9) -> np.ndarray:
    """(3, SAMPLES) of Z, N, E in m/s: motion along the ray, up and away from the source where the polarity is 1."""
    azimuth, incidence = np.radians(back_azimuth + 180), np.radians(INCIDENCE_DEGREES)
    ray = np.array([np.cos(incidence), np.sin(incidence) * np.cos(azimuth), np.sin(incidence) * np.sin(azimuth)])
    generator = np.random.default_rng(int(back_azimuth))
    return polarity * ray[:, None] * wavelet(5.0) + noise * generator.standard_normal((3, SAMPLES))


@pytest.mark.parametrize("normalisation", ["none", "demean", "zscore_window"])
@pytest.mark.parametrize("polarity", [1, -1])
@pytest.mark.parametrize("sector", SECTORS)
def test_signs_of_the_image_tell_the_sector(sector: str, polarity: int, normalisation: str) -> None:
    shape = SpectrogramShape(
        normalisation=normalisation,
        representation="cross_decibel",
        floor_db=-180.0 if normalisation != "zscore_window" else -60.0,
        ceiling_db=-60.0 if normalisation != "zscore_window" else 60.0,
    )
    vertical, *crossed = spectrogram(p_wave(SECTORS[sector], polarity), shape)  # (F, T) each
    loudest = np.unravel_index(vertical.argmax(), vertical.shape)
    for image, sign in zip(crossed, SIGNS[sector], strict=True):
        if sign:
            assert np.sign(image[loudest]) == sign
            assert abs(image[loudest]) > vertical[loudest] - 0.1  # within 12 dB of Z's own
        else:
            assert abs(image[loudest]) < vertical[loudest] - 0.15


@pytest.mark.parametrize("back_azimuth", range(0, 360, 15))
def test_cross_spectra_give_the_back_azimuth_itself(back_azimuth: int) -> None:
    _, z_n, z_e = CrossSpectra(sampling_rate_hz=RATE_HZ)(p_wave(back_azimuth, -1)).sum(dim=(-2, -1))
    estimated = torch.rad2deg(torch.atan2(-z_e, -z_n))
    assert abs((float(estimated) - back_azimuth + 180) % 360 - 180) < 1


def test_components_scaled_one_by_one_keep_the_signs() -> None:
    image = spectrogram(p_wave(225, 1), SpectrogramShape(representation="cross_decibel", floor_db=-60, ceiling_db=60))
    row, frame = np.unravel_index(image[0].argmax(), image[0].shape)
    np.testing.assert_allclose(image[1:, row, frame], image[0, row, frame], atol=0.01)


def test_a_rayleigh_wave_leaves_nothing() -> None:
    vertical = wavelet(2.0)
    radial = np.imag(scipy.signal.hilbert(vertical))  # a quarter of a period off
    power, z_n, _ = CrossSpectra()(np.stack([vertical, -radial, 0 * radial])).sum(dim=(-2, -1))
    assert abs(float(z_n)) < 0.02 * float(power)
