"""The spectrogram's NumPy definition: against SciPy, and what is not a signal."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import scipy.signal
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from quake.data.spectrogram import LARGEST, SpectrogramShape, contrast, demean, spectrogram, standardise, stft

SHAPE = SpectrogramShape()
RAW = SpectrogramShape(normalisation="none", representation="magnitude")


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_window_of_the_detector_has_the_designs_shape() -> None:
    image = spectrogram(noise(2, 3, 2080))
    assert image.shape == (2, 3, 33, 64)
    assert image.dtype == np.float32
    assert SHAPE.frames(2080) == 64
    assert SHAPE.frames(2080 + 31) == 64  # no padding: a last frame that is not full is none
    assert spectrogram(noise(2080)).shape == (33, 64)


def test_contrast_is_that_of_log1p() -> None:
    magnitude = 10.0 ** np.random.default_rng(0).uniform(-18, 12, (33, 64))
    level = np.log1p(magnitude)
    np.testing.assert_allclose(contrast(magnitude), level - level.mean(axis=-1, keepdims=True), rtol=0, atol=2e-14)


@pytest.mark.parametrize("nperseg", [2, 3, 16, 63, 64, 100, 256, 1000])
def test_tapers_are_scipys_to_the_last_bit(nperseg: int) -> None:
    for window in ("hann", "hamming"):
        made = SpectrogramShape(nperseg=nperseg, window=window).taper()
        assert np.array_equal(made, scipy.signal.get_window(window, nperseg))


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("nperseg", "hop", "length"), [(64, 32, 2080), (64, 16, 2081), (50, 25, 777), (63, 20, 63)])
def test_magnitude_and_power_are_scipys(nperseg: int, hop: int, length: int, padded: bool) -> None:
    samples = noise(2, 3, length)
    boundary = "zeros" if padded else None
    _, _, expected = scipy.signal.stft(
        samples, nperseg=nperseg, noverlap=nperseg - hop, boundary=boundary, padded=padded
    )
    for representation, power in (("magnitude", 1), ("power", 2)):
        shape = SpectrogramShape(nperseg, hop, padded=padded, normalisation="none", representation=representation)
        image = spectrogram(samples, shape)
        assert image.shape[1:] == shape.input_shape(3, length)
        np.testing.assert_allclose(image, np.abs(expected) ** power, rtol=0, atol=1e-5 * image.max())


@pytest.mark.parametrize(("nperseg", "window"), [(64, "hann"), (63, "hamming"), (2, "boxcar")])
def test_decibels_are_scipys_density(nperseg: int, window: str) -> None:
    samples = 1e-5 * noise(3, 2080).astype(np.float64) + 3e-6
    shape = SpectrogramShape(
        nperseg, 20, window, normalisation="none", representation="decibel", sampling_rate_hz=40, floor_db=-150
    )
    _, _, density = scipy.signal.spectrogram(
        samples, fs=40, window=window, nperseg=nperseg, noverlap=nperseg - 20, detrend=False
    )
    expected = np.clip((10 * np.log10(density) + 150) / (-60 + 150), 0, 1)
    np.testing.assert_allclose(spectrogram(samples, shape), expected, rtol=0, atol=1e-5)
    assert 0.1 < np.median(expected) < 0.9  # neither at the floor nor at the ceiling


def test_cross_decibels_are_scipys_cross_density_with_its_sign() -> None:
    samples = 1e-6 * noise(3, 64).astype(np.float64)
    image = spectrogram(samples, SpectrogramShape(normalisation="none", representation="cross_decibel"))
    for channel in range(3):
        _, density = scipy.signal.csd(samples[0], samples[channel], fs=100, nperseg=64, detrend=False)
        level = (10 * np.log10(np.abs(density.real)) + 180) / 120
        np.testing.assert_allclose(image[channel, :, 0], np.sign(density.real) * level, rtol=0, atol=1e-5)
    assert (image[0] > 0).all()
    assert (image[1:] < 0).any()


@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.0])
def test_the_taper_is_a_tukey_window_on_the_normalised_signal(fraction: float) -> None:
    samples = noise(3, 500) + np.float32(1e4)
    tapered = scipy.stats.zscore(samples.astype(np.float64), axis=-1) * scipy.signal.windows.tukey(500, fraction)
    shape = SpectrogramShape(taper_fraction=fraction, representation="magnitude")
    np.testing.assert_allclose(spectrogram(samples, shape), spectrogram(tapered, RAW), atol=1e-6)


def test_one_deviation_for_the_window_keeps_the_ratios_of_the_components() -> None:
    samples = noise(2, 3, 2080) * np.float32([1, 10, 100])[:, None] + np.float32(1e5)
    samples[1] *= 1e-9
    centred = samples - samples.mean(axis=-1, keepdims=True, dtype=np.float64)
    together = standardise(samples, together=True)
    for window in (0, 1):
        np.testing.assert_allclose(together[window], scipy.stats.zscore(centred[window], axis=None), atol=1e-9)
    shape = SpectrogramShape(normalisation="zscore_window", representation="magnitude")
    np.testing.assert_allclose(spectrogram(samples, shape), spectrogram(together, RAW), atol=1e-6)
    np.testing.assert_allclose(together.std(axis=-1)[0, 1:] / together.std(axis=-1)[0, :-1], 10, rtol=0.05)
    np.testing.assert_array_equal(standardise(samples[0, 0], together=True), standardise(samples[0, 0]))


@settings(deadline=None)
@given(nperseg=st.integers(2, 80), share=st.floats(0, 1), length=st.integers(2, 400), padded=st.booleans())
def test_frames_are_as_many_as_scipys(nperseg: int, share: float, length: int, padded: bool) -> None:
    nperseg = min(nperseg, length)
    hop = 1 + int(share * (nperseg - 1))
    shape = SpectrogramShape(nperseg, hop, "boxcar", padded=padded)
    expected = scipy.signal.stft(
        np.ones(length),
        window="boxcar",
        nperseg=nperseg,
        noverlap=nperseg - hop,
        boundary="zeros" if padded else None,
        padded=padded,
    )[2].shape
    assert shape.input_shape(1, length)[1:] == (shape.frequencies, shape.frames(length)) == expected
    assert spectrogram(np.ones(length), shape).shape == expected
    assert padded or shape.frames(length) == 1 + (length - nperseg) // hop


@pytest.mark.parametrize("value", [0.0, 1.0, -123456.7, 2.0**31])
def test_a_component_that_does_not_vary_is_zeros_and_leaves_the_others_alone(value: float) -> None:
    whole, part = noise(3, 2080), noise(3, 2080)
    part[1:] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = spectrogram(part)
    assert (image[1:] == 0).all()
    np.testing.assert_array_equal(image[0], spectrogram(whole)[0])


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


def test_contrast_is_what_changes_within_the_window() -> None:
    samples = noise(3, 2080) * np.array([[1.0], [30.0], [1e-3]])
    shape = SpectrogramShape(representation="log1p_contrast")
    level = spectrogram(samples).astype(np.float64)
    np.testing.assert_allclose(spectrogram(samples, shape), level - level.mean(axis=-1, keepdims=True), atol=2e-6)


def test_differences_are_standardised_one_by_one() -> None:
    samples = noise(3, 640).astype(np.float64) * np.array([[1.0], [10.0], [0.0]])
    shape = SpectrogramShape(normalisation="zscore_difference", representation="magnitude")
    differences = np.concatenate([np.zeros((3, 1)), samples[:, 1:] - samples[:, :-1]], axis=1)
    expected = np.nan_to_num(scipy.stats.zscore(differences, axis=-1))
    np.testing.assert_allclose(spectrogram(samples, shape), spectrogram(expected, RAW), atol=1e-6)


def test_differences_keep_a_strong_drift_out_of_the_frequencies_of_p() -> None:
    seconds = np.arange(2080) / 100
    small = noise(3, 2080).astype(np.float64)
    drifting = small + 1e6 * np.sin(2 * np.pi * 0.02 * seconds)

    def changed(how: str) -> float:
        shape = SpectrogramShape(normalisation=how, representation="log1p_contrast")  # type: ignore[arg-type]
        band = np.s_[:, 3:]  # from 4.7 Hz
        return float(np.median(np.abs(spectrogram(drifting, shape) - spectrogram(small, shape))[band]))

    assert changed("zscore_difference") < 0.1
    assert changed("zscore_component") > 0.4


def test_contrast_does_not_know_the_colour_of_the_noise() -> None:
    white = noise(3, 2080)
    filtered = scipy.signal.lfilter([1.0], [1.0, -0.9], white, axis=-1)  # 26 dB stronger at 0 Hz than at 50 Hz
    shape = SpectrogramShape(representation="log1p_contrast")
    plain, coloured = spectrogram(white, shape)[:, 1:-1], spectrogram(filtered, shape)[:, 1:-1]
    assert np.median(np.abs(plain - coloured)) < 0.1
    assert np.median(np.abs(spectrogram(white) - spectrogram(filtered))[:, 1:-1]) > 0.5


SHAPES = [
    SpectrogramShape(normalisation=normalisation, representation=representation, image_size=(20, 90))
    for normalisation in ("none", "demean", "zscore_component", "zscore_difference", "zscore_window")
    for representation in ("log1p_magnitude", "log1p_contrast", "magnitude", "power", "decibel", "cross_decibel")
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.normalisation}-{shape.representation}")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2 * LARGEST])
def test_a_component_that_is_not_finite_is_missing_and_leaves_the_others_alone(
    shape: SpectrogramShape, value: float
) -> None:
    missing = noise(3, 640).astype(np.float64)
    missing[1] = 0
    broken = missing.copy()
    broken[1] = noise(640, seed=2)
    broken[1, 17] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(spectrogram(broken, shape), spectrogram(missing, shape))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.normalisation}-{shape.representation}")
def test_the_largest_samples_saturate_and_never_become_nan(shape: SpectrogramShape) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = spectrogram(0.4 * LARGEST * np.sign(noise(3, 640)).astype(np.float64), shape)
    assert np.isfinite(image).all()
    saturates_throughout = (shape.normalisation, shape.representation) in {
        ("none", "log1p_contrast"),
        ("demean", "log1p_contrast"),
    }
    assert (image != 0).any() != saturates_throughout


def test_integers_over_their_whole_range_vary() -> None:
    samples = np.zeros((3, 2080), np.int32)
    samples[:, ::2], samples[:, 1::3] = np.iinfo(np.int32).min, np.iinfo(np.int32).max
    np.testing.assert_array_equal(spectrogram(samples), spectrogram(samples.astype(np.float64)))
    assert demean(samples).any()


def test_a_component_that_does_not_vary_is_zero_whatever_it_becomes() -> None:
    samples = np.full((3, 640), -7.7)
    for shape in SHAPES:
        if shape.normalisation != "none":
            assert not spectrogram(samples, shape).any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hop": 0}, "hop 0"),
        ({"nperseg": 1}, "nperseg 1"),
        ({"gain": 0.0}, "gain 0"),
        ({"gain": np.inf}, "gain inf"),
        ({"window": "gauss"}, "window 'gauss'"),
        ({"window": "nobody"}, "window 'nobody'"),
        ({"taper_fraction": 1.1}, "taper_fraction 1.1"),
        ({"taper_fraction": np.nan}, "taper_fraction nan"),
        ({"normalisation": "zscore"}, "normalisation 'zscore' is none of none, demean"),
        ({"representation": "db"}, "representation 'db' is none of log1p_magnitude"),
        ({"image_normalisation": "coco"}, "image_normalisation 'coco' is none of none, imagenet"),
        ({"sampling_rate_hz": 0}, "sampling_rate_hz 0"),
        ({"floor_db": -60.0}, "floor_db -60.0 is not below ceiling_db -60.0"),
        ({"ceiling_db": np.inf}, "ceiling_db inf"),
        ({"image_size": (0, 224)}, r"image_size \(0, 224\)"),
        ({"image_size": (224,)}, r"image_size \(224,\)"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpectrogramShape(**fields)


@pytest.mark.parametrize("shape", [SHAPE, SpectrogramShape(padded=True), SpectrogramShape(image_size=(8, 8))])
@pytest.mark.parametrize("length", [0, 63])
def test_windows_shorter_than_a_frame_are_refused(shape: SpectrogramShape, length: int) -> None:
    with pytest.raises(ValueError, match=f"^{length} samples are fewer than one frame of 64$"):
        spectrogram(noise(3, length), shape)


@pytest.mark.parametrize("samples", [noise(2, 2080), noise(2080), noise(3, 4, 2080)])
def test_what_needs_three_components_refuses_others(samples: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"cross_decibel needs three components in the order Z, N, E, not [124]"):
        spectrogram(samples, SpectrogramShape(representation="cross_decibel"))
    with pytest.raises(ValueError, match=r"imagenet needs three components, not [124]"):
        spectrogram(samples, SpectrogramShape(image_normalisation="imagenet"))


def test_a_shapes_arrays_are_nobodys_to_change() -> None:
    with pytest.raises(ValueError, match="read-only"):
        SHAPE.taper()[0] = 1
    assert stft(noise(64).astype(np.float64), SHAPE).shape == (33, 1)
