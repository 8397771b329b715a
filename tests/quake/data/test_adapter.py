"""Events of every kind into data sets: against NumPy and SciPy, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.signal
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from obspy import Stream, Trace, UTCDateTime
from torch.utils.data import DataLoader

from quake.data.adapter import TransformOP, WaveformDataAdapter, principal_components
from quake.data.transforms import ToTensor

N = 2080
CHANNELS = ("Z", "N", "E")


def samples(seed: int, length: int = N) -> np.ndarray:
    """(length, 3)"""
    return np.random.default_rng(seed).standard_normal((length, 3)) * [100, 10, 1] + [5000, 0, -3]


def frame(values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(values, columns=list(CHANNELS))


def stream(values: np.ndarray, **header: Any) -> Stream:
    """Traces HHE, HHN, HHZ."""
    start = UTCDateTime(2024, 1, 1)
    traces = [
        Trace(values[:, place].copy(), {"channel": f"HH{name}", "sampling_rate": 100.0, "starttime": start, **header})
        for place, name in enumerate(CHANNELS)
    ]
    return Stream(traces[::-1])


def adapted(values: list[Any], *transforms: TransformOP, **options: Any) -> torch.Tensor:
    """All items in the order of the events, two classes."""
    operations = TransformOP.NONE
    for transform in transforms:
        operations |= transform
    adapter = WaveformDataAdapter(values, np.arange(len(values)) % 2, transforms=operations, **options)
    sides = adapter.get_datasets()
    items = torch.stack([item for side in sides for item, _ in side])
    return items[torch.cat([side.events for side in sides]).argsort()]


def test_items_are_the_events_samples_components_first() -> None:
    values = [samples(seed) for seed in range(6)]
    items = adapted([frame(event) for event in values])
    assert items.dtype == torch.float32
    np.testing.assert_array_equal(items, np.stack(values).transpose(0, 2, 1).astype(np.float32))


def test_frames_streams_and_arrays_are_the_same_events() -> None:
    values = [samples(seed) for seed in range(4)]
    expected = adapted([frame(event) for event in values])
    shuffled = [frame(event)[["E", "Z", "N"]].assign(station="UH3") for event in values]
    for kind in (values, shuffled, [stream(event) for event in values], np.stack(values)):
        assert torch.equal(adapted(kind), expected)
    vertical = adapted([stream(event) for event in values], channels="Z")
    assert torch.equal(vertical, expected[:, :1])


def test_masked_samples_of_a_stream_are_nan() -> None:
    event = stream(samples(0).astype(np.int32))
    event[1].data = np.ma.masked_inside(np.arange(N, dtype=np.int32), 10, 19)
    assert adapted([event] * 4, TransformOP.DROP_NAN).shape == (4, 3, N - 10)


def test_masked_samples_of_an_array_are_nan() -> None:
    event = np.ma.masked_array(samples(0), fill_value=1e9)
    event[10:20, 1] = np.ma.masked
    assert adapted([event] * 4, TransformOP.DROP_NAN).shape == (4, 3, N - 10)
    with pytest.raises(ValueError, match="event 0: holds NaN"):
        adapted([event] * 4)
    with pytest.raises(ValueError, match="samples are masked: fill the gaps first"):
        ToTensor()(event)


def test_a_sample_beyond_any_unit_is_refused() -> None:
    broken = samples(0)
    broken[7, 2] = 1e31
    with pytest.raises(ValueError, match=r"event 1: holds infinity, or more than 1e\+30"):
        adapted([samples(0), broken, samples(1), samples(2)])


def test_missing_samples_are_dropped_before_all_are_trimmed() -> None:
    values = [samples(seed, N + 50) for seed in range(4)]
    values[0][[3, 5, 7], [0, 1, 2]] = np.nan
    values[1] = values[1][: N + 48]
    items = adapted([frame(event) for event in values], TransformOP.DROP_NAN, TransformOP.TRIMMING)
    assert items.shape == (4, 3, N + 47)
    expected = np.delete(values[0], [3, 5, 7], axis=0).T.astype(np.float32)
    np.testing.assert_array_equal(items[0], expected)
    np.testing.assert_array_equal(items[1], values[1][: N + 47].T.astype(np.float32))


def test_zscore_is_scipys_and_flat_components_are_zeros() -> None:
    values = samples(0)
    flat = values.copy()
    flat[:, 2] = 1e9
    items = adapted([values, values, flat, flat], TransformOP.ZSCORE)
    np.testing.assert_allclose(items[0], scipy.stats.zscore(values).T, atol=1e-6)
    assert torch.equal(items[2, :2], items[0, :2])
    assert not items[2, 2].any()


@pytest.mark.parametrize("fft_size", [32, 33, 512, 4096])
def test_fft_is_numpys(fft_size: int) -> None:
    values = samples(0)
    items = adapted([values] * 4, TransformOP.FFT, fft_size=fft_size)
    expected = np.abs(np.fft.rfft(values.T, n=fft_size))
    assert items.shape == (4, 3, fft_size // 2 + 1)
    np.testing.assert_allclose(items[0], expected, atol=1e-6 * expected.max())


@pytest.mark.parametrize(("nperseg", "hop"), [(64, 32), (100, 25)])
def test_spectrogram_is_scipys(nperseg: int, hop: int) -> None:
    values = samples(0)
    options = {"stft_nperseg": nperseg, "stft_hop": hop}
    items = adapted([values] * 4, TransformOP.SPECTROGRAM, **options)
    _, _, spectra = scipy.signal.stft(values.T, nperseg=nperseg, noverlap=nperseg - hop, boundary=None, padded=False)
    assert items.shape == (4, 3, nperseg // 2 + 1, 1 + (N - nperseg) // hop)
    np.testing.assert_allclose(items[0], np.abs(spectra), atol=1e-6 * np.abs(spectra).max())


# -- polarisation ------------------------------------------------------------------------------------------------------

RECORDS = arrays(np.float64, (3, 50), elements=st.floats(-1e6, 1e6).map(lambda value: round(value, 3)))


@settings(deadline=None)
@given(RECORDS)
def test_principal_components_are_uncorrelated_ordered_and_lose_no_energy(record: np.ndarray) -> None:
    turned = principal_components(record)
    centred = record - record.mean(axis=1, keepdims=True)
    energy = np.square(centred).sum()
    products = turned @ turned.T
    assert abs(products - np.diag(np.diag(products))).max() <= 1e-9 * energy
    assert (np.diff(np.diag(products)) <= 1e-9 * energy).all()
    assert np.square(turned).sum() == pytest.approx(energy, rel=1e-9)


def test_a_linearly_polarised_wave_is_one_component_whose_sign_is_fixed() -> None:
    wave = np.sin(np.arange(N) / 9) * np.hanning(N)
    direction = np.array([0.8, -0.36, 0.48])  # of length 1, up is the largest
    event = np.outer(wave, direction) + np.array([1e3, 2e3, 0])
    items = adapted([event] * 4, TransformOP.PCA, TransformOP.ZSCORE)
    np.testing.assert_allclose(items[0, 0], scipy.stats.zscore(wave), atol=1e-4)
    assert not items[0, 1:].any(), "rounding taken for motion"
    event[:, 1] = 0
    assert not adapted([event] * 4, TransformOP.PCA, TransformOP.ZSCORE)[0, 1:].any()
    opposite = principal_components(np.outer(-direction, wave))
    np.testing.assert_allclose(opposite[0], -(wave - wave.mean()), atol=1e-9)


def test_axes_are_those_of_ground_motion_not_of_standardised_components() -> None:
    values = samples(0)
    items = adapted([values] * 4, TransformOP.PCA, TransformOP.ZSCORE)
    np.testing.assert_allclose(items[0, 0], scipy.stats.zscore(values[:, 0]), atol=0.02)


# -- the two sides -----------------------------------------------------------------------------------------------------


def test_items_carry_their_event_and_its_label() -> None:
    values = [np.full((4, 3), float(place)) for place in range(30)]
    labels = np.array(["quake", "noise", "blast"] * 10)
    adapter = WaveformDataAdapter(values, labels)
    assert adapter.classes == ("blast", "noise", "quake")
    train, test = adapter.get_datasets()
    assert (len(train), len(test)) == (21, 9)
    for side in (train, test):
        for (item, label), event in zip(side, side.events, strict=True):
            assert (item == event).all()
            assert side.classes[label] == labels[event]
    assert sorted(torch.cat([train.events, test.events]).tolist()) == list(range(30))
    assert [test.labels.tolist().count(index) for index in range(3)] == [3, 3, 3]


def test_stations_of_one_earthquake_are_on_one_side() -> None:
    groups = [f"quake{place // 3}" for place in range(60)]
    train, test = WaveformDataAdapter([samples(0, 8)] * 60, [0, 1] * 30, groups=groups).get_datasets()
    sides = [{groups[event] for event in side.events} for side in (train, test)]
    assert not sides[0] & sides[1]
    assert len(test) == 18


def test_the_seed_decides_which_event_goes_where() -> None:
    sides = [
        WaveformDataAdapter([samples(0, 8)] * 40, [0, 1] * 20, seed=seed).get_datasets()[1].events.tolist()
        for seed in (0, 0, 1)
    ]
    assert sides[0] == sides[1] != sides[2]


def test_transforms_belong_to_their_side_and_spoil_nothing() -> None:
    adapter = WaveformDataAdapter([samples(seed) for seed in range(10)], [0, 1] * 5)
    train, test = adapter.get_datasets(transform_train=torch.Tensor.zero_)
    assert not train[0][0].any()
    assert test[0][0].any()
    again, _ = adapter.get_datasets()
    assert again[0][0].any(), "a transform that works in place reached the data"
    batch, labels = next(iter(DataLoader(again, batch_size=4)))
    assert batch.shape == (4, 3, N)
    assert labels.dtype == torch.int64


# -- what is refused ---------------------------------------------------------------------------------------------------


def with_value(value: float) -> pd.DataFrame:
    event = frame(samples(3))
    event.iloc[5, 2] = value
    return event


GOOD = frame(samples(0))
FOUR_SAMPLES = {"transforms": TransformOP.TRIMMING | TransformOP.SPECTROGRAM}


@pytest.mark.parametrize(
    ("event", "options", "message"),
    [
        (with_value(np.nan), {}, r"event 2: holds NaN \(DROP_NAN would drop it\)"),
        (with_value(np.inf), {"transforms": TransformOP.DROP_NAN}, "event 2: holds infinity"),
        (frame(np.full((5, 3), np.nan)), {"transforms": TransformOP.DROP_NAN}, "event 2: no samples"),
        (frame(samples(0, 70)), {}, "differ in their number of samples: event 2 has 70, event 0 2080"),
        (frame(samples(0, 4)), FOUR_SAMPLES, "event 2: 4 samples are fewer than one frame of 64"),
        (GOOD.rename(columns={"E": "2"}), {}, r"event 2: 0 columns 'E', one expected \(columns: \['Z', 'N', '2'\]\)"),
        (GOOD.rename(columns={"E": "Z"}), {}, "event 2: 2 columns 'Z', one expected"),
        (GOOD.astype(str) + "x", {}, "event 2: could not convert string"),
        (samples(0).T, {}, r"event 2: an array must have the shape \(N, 3\), not \(3, 2080\)"),
        (samples(0)[:, :2], {}, r"event 2: an array must have the shape \(N, 3\), not \(2080, 2\)"),
        (None, {}, "event 2: "),
        (
            stream(samples(0))[:2],
            {},
            r"event 2: 0 traces of component 'Z', one expected \(channels: \['HHE', 'HHN'\]\)",
        ),
        (stream(samples(0)) + stream(samples(0)), {}, "event 2: 2 traces of component 'Z', one expected"),
        (stream(samples(0))[1:] + stream(samples(0, 9))[:1], {}, "event 2: its traces differ in start, length or rate"),
        (
            stream(samples(0))[1:] + stream(samples(0), starttime=UTCDateTime(2024, 1, 1, 0, 0, 0, 6000))[:1],
            {},
            "event 2: its traces differ in start, length or rate",
        ),
    ],
)
def test_an_event_at_fault_is_named(event: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WaveformDataAdapter([GOOD, GOOD, event, GOOD], [0, 0, 1, 1], **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transforms": TransformOP.FFT | TransformOP.SPECTROGRAM}, "FFT and SPECTROGRAM exclude each other"),
        ({"labels": [0, 1, 1]}, "3 labels for 4 events"),
        ({"labels": [], "events": []}, "0 labels for 0 events"),
        ({"labels": ["a", "b", "b", "b"]}, "class 'a' lies in one event alone: it cannot be on both sides"),
        ({"groups": [0, 0, 1, 2]}, "class 0 lies in one group alone"),
        ({"groups": [0, 1, 2]}, "3 groups for 4 events"),
        ({"test_ratio": 1.5}, "test_ratio must lie between 0 and 1, not 1.5"),
        ({"fft_size": 0}, "fft_size must be at least 1, not 0"),
        ({"stft_hop": 0}, "hop 0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WaveformDataAdapter(**{"events": [GOOD] * 4, "labels": [0, 0, 1, 1], **options})


def test_a_start_within_half_a_sample_is_the_same_start() -> None:
    early = stream(samples(0), starttime=UTCDateTime(2024, 1, 1, 0, 0, 0, 4000))
    assert adapted([stream(samples(0))[1:] + early[:1]] * 4).shape == (4, 3, N)


def test_neither_obspy_nor_the_rest_is_imported_without_need() -> None:
    script = """
import sys
import quake.data
print(sorted({"torch", "pandas", "scipy", "obspy"} & set(sys.modules)))
import numpy, quake.data.adapter
quake.data.adapter.WaveformDataAdapter([numpy.zeros((9, 3))] * 4, [0, 0, 1, 1])
print("obspy" in sys.modules)
"""
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.split("\n")[:2] == ["[]", "False"]
