"""The torch modules: against SciPy, scripted as well as eager, from arrays of any kind, and what is refused."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import scipy.signal
import scipy.stats
import torch
from torch import nn

from quake.data import transforms
from quake.data.transforms import (
    CrossSpectra,
    Decibel,
    Demean,
    FFTTransform,
    Finite,
    ImageNetNormalize,
    Resize,
    Spectrogram,
    STFTTransform,
    Taper,
    ToTensor,
    ZScore,
)

RATE_HZ = 40.0
MODULES = {
    "to_tensor": ToTensor(),
    "demean": Demean(),
    "zscore": ZScore(),
    "zscore window": ZScore("window"),
    "finite": Finite(),
    "taper": Taper(0.3),
    "no taper": Taper(0.0),
    "fft": FFTTransform(),
    "magnitude": STFTTransform(),
    "power": STFTTransform(scale="power", padded=True),
    "log": STFTTransform(50, 17, "hamming", "log", gain=10.0),
    "decibel": STFTTransform(63, 20, scale="decibel", padded=True, sampling_rate_hz=RATE_HZ, ceiling_db=20.0),
    "cross": nn.Sequential(CrossSpectra(sampling_rate_hz=RATE_HZ), Decibel(-100.0, 40.0)),
    "image": nn.Sequential(STFTTransform(), Resize((40, 20)), ImageNetNormalize()),
}


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("shape", [(2080,), (3, 2080), (2, 2, 3, 700)])
@pytest.mark.parametrize("padded", [False, True])
def test_stft_is_scipys(shape: tuple[int, ...], padded: bool) -> None:
    samples = noise(*shape)
    for nperseg, hop in ((64, 32), (63, 21)):
        _, _, spectra = scipy.signal.stft(
            samples, nperseg=nperseg, noverlap=nperseg - hop, boundary="zeros" if padded else None, padded=padded
        )
        magnitude = STFTTransform(nperseg, hop, padded=padded)(samples)
        power = STFTTransform(nperseg, hop, scale="power", padded=padded)(samples)
        np.testing.assert_allclose(magnitude, np.abs(spectra), rtol=0, atol=1e-5 * np.abs(spectra).max())
        np.testing.assert_allclose(power, np.abs(spectra) ** 2, rtol=0, atol=1e-5 * np.abs(spectra).max() ** 2)
    assert STFTTransform()(samples).shape == (*shape[:-1], 33, 1 + (shape[-1] - 64) // 32)


def test_decibels_are_scipys_density() -> None:
    samples = noise(3, 2080)
    _, _, density = scipy.signal.spectrogram(samples, fs=RATE_HZ, window="hann", nperseg=64, noverlap=32, detrend=False)
    level = STFTTransform(scale="decibel", sampling_rate_hz=RATE_HZ, floor_db=-40, ceiling_db=-10)(samples).numpy()
    np.testing.assert_allclose(level, np.clip((10 * np.log10(density) + 40) / 30, 0, 1), rtol=0, atol=1e-5)
    assert (level == 0).any()
    assert (level == 1).any()


def test_log_is_log1p_of_the_transform_that_is_not_scaled() -> None:
    samples = noise(3, 2080)
    _, _, spectra = scipy.signal.stft(samples, boundary=None, padded=False, nperseg=64)
    expected = np.log1p(1e5 * 32 * np.abs(spectra))  # 32: the sum of a Hann taper of 64
    np.testing.assert_allclose(STFTTransform(scale="log")(samples), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("nperseg", "padded"), [(64, False), (63, False), (64, True)])
def test_cross_spectra_are_scipys_with_their_signs(nperseg: int, padded: bool) -> None:
    samples = noise(2, 3, 6400)
    samples[:, 1] -= 0.5 * samples[:, 0]
    samples[:, 2] += 0.5 * samples[:, 0]
    module = CrossSpectra(nperseg, nperseg - nperseg // 2, padded=padded, sampling_rate_hz=RATE_HZ)
    means = module(samples).mean(dim=-1).numpy()
    if padded:
        samples = np.pad(samples, [(0, 0), (0, 0), (32, 32)])
    _, expected = scipy.signal.csd(samples[:, :1], samples, fs=RATE_HZ, nperseg=nperseg, detrend=False)
    np.testing.assert_allclose(means, expected.real, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert (means[:, 1, 1:-1] < 0).all()
    assert (means[:, 2, 1:-1] > 0).all()


def test_what_stays_samples_is_scipys() -> None:
    samples = 3 * noise(2, 3, 500) + 7
    np.testing.assert_allclose(Demean()(samples), scipy.signal.detrend(samples, type="constant"), atol=1e-12)
    np.testing.assert_allclose(ZScore()(samples), scipy.stats.zscore(samples, axis=-1), atol=1e-12)
    centred = samples - samples.mean(axis=-1, keepdims=True)
    expected = [scipy.stats.zscore(window, axis=None) for window in centred]
    np.testing.assert_allclose(ZScore("window")(samples), expected, atol=1e-12)
    for fraction in (0.0, 0.05, 0.5, 1.0):
        for length in (1, 2, 3, 10, 501):
            expected_taper = scipy.signal.windows.tukey(length, fraction)
            np.testing.assert_allclose(Taper(fraction)(np.ones(length)), expected_taper, atol=1e-12)


@pytest.mark.parametrize(("fft_size", "length"), [(32, 500), (512, 500), (33, 10), (1, 10)])
def test_fft_is_numpys(fft_size: int, length: int) -> None:
    samples = noise(3, length)
    expected = np.abs(np.fft.rfft(samples, n=fft_size))
    np.testing.assert_allclose(FFTTransform(fft_size)(samples), expected, rtol=0, atol=1e-5 * expected.max())


@pytest.mark.parametrize("name", MODULES)
def test_scripted_modules_answer_as_eager_ones_do(name: str) -> None:
    scripted = torch.jit.script(MODULES[name])
    assert not MODULES[name].state_dict()
    for samples in (noise(3, 700), noise(2, 3, 640).astype(np.float32), (1e3 * noise(3, 641)).astype(np.int32)):
        expected = MODULES[name](samples)
        answer = scripted(torch.from_numpy(samples))
        assert answer.dtype == expected.dtype
        torch.testing.assert_close(answer, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", MODULES)
def test_types_survive_and_batches_are_windows_side_by_side(name: str) -> None:
    module, samples = MODULES[name], 1e3 * noise(2, 4, 3, 700)
    narrow = torch.float32
    wide = narrow if name == "to_tensor" else torch.float64
    whole = module(samples)
    for dtype, expected in ((torch.float64, wide), (torch.float32, narrow), (torch.int32, narrow)):
        assert module(torch.from_numpy(samples).to(dtype)).dtype == expected
    torch.testing.assert_close(module(samples[1, 2]), whole[1, 2], rtol=1e-12, atol=1e-12 * float(whole.abs().max()))


@pytest.mark.parametrize(
    "array",
    [
        noise(3, 700).astype(">f4"),
        (1e5 * noise(3, 700)).astype(">i4"),
        noise(700, 3).T,
        noise(3, 700)[:, ::-1],
        np.broadcast_to(noise(700), (3, 700)),
        np.frombuffer(noise(3, 700).tobytes()).reshape(3, 700),
        noise(3, 700).astype(np.longdouble),
        noise(3, 700).astype(np.float16),
        noise(3, 700).tolist(),
    ],
    ids=[
        "big-endian",
        "big-endian int",
        "transposed",
        "backwards",
        "repeated",
        "read-only",
        "longdouble",
        "half",
        "list",
    ],
)
def test_arrays_of_any_kind_are_taken(array: Any) -> None:
    tensor = ToTensor()(array)
    assert tensor.dtype == torch.float32
    np.testing.assert_allclose(tensor, np.asarray(array, np.float32), rtol=1e-6)
    plain = torch.from_numpy(np.array(array, np.float64))
    np.testing.assert_allclose(STFTTransform()(array), STFTTransform()(plain), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("array", [noise(3, 70) + 1j, ["Z", "N"], [None], np.array(["2020-01-01"], "M8[ns]")])
def test_what_are_no_real_numbers_is_refused(array: Any) -> None:
    with pytest.raises(ValueError, match="samples must be real numbers, not"):
        ToTensor()(array)


def test_pipelines_of_users_take_arrays_and_give_what_a_network_reads() -> None:
    window = noise(3, 2080)
    image = nn.Sequential(STFTTransform(nperseg=64, hop=32), ToTensor())(window)
    assert (image.shape, image.dtype) == ((3, 33, 64), torch.float32)
    spectrum = nn.Sequential(FFTTransform(fft_size=512), ToTensor())(window)
    assert (spectrum.shape, spectrum.dtype) == ((3, 257), torch.float32)
    pipeline = nn.Sequential(Demean(), Taper(0.1), CrossSpectra(), Decibel(), Resize(), ImageNetNormalize(), ToTensor())
    assert torch.jit.script(pipeline)(torch.from_numpy(window)).shape == (3, 224, 224)


def test_scripted_spectrograms_survive_saving() -> None:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(Spectrogram()), buffer)
    buffer.seek(0)
    window = torch.from_numpy(noise(3, 2080))
    torch.testing.assert_close(torch.jit.load(buffer)(window), Spectrogram()(window), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["demean", "zscore", "zscore window", "finite"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e141])
def test_a_component_that_is_not_finite_becomes_zeros(name: str, value: float) -> None:
    broken = noise(3, 700)
    missing = broken * [[1], [0], [1]]
    broken[1, 5] = value
    np.testing.assert_array_equal(MODULES[name](broken), MODULES[name](missing))


@pytest.mark.parametrize("name", ["taper", "no taper", "fft", "magnitude", "power", "log", "decibel"])
def test_what_is_not_a_number_stays_in_its_component(name: str) -> None:
    broken = noise(3, 700)
    broken[1, 0] = np.nan
    answer = MODULES[name](broken)
    assert answer[1].isnan().any()
    np.testing.assert_array_equal(answer[[0, 2]], MODULES[name](noise(3, 700))[[0, 2]])


@pytest.mark.parametrize("constant", [0.0, 1.5, -3e8])
def test_constants_become_zeros_or_their_level_never_nan(constant: float) -> None:
    samples = np.full((3, 700), constant)
    for name, module in MODULES.items():
        assert module(samples).isfinite().all(), name
    for name in ("demean", "zscore", "zscore window"):
        assert not MODULES[name](samples).any()


@pytest.mark.parametrize("name", ["magnitude", "power", "log", "cross"])
def test_windows_shorter_than_a_frame_are_refused(name: str) -> None:
    module = MODULES[name]
    with pytest.raises(ValueError, match=r"^7 samples are fewer than one frame of (64|50)$"):
        module(noise(3, 7))
    with pytest.raises(torch.jit.Error, match="7 samples are fewer than one frame of"):
        torch.jit.script(module)(torch.zeros(3, 7))


@pytest.mark.parametrize("length", [0, 63])
def test_spectrograms_refuse_short_windows_before_anything_else(length: int) -> None:
    with pytest.raises(ValueError, match=f"^{length} samples are fewer than one frame of 64$"):
        Spectrogram()(torch.zeros(3, length))


@pytest.mark.parametrize("samples", [noise(700), noise(2, 700), noise(3, 4, 700)])
def test_cross_spectra_need_z_n_e(samples: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"three components in the order Z, N, E, not [124]"):
        CrossSpectra()(samples)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("STFTTransform", {"scale": "db"}, "scale 'db' is none of magnitude, power, log, contrast, decibel"),
        ("STFTTransform", {"hop": 0}, "hop 0"),
        ("STFTTransform", {"window": "nobody"}, "window 'nobody'"),
        ("STFTTransform", {"gain": -1.0}, "gain -1"),
        ("STFTTransform", {"floor_db": 0.0}, "floor_db 0.0"),
        ("CrossSpectra", {"sampling_rate_hz": -1.0}, "sampling_rate_hz -1"),
        ("Decibel", {"floor_db": -60.0}, "floor_db -60"),
        ("FFTTransform", {"fft_size": 0}, "fft_size 0 is not positive"),
        ("Taper", {"fraction": 2.0}, "taper_fraction 2.0"),
        ("ZScore", {"per": "station"}, "per 'station' is none of component, window"),
    ],
)
def test_parameters_that_cannot_be_are_refused(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(transforms, name)(**arguments)


@pytest.mark.parametrize("name", MODULES)
def test_all_is_made_on_the_device_of_the_input(name: str) -> None:
    samples = torch.from_numpy(noise(2, 3, 700))
    answer = MODULES[name](samples.to("meta"))  # like a GPU it refuses sums with what lies on the CPU
    assert answer.device.type == "meta"
    assert answer.shape == MODULES[name](samples).shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", MODULES)
def test_tensors_stay_on_their_device(name: str) -> None:
    samples = torch.from_numpy(noise(2, 3, 700))
    answer = MODULES[name](samples.to("cuda"))  # the module itself is left on the CPU
    assert answer.device.type == "cuda"
    expected = MODULES[name](samples)
    torch.testing.assert_close(answer.cpu(), expected, rtol=0, atol=1e-9 * float(expected.abs().max()))
