"""Made earthquakes: their spectra, times, directions and sizes against the formulas."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.signal import welch

from quake.data.spectrogram import SpectrogramShape, spectrogram
from trainer.data.record import LEAD_S, Record
from trainer.data.sources import Quality, read_records
from trainer.data.synthetic import (
    FREQUENCIES_HZ,
    RADIATION,
    SPECTRUM_SAMPLES,
    Earthquake,
    Synthetic,
    Wave,
    coloured_noise,
    double_couple,
    minimum_phase,
    scattering,
    velocity_pulse,
)

SECTORS = {"N": 0, "NE": 45, "E": 90, "SE": 135, "S": 180, "SW": 225, "W": 270, "NW": 315}


def quake(**changes: Any) -> Earthquake:
    known = {
        "magnitude": 4.0,
        "stress_drop_pa": 3e6,
        "distance_km": 30.0,
        "depth_km": 40.0,
        "back_azimuth_deg": 60.0,
        "incidence_deg": 35.0,
        "kappa_s": 0.02,
        "is_up": True,
        "sideways_deg": 0.0,
        "coda": 0.0,
    }
    return Earthquake(**{**known, **changes})


def motion(made: Earthquake, length: int = 12000, seed: int = 0) -> np.ndarray:
    """(3, length) with P at 1000, and S where the formulas put it."""
    s = 1000 + round(100 * (made.travel_s("S") - made.travel_s("P")))
    return made.motion(np.random.default_rng(seed), {"P": 1000, "S": s}, length)


def read(split: str = "train", **settings: Any) -> tuple[Record, ...]:
    source = Synthetic.model_validate({"type": "synthetic", "count": 6, "noise": 3, **settings})
    return read_records([source], split, Quality(), Path()).records


def test_numbers_by_hand() -> None:
    """M 4 is 1.2589e15 N m; 50 km; corner 0.49 x 3464 x (3e6 / 1.2589e15)^(1/3) = 2.268 Hz."""
    made = quake()
    assert made.moment_n_m == pytest.approx(1.2589e15, rel=1e-4)
    assert made.path_m == pytest.approx(50e3)
    assert made.corner_hz("S") == pytest.approx(2.268, abs=0.001)
    assert made.corner_hz("P") == pytest.approx(2.268 * 6000 / 3464, abs=0.002)
    assert made.level_m_s("P") == pytest.approx(0.52 * 2 * 1.2589e15 / (4 * np.pi * 2700 * 6000**3 * 50e3), rel=1e-4)
    assert made.level_m_s("S") / made.level_m_s("P") == pytest.approx(0.63 / 0.52 * (6000 / 3464) ** 3)


@pytest.mark.parametrize("wave", ["P", "S"])
@pytest.mark.parametrize("magnitude", [2.0, 4.0, 6.0])
def test_the_ground_has_brunes_spectrum(wave: Wave, magnitude: float) -> None:
    made = quake(magnitude=magnitude)
    moved = np.fft.irfft(velocity_pulse(made.amplitude(wave)), SPECTRUM_SAMPLES)
    displacement = np.abs(np.fft.rfft(moved) / 100)[1:] / (2 * np.pi * FREQUENCIES_HZ[1:])
    loss = np.exp(-np.pi * FREQUENCIES_HZ[1:] * (made.travel_s(wave) / {"P": 600, "S": 400}[wave] + 0.02))
    brune = made.level_m_s(wave) * loss / (1 + (FREQUENCIES_HZ[1:] / made.corner_hz(wave)) ** 2)
    heard = FREQUENCIES_HZ[1:] < 40
    np.testing.assert_allclose(displacement[heard], brune[heard], rtol=0.01)
    half = FREQUENCIES_HZ[1:][np.argmin(np.abs(displacement / loss - made.level_m_s(wave) / 2))]
    assert half == pytest.approx(made.corner_hz(wave), rel=0.05)


def test_nothing_precedes_p_and_it_begins_at_once() -> None:
    moved = motion(quake(coda=2.0))
    peak = np.abs(moved[:, 1000:1300]).max()
    assert np.abs(moved[:, :1000]).max() < 1e-3 * peak
    assert np.abs(moved[:, 1000:1010]).max() > 0.3 * peak


def test_the_shortest_causal_pulse_has_its_amplitudes() -> None:
    """One pole: the transform of 0.9^n is known."""
    known = 1 / (1 - 0.9 * np.exp(-2j * np.pi * FREQUENCIES_HZ / 100))
    np.testing.assert_allclose(minimum_phase(np.abs(known)), known, rtol=1e-6)


@pytest.mark.parametrize("is_up", [True, False])
@pytest.mark.parametrize("sector", SECTORS)
def test_the_first_motion_tells_the_back_azimuth_in_eight_sectors(sector: str, is_up: bool) -> None:
    made = quake(back_azimuth_deg=SECTORS[sector], is_up=is_up, coda=1.5)
    z, n, e = motion(made)[:, 1000:1060]
    estimated = np.degrees(np.arctan2(-z @ e, -z @ n))  # from the covariance of P
    assert abs((estimated - SECTORS[sector] + 180) % 360 - 180) < 10
    assert (z[np.abs(z).argmax()] > 0) == is_up
    image = spectrogram(
        motion(made)[:, 850:1100],
        SpectrogramShape(normalisation="demean", representation="cross_decibel", floor_db=-240),
    )
    loudest = np.unravel_index(image[0].argmax(), image[0].shape)
    for crossed, part in zip(image[1:], (np.cos, np.sin), strict=True):
        if abs(part(np.radians(SECTORS[sector]))) > 0.5:
            assert np.sign(crossed[loudest]) == -np.sign(part(np.radians(SECTORS[sector])))


def test_radiation_is_a_shear_faults() -> None:
    """On average what Boore & Boatwright (1984) found over the focal sphere, and no sign or direction preferred.

    A ray gets (n r)^2 + (d r)^2 in all, at most 1: where P is strongest, on the axis of pressure, S is nothing.
    """
    drawn = np.array([double_couple(np.random.default_rng(seed)) for seed in range(2000)])  # (2000, 3) P, SV, SH
    squares = (drawn**2).mean(axis=0)
    assert np.sqrt(squares[0]) == pytest.approx(0.52, abs=0.02)
    assert np.sqrt(squares[1] + squares[2]) == pytest.approx(0.63, abs=0.02)
    assert squares[1] == pytest.approx(squares[2], rel=0.15)
    assert np.abs(drawn.mean(axis=0)).max() < 0.05
    assert 0.99 < (drawn**2).sum(axis=1).max() <= 1 + 1e-9
    strongest = drawn[np.abs(drawn[:, 0]).argmax()]
    assert abs(strongest[0]) > 0.99
    assert np.hypot(*strongest[1:]) < 0.15


def test_waves_leave_as_the_fault_has_them() -> None:
    source = Synthetic.model_validate({"type": "synthetic", "count": 1, "noise": 0})
    made = [source.earthquake(np.random.default_rng(seed)) for seed in range(300)]
    assert 0.35 < np.mean([one.is_up for one in made]) < 0.65
    turned = np.abs(np.sin(np.radians([one.sideways_deg for one in made])))
    assert 0.4 < np.mean(turned > np.sqrt(0.5)) < 0.6  # as often up and down as across
    one = made[0]
    assert one.level_m_s("P") == pytest.approx(
        one.radiation["P"] / 0.52 * replace(one, radiation=RADIATION).level_m_s("P")
    )


def test_s_moves_sideways() -> None:
    made = quake(back_azimuth_deg=60.0)
    s = 1000 + round(100 * (made.travel_s("S") - made.travel_s("P")))
    z, n, e = motion(made)[:, s : s + 20]
    away = np.radians(240.0)
    radial, transverse = np.cos(away) * n + np.sin(away) * e, np.cos(away) * e - np.sin(away) * n
    assert np.abs(transverse).max() > 10 * max(np.abs(radial).max(), np.abs(z).max())


@settings(max_examples=25, deadline=None)
@given(st.floats(1, 200), st.floats(1, 50), st.integers(0, 3))
def test_s_minus_p_goes_with_distance(distance_km: float, depth_km: float, seed: int) -> None:
    source = Synthetic.model_validate(
        {
            "type": "synthetic",
            "count": 1,
            "noise": 0,
            "seed": seed,
            "distance_km": [distance_km, distance_km],
            "depth_km": [depth_km, depth_km],
        }
    )
    raw = source.find(Path()).finds[0].read()
    expected_s = np.hypot(distance_km, depth_km) * (1 / 3.464 - 1 / 6.0)
    assert (raw.s - raw.p) / 100 == pytest.approx(expected_s, abs=0.006)


def test_larger_is_stronger_and_farther_is_weaker() -> None:
    peaks = [np.abs(motion(quake(magnitude=magnitude))).max() for magnitude in np.arange(1, 8)]
    assert (np.diff(np.log10(peaks)) > 0.1).all()
    by_distance = [
        np.abs(motion(quake(distance_km=d, depth_km=0.1, kappa_s=0.0, magnitude=5.0))).max() for d in (10, 20)
    ]
    assert by_distance[0] / by_distance[1] > 2  # 1/r, and what is lost on the way


def test_coda_has_the_energy_asked_for_and_high_frequencies_leave_it_sooner() -> None:
    scattered = scattering(np.random.default_rng(0), 10.0)
    assert np.sum(scattered**2) == pytest.approx(1.0)
    assert not scattered[:, 10000:].any()
    assert np.abs(scattered[:, :5]).max() < 0.3 * scattered[:, 80:120].std()  # what comes first keeps its direction
    early, late = (
        welch(scattered[:, part], 100, nperseg=512)[1].mean(axis=0) for part in (slice(300, 1500), slice(5000, 9000))
    )
    frequencies = np.fft.rfftfreq(512, 0.01)
    low, high = (frequencies > 0.5) & (frequencies < 2), frequencies > 20
    assert early[low].mean() / late[low].mean() * 5 < early[high].mean() / late[high].mean()


def test_noise_has_the_density_asked_for() -> None:
    _, density = welch(coloured_noise(np.random.default_rng(1), (-130.0, -130.0), 16000), 100, nperseg=1600)
    frequencies = np.fft.rfftfreq(1600, 0.01)
    around = (frequencies > 0.8) & (frequencies < 1.25)
    assert 10 * np.log10(density[:, around].mean()) == pytest.approx(-130.0, abs=1.5)


def test_records_know_what_was_made() -> None:
    records = read(magnitude=[3.0, 5.0], counts_per_m_s=1e9, weight=2.0)
    events = [record for record in records if record.is_event]
    assert (len(events), len(records)) == (6, 9)
    assert all(3 <= record.magnitude <= 5 and 0 <= record.back_azimuth_deg < 360 for record in events)
    assert all(record.p - 100 * LEAD_S >= 2600 and record.s > record.p for record in events)
    assert {(record.licence, record.weight) for record in records} == {("made by this program", 2.0)}
    assert {record.origin for record in records if not record.is_event} == {"synthetic"}
    plain = read(magnitude=[3.0, 5.0])
    metres, counts = plain[0].samples.astype(np.float64), records[0].samples
    apart = np.abs(counts / 1e9 - metres).max(axis=1)
    assert (apart < 2**-15 * np.abs(metres).max(axis=1)).all()  # the offset is taken off to so much


def test_the_seed_decides_and_the_splits_are_different() -> None:
    first, again, other = read(), read(), read(seed=1)
    assert all(np.array_equal(a.samples, b.samples) and a.p == b.p for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0].samples, other[0].samples)
    more = read(count=8)
    np.testing.assert_array_equal(more[5].samples, first[5].samples)  # whatever else is made
    dev = read("dev", dev_count=6, dev_noise=2)
    assert len(dev) == 8
    assert not {record.magnitude for record in dev if record.is_event} & {record.magnitude for record in first}


def test_ranges_that_fall_are_refused() -> None:
    with pytest.raises(ValidationError, match="magnitude goes from 5 down to 3"):
        read(magnitude=[5.0, 3.0])


@pytest.mark.parametrize("key", ["magnitude", "noise_db"])
def test_what_no_number_holds_is_refused(key: str) -> None:
    with pytest.raises(ValidationError, match=f"{key} goes up to 5000: 10+ is the most"):
        Synthetic.model_validate({"type": "synthetic", "count": 1, "noise": 1, key: [2.0, 5000.0]})
