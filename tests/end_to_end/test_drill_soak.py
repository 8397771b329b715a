"""Short forms: ``tests/end_to_end/soak.py`` and ``full_load.py`` are the long ones."""

from __future__ import annotations

import full_load as load
import pytest
from daemon_harness import Place
from drill_report import tell
from soak import Sample, Soak, row, run

STATIONS = 20
SHORT_MB_A_DAY = 3.0
"""Over the ten hours after a day's warm-up one step of the allocator (half a megabyte) looks like a megabyte a day: what is
promised is seen over a week, and a leak in what every packet or window passes is far beyond this."""


def grown(mb_an_hour: float, handles: int = 12) -> Soak:
    """A run of two days that grew so much."""
    samples = [Sample(h, 200.0 + 20.0 * (h > 3) + mb_an_hour * h, 12 if h < 40 else handles, 6) for h in range(49)]
    return Soak(48, STATIONS, samples)


def test_what_counts_as_growth() -> None:
    assert not grown(0.0).faults()
    assert not grown(0.9 / 24).faults()
    assert not grown(1.1 / 24).faults(SHORT_MB_A_DAY)
    assert grown(1.1 / 24).faults() == ["resident memory grows by 1.10 MB a day"]
    assert grown(0.0, handles=13).faults() == ["handles between 12 and 13"]


@pytest.mark.drill
@pytest.mark.timeout(1200)
def test_hours_of_many_stations_leave_nothing_behind(place: Place) -> None:
    found = run(place, 1.0, STATIONS)
    tell(row(found, "made", SHORT_MB_A_DAY))
    assert found.windows > 0.9 * found.hours * 720 * STATIONS
    assert found.events == 3 * found.hours
    assert not found.faults(SHORT_MB_A_DAY)


def loaded(mb_a_sample: float = 0.0, handles: int = 12, late_s: float = 0.1, detections: int = 9) -> load.FullLoad:
    """An hour that grew so much after the warm-up, and whose last minute was so."""
    samples = [Sample(n, 700.0 + mb_a_sample * n, 12 if n < 354 else handles, 9) for n in range(1, 361)]
    return load.FullLoad(200, 60.0, samples, [3.0] * 80 + [0.1] * 274 + [late_s] * 6, 0.95, 720_000, detections)


def test_what_counts_at_full_load() -> None:
    assert not loaded().faults()
    assert not loaded(1.9 / 270).faults()
    assert loaded(2.1 / 269).faults() == ["resident memory grows by 2.10 MB"]
    assert not loaded(2.1 / 269).faults(load.SHORT_MB)
    assert loaded(handles=13).faults() == ["handles between 12 and 13"]
    assert loaded(late_s=2.5).faults() == ["2.5 s behind"]
    assert loaded(detections=0).faults() == ["no alerts"]


@pytest.mark.drill
@pytest.mark.alone
@pytest.mark.timeout(900)
def test_minutes_with_the_shipped_detector_leave_nothing_behind() -> None:
    found = load.run(60, 6.0)
    tell(load.row(found, load.SHORT_MB))
    assert found.windows > 0.95 * 360 * 60
    assert not found.faults(load.SHORT_MB)
