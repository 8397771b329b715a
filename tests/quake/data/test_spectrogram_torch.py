"""The torch spectrogram held to the NumPy definition: every combination, eager and scripted."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quake.data.spectrogram import FLOAT32_LARGEST, SpectrogramShape, spectrogram
from quake.data.transforms import Spectrogram

NORMALISATIONS = ("none", "demean", "zscore_component", "zscore_difference", "zscore_window")
REPRESENTATIONS = ("log1p_magnitude", "log1p_contrast", "magnitude", "power", "decibel", "cross_decibel")
COMBINATIONS = list(itertools.product(NORMALISATIONS, REPRESENTATIONS))
OFFSET = 1e3
"""Largest mean, in standard deviations: 1e-6 of scale must stand above float64's rounding of it under a gain of 1e5."""


def held(image: torch.Tensor, expected: np.ndarray) -> None:
    """Within 1e-6 of scale."""
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    np.testing.assert_allclose(image.numpy(), expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@st.composite
def shapes(draw: st.DrawFn, amplitude: float) -> SpectrogramShape:
    """Any shape whose gain and levels suit signals of this amplitude."""
    normalisation = draw(st.sampled_from(NORMALISATIONS))
    scale = 1.0 if normalisation.startswith("zscore") else amplitude
    floor = 20 * np.log10(scale) - draw(st.floats(20, 160))
    size = draw(st.none() | st.tuples(st.integers(1, 50), st.integers(1, 50)))
    spare = draw(st.none() | st.tuples(st.integers(0, 9), st.integers(0, 9)))
    return SpectrogramShape(
        nperseg=draw(st.integers(2, 70)),
        hop=draw(st.integers(1, 80)),
        window=draw(st.sampled_from(["hann", "hamming", "boxcar", "blackman"])),
        gain=10 ** draw(st.floats(-1, 5)) / scale,
        padded=draw(st.booleans()),
        taper_fraction=draw(st.sampled_from([0.0, 0.1, 1.0])),
        normalisation=normalisation,
        representation=draw(st.sampled_from(REPRESENTATIONS)),
        sampling_rate_hz=draw(st.floats(1, 1000)),
        floor_db=floor,
        ceiling_db=floor + draw(st.floats(20, 200)),
        image_size=size,
        resized_size=(size[0] + spare[0], size[1] + spare[1]) if size and spare else None,
        image_normalisation=draw(st.sampled_from(["none", "imagenet"])),
    )


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_any_shape_any_length_any_type(data: st.DataObject) -> None:
    amplitude = 10 ** data.draw(st.floats(-6, 6), "log amplitude")
    shape = data.draw(shapes(amplitude))
    samples = data.draw(st.integers(shape.nperseg, 400), "samples")
    leading = data.draw(st.sampled_from([(), (1,), (4,), (2, 3)]), "leading")
    generator = np.random.default_rng(data.draw(st.integers(0, 99), "seed"))
    windows = amplitude * generator.standard_normal((*leading, 3, samples))
    windows += amplitude * data.draw(st.floats(-OFFSET, OFFSET), "offset")
    windows[..., 1, :] *= data.draw(st.sampled_from([0, 1e-3, 1]), "gain of N")
    windows = windows.astype(data.draw(st.sampled_from([np.int32, np.float32, np.float64]), "type"))
    expected = spectrogram(windows, shape)
    assert expected.shape == (*leading, *shape.input_shape(3, samples))
    assert np.isfinite(expected).all()
    held(Spectrogram(shape)(torch.from_numpy(windows)), expected)


def combination(normalisation: str, representation: str) -> dict[str, Any]:
    """With all that a module does beside."""
    return {
        "normalisation": normalisation,
        "representation": representation,
        "padded": normalisation == "demean",
        "taper_fraction": 0.1,
        "image_size": (40, 30),
        "resized_size": (45, 37) if normalisation == "none" else None,
        "image_normalisation": "imagenet",
        "ceiling_db": 20.0,
    }


@pytest.mark.parametrize(("normalisation", "representation"), COMBINATIONS)
def test_scripted_combinations(normalisation: str, representation: str) -> None:
    shape = SpectrogramShape(**combination(normalisation, representation))
    scripted = torch.jit.script(Spectrogram(shape))
    generator = np.random.default_rng(1)
    for dtype, leading in ((np.float32, (2,)), (np.float64, ()), (np.int32, (1, 2))):
        windows = (100 * generator.standard_normal((*leading, 3, 700)) + 1e4).astype(dtype)
        held(scripted(torch.from_numpy(windows)), spectrogram(windows, shape))


def test_the_detectors_window() -> None:
    windows = np.random.default_rng(0).standard_normal((5, 3, 2080)).astype(np.float32)
    windows = windows * np.float32([1e-9, 1, 1e3, 1e7, 1])[:, None, None] + np.float32(1e4)
    windows[4, 1:] = 0
    expected = spectrogram(windows)
    for module in (Spectrogram(), torch.jit.script(Spectrogram())):
        held(module(torch.from_numpy(windows)), expected)
    held(Spectrogram()(windows), expected)


@pytest.mark.parametrize("offset", [1e9, -1e9])
@pytest.mark.parametrize("dtype", [np.int32, np.float64])
def test_an_offset_of_a_thousand_million(offset: float, dtype: type) -> None:
    windows = (1e6 * np.random.default_rng(0).standard_normal((3, 2080)) + offset).astype(dtype)
    for normalisation in NORMALISATIONS:
        shape = SpectrogramShape(normalisation=normalisation)
        held(Spectrogram(shape)(torch.from_numpy(windows)), spectrogram(windows, shape))


@pytest.mark.parametrize(("normalisation", "representation"), COMBINATIONS)
@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -np.inf, 1e140, 1e300])
def test_a_component_that_is_missing(normalisation: str, representation: str, value: float) -> None:
    windows = np.random.default_rng(0).standard_normal((3, 640))
    windows[1] = value
    for shape in (
        SpectrogramShape(normalisation=normalisation, representation=representation, window="boxcar"),
        SpectrogramShape(**combination(normalisation, representation)),
    ):
        image = Spectrogram(shape)(torch.from_numpy(windows))
        held(image, spectrogram(windows, shape))
        assert image.isfinite().all()


@pytest.mark.parametrize(("normalisation", "representation"), COMBINATIONS[len(REPRESENTATIONS) :])
def test_a_component_that_is_stuck(normalisation: str, representation: str) -> None:
    windows = np.random.default_rng(0).standard_normal((3, 640))
    windows[1] = -123456.7
    shape = SpectrogramShape(normalisation=normalisation, representation=representation)
    image = Spectrogram(shape)(windows)
    held(image, spectrogram(windows, shape))
    assert not image[1].any()


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_the_largest_samples_saturate(representation: str) -> None:
    windows = np.random.default_rng(0).choice([-9e139, 9e139], (3, 640))
    shape = SpectrogramShape(normalisation="none", representation=representation, image_size=(20, 30))
    image = Spectrogram(shape)(windows)
    held(image, spectrogram(windows, shape))
    assert image.max() == FLOAT32_LARGEST or representation not in {"magnitude", "power"}
