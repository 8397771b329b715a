"""The spectrogram: against SciPy, torch against NumPy, and what is not a signal."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.signal
import torch

from quake.data.spectrogram import SpectrogramShape, spectrogram, standardise, stft_magnitude
from quake.data.transforms import Spectrogram

SHAPE = SpectrogramShape()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_window_of_the_detector_has_the_designs_shape() -> None:
    image = spectrogram(noise(2, 3, 2080))
    assert image.shape == (2, 3, 33, 64)
    assert image.dtype == np.float32
    assert SHAPE.frames(2080) == 64
    assert SHAPE.frames(2080 + 31) == 64  # no padding: a last frame that is not full is none
    assert spectrogram(noise(2080)).shape == (33, 64)


@pytest.mark.parametrize(("nperseg", "hop"), [(64, 32), (64, 16), (50, 25)])
def test_magnitudes_are_scipys(nperseg: int, hop: int) -> None:
    samples = noise(3, 2080).astype(np.float64)
    shape = SpectrogramShape(nperseg=nperseg, hop=hop)
    taper = scipy.signal.get_window("hann", nperseg)
    _, _, expected = scipy.signal.stft(
        samples, window=taper, nperseg=nperseg, noverlap=nperseg - hop, boundary=None, padded=False
    )
    magnitude = stft_magnitude(samples, shape)
    np.testing.assert_allclose(magnitude, np.abs(expected) * taper.sum(), rtol=0, atol=1e-5 * magnitude.max())


def test_torch_is_held_to_numpy() -> None:
    windows = noise(5, 3, 2080) * np.float32([1e-9, 1, 1e3, 1e7, 1])[:, None, None] + np.float32(1e4)
    windows[4, 1:] = 0
    expected = spectrogram(windows)
    scripted = torch.jit.script(Spectrogram())
    for module in (Spectrogram(), scripted):
        image = module(torch.from_numpy(windows)).numpy()
        assert image.dtype == np.float32
        np.testing.assert_allclose(image, expected, rtol=0, atol=1e-6 * expected.max())


@pytest.mark.parametrize("value", [0.0, 1.0, -123456.7, 2.0**31])
def test_a_component_that_does_not_vary_is_zeros_and_leaves_the_others_alone(value: float) -> None:
    whole, part = noise(3, 2080), noise(3, 2080)
    part[1:] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = spectrogram(part)
    assert (image[1:] == 0).all()
    np.testing.assert_array_equal(image[0], spectrogram(whole)[0])
    assert (Spectrogram()(torch.from_numpy(part)[None]).numpy()[0, 1:] == 0).all()


def test_neither_offset_nor_gain_nor_polarity_shows() -> None:
    window = noise(3, 2080).astype(np.float64)
    np.testing.assert_allclose(spectrogram(-1e6 * window + 3e7), spectrogram(window), atol=2e-5)


def test_standardised_components_have_mean_0_and_deviation_1() -> None:
    standard = standardise(noise(4, 3, 2080) * 7 + 3)
    np.testing.assert_allclose(standard.mean(axis=-1), 0, atol=1e-12)
    np.testing.assert_allclose(standard.std(axis=-1), 1, atol=1e-12)


def test_extreme_samples_give_no_nan() -> None:
    window = noise(3, 2080)
    window[0] *= 1e38 / np.abs(window[0]).max()
    window[1] *= 1e-40
    assert np.isfinite(spectrogram(window)).all()


def test_a_weak_signal_under_strong_microseism_still_shows() -> None:
    times = np.arange(2080) / 100
    window = np.sin(2 * np.pi * 0.2 * times) + 1e-4 * noise(2080)
    window[1500:] += 2e-3 * np.sin(2 * np.pi * 12 * times[1500:])
    image = spectrogram(window)
    assert image[8, 50:].mean() > image[8, :40].mean() + 1


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="63 samples are fewer than one frame of 64"):
        spectrogram(noise(3, 63))
    with pytest.raises(ValueError, match="hop 0"):
        SpectrogramShape(hop=0)
    with pytest.raises(ValueError, match="gain 0"):
        SpectrogramShape(gain=0.0)
