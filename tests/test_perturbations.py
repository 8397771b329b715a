"""Each perturbation does what its name says, to a record that is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import perturbations as made
from quake.data.seisbench import DataError
from trainer.data.record import Record, Samples

LEAD, P = 6000, 9000
RNG = np.random.default_rng(0)


def noise(seed: int = 0) -> Record:
    """120 s of white noise, of three sizes."""
    samples = np.random.default_rng(seed).standard_normal((3, 12000)) * [[1.0], [2.0], [4.0]]
    return Record(f"noise{seed}", "made", "", samples.astype(np.float32), "noise", lead=LEAD)


def event(seed: int = 0, height: float = 300.0) -> Record:
    """The same with a wave of 5 Hz that decays from P on."""
    record, age = noise(seed), (np.arange(12000) - P) / 100
    wave = np.where(age >= 0, height * np.exp(-np.maximum(age, 0) / 3) * np.cos(10 * np.pi * age), 0)
    samples = (record.samples + wave).astype(np.float32)
    return replace(record, name=f"event{seed}", source_id=f"quake{seed}", samples=samples, kind="earthquake", p=P)


def spectrum(samples: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frequencies in Hz, and (3, F) power."""
    size = samples.shape[1]
    power = np.abs(np.fft.rfft(samples * np.hanning(size), axis=1)) ** 2
    return np.arange(power.shape[1]) * 100 / size, power.astype(np.float64)


def named(name: str) -> made.Perturbation:
    records = [event(1, 5000.0), event(2, 5000.0)]
    return next(change for change in made.perturbations(records) if change.name == name)


@pytest.mark.parametrize("record", [noise(), event()], ids=["noise", "event"])
def test_all_keep_the_record_and_the_shape(record: Record) -> None:
    before, names = record.samples.copy(), set()
    for change in made.perturbations([event(1, 5000.0), event(2, 5000.0)]):
        samples = change.apply(record, np.random.default_rng(0))
        again = change.apply(record, np.random.default_rng(0))
        seconds = samples.shape[1] / change.rate_hz
        assert np.array_equal(record.samples, before), change.name
        assert np.array_equal(samples, again, equal_nan=True), change.name
        assert samples.dtype == np.float32
        assert seconds == pytest.approx(120 - change.read_ahead_s, abs=0.02), change.name
        assert not np.isinf(samples).any()
        names.add(change.name)
    assert len(names) == 30


def test_gain_and_polarity() -> None:
    record = event()
    assert named("gain x 1e-06").apply(record, RNG) == pytest.approx(record.samples * 1e-6)
    assert np.array_equal(named("polarity reversed").apply(record, RNG), -record.samples)
    signs = {
        tuple(np.sign(made.one_reversed(record, np.random.default_rng(seed)) / record.samples)[:, 0])
        for seed in range(30)
    }
    assert signs == {(-1, 1, 1), (1, -1, 1), (1, 1, -1)}


def test_horizontals() -> None:
    record = event()
    alone = named("horizontals missing").apply(record, RNG)
    assert np.array_equal(alone[0], record.samples[0])
    assert np.isnan(alone[1:]).all()
    swapped = named("horizontals swapped").apply(record, RNG)
    assert np.array_equal(swapped, [record.samples[0], record.samples[2], record.samples[1]])


@pytest.mark.parametrize("rate_hz", [50, 80, 125, 200])
def test_another_rate_keeps_what_it_can_hold(rate_hz: int) -> None:
    seconds = np.arange(12000) / 100
    waves = np.stack([np.sin(2 * np.pi * hz * seconds) for hz in (5, 35, 47)]).astype(np.float32)
    out = made.resampled(rate_hz, replace(noise(), samples=waves), RNG)
    inner = slice(5 * rate_hz, 100 * rate_hz)
    at = np.arange(out.shape[1])[inner] / rate_hz
    assert out[0, inner] == pytest.approx(np.sin(2 * np.pi * 5 * at), abs=0.01)
    strength = np.sqrt(2) * out[:, inner].std(axis=1)
    assert strength[1] == pytest.approx(1 if rate_hz > 70 else 0, abs=0.1)
    assert (strength[2] > 0.5) == (rate_hz > 94)


def test_half_a_sample_later() -> None:
    seconds = np.arange(12000) / 100
    wave = np.sin(2 * np.pi * 5 * np.stack([seconds] * 3)).astype(np.float32)
    out = made.half_a_sample_later(replace(noise(), samples=wave), RNG)
    inner = slice(500, 11000)
    assert out[0, inner] == pytest.approx(np.sin(2 * np.pi * 5 * (seconds[inner] + 0.005)), abs=0.01)
    assert named("clock half a sample off").late_s == 0.005


@pytest.mark.parametrize("seconds", [0.1, 2.0])
@pytest.mark.parametrize("where", ["before P", "after P"])
def test_a_gap_lies_where_it_is_said(seconds: float, where: str) -> None:
    change, record = named(f"gap of {seconds:g} s {where}"), event()
    starts = []
    for seed in range(40):
        missing = np.isnan(change.apply(record, np.random.default_rng(seed)))
        assert (missing == missing[0]).all()
        places = np.flatnonzero(missing[0])
        assert len(places) == round(seconds * 100) == np.ptp(places) + 1
        starts.append(places[0] - P)
    low, high = (-2000, -seconds * 100) if where == "before P" else (0, 999)
    assert min(starts) >= low
    assert max(starts) <= high
    assert np.ptp(starts) > 0.7 * (high - low)
    assert np.isnan(change.apply(noise(), RNG)[:, LEAD:]).any()


def test_a_gap_of_one_component_alone() -> None:
    missing = np.isnan(named("gap of 0.5 s before P, one horizontal").apply(event(), RNG))
    assert missing.sum(axis=1).tolist() == [0, 50, 0]


def test_clipping_is_at_half_of_the_peak_of_real_samples() -> None:
    record = event()
    lead = record.samples.copy()
    lead[:, 0] = 1e6  # mirrored noise sets no level
    record = replace(record, samples=lead)
    level = 0.5 * np.abs(record.samples[:, LEAD:]).max()
    out = named("clipped at 50 % of the peak").apply(record, RNG)
    beyond = np.abs(record.samples) > level
    assert beyond[:, LEAD:].sum() > 50
    assert np.abs(out[beyond]) == pytest.approx(np.full(beyond.sum(), level))
    assert np.array_equal(out[~beyond], record.samples[~beyond])


@pytest.mark.parametrize(
    ("name", "hz", "level"), [("drift, 0.02 Hz", 0.02, 30), ("hum, 49.9 Hz", 49.9, 3), ("hum, 40 Hz", 40, 3)]
)
def test_sines(name: str, hz: float, level: float) -> None:
    record = event()
    added = named(name).apply(record, np.random.default_rng(1)).astype(float) - record.samples
    frequencies, power = spectrum(added)
    assert frequencies[power.argmax(axis=1)] == pytest.approx(hz, abs=0.01)
    assert np.sqrt(2) * added.std(axis=1) == pytest.approx(level * np.array([1, 2, 4]), rel=0.25)
    dead = replace(record, samples=record.samples * np.array([[1], [0], [1]], np.float32))
    assert not named(name).apply(dead, RNG)[1].any()


def test_a_ramp_rises_by_thirty_deviations_a_minute() -> None:
    added = named("drift, linear").apply(noise(), RNG).astype(float) - noise().samples
    assert added[:, 6000] - added[:, 0] == pytest.approx(30 * np.array([1, 2, 4]), rel=0.05)
    assert np.diff(added, 2, axis=1) == pytest.approx(0, abs=1e-3)


def test_a_teleseism_is_large_and_has_no_energy_above_half_a_hertz() -> None:
    record = replace(noise(), samples=np.tile(noise().samples, (1, 5)))  # all ten minutes
    added = named("teleseism").apply(record, np.random.default_rng(1)).astype(float) - record.samples
    frequencies, power = spectrum(added)
    assert power[:, frequencies > 0.5].sum() < 1e-6 * power.sum()
    assert 0.03 <= frequencies[power[0].argmax()] <= 0.1
    assert np.abs(added[0]).max() == pytest.approx(30, rel=0.05)
    early, late = (np.diff(np.sign(part)).astype(bool).sum() for part in np.split(added[0], 2))
    assert late > 1.4 * early  # dispersed: the long waves come first
    assert abs(np.corrcoef(added[0], added[1])[0, 1]) < 0.1  # a quarter of a period apart


def test_a_larger_earthquake_comes_fifteen_seconds_before() -> None:
    record, donor = event(0, 300.0), event(1, 5000.0)
    out = made.in_coda([record, donor], record, RNG)
    added = out.astype(float) - record.samples
    peak = np.abs(added).max()
    assert peak == pytest.approx(10**0.5 * np.abs(record.samples[:, P:]).max(), rel=0.01)
    first = np.flatnonzero(np.abs(added).max(axis=0) > 0.2 * peak)[0]
    assert first == pytest.approx(P - 1500, abs=2)
    assert not added[:, : P - 1600].any()
    assert np.array_equal(made.in_coda([donor], noise(), RNG), noise().samples)
    with pytest.raises(DataError, match="event0: no other earthquake"):
        made.in_coda([record], record, RNG)


def test_donors_are_clear_whole_and_long_enough() -> None:
    clear = event(1, 5000.0)
    dead: Samples = clear.samples * np.array([[1], [0], [1]], np.float32)
    others = [
        noise(),
        event(2, 300.0),
        replace(clear, samples=dead),
        replace(clear, samples=clear.samples[:, : P + 2500]),
        replace(clear, is_crowded=True),
    ]
    assert made.donors_of([*others, clear]) == [clear]


def test_noise_is_what_comes_before_p() -> None:
    assert made.noise_std(event(0, 1e6))[:, 0] == pytest.approx([1, 2, 4], rel=0.05)
