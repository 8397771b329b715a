"""Coordinates and orientation from a real StationXML file, written and read by ObsPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from obspy import UTCDateTime
from obspy.core.inventory import Channel, Inventory, Network, Station
from obspy.core.inventory.response import InstrumentSensitivity, Response

from streamer.config import ConfigError, Place
from streamer.inventory import read_stations

TURNED = UTCDateTime(2015, 1, 1)


def channel(code: str, azimuth: float, dip: float, start: UTCDateTime, end: UTCDateTime | None) -> Channel:
    made = Channel(code, "", 48.0, 11.0, 500.0, 0.0, azimuth=azimuth, dip=dip, sample_rate=100.0)
    made.start_date, made.end_date = start, end
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Horizontals that were turned by a quarter in 2015, and a vertical that was upside down until then."""
    begin = UTCDateTime(2000, 1, 1)
    channels = [
        channel("HHZ", 0, 90, begin, TURNED),
        channel("HH1", 0, 0, begin, TURNED),
        channel("HH2", 90, 0, begin, TURNED),
        channel("HHZ", 0, -90, TURNED, None),
        channel("HH1", 90, 0, TURNED, None),
        channel("HH2", 180, 0, TURNED, None),
    ]
    station = Station("ABC", 48.0, 11.0, 500.0, channels=channels)
    path = tmp_path / "stations.xml"
    Inventory([Network("XX", [station])], source="test").write(str(path), format="STATIONXML")
    return path


def test_orientation_by_epoch(file: Path) -> None:
    stations = read_stations([file], {})
    orient = stations.orient("FDSN:XX_ABC__H_H")
    assert orient is not None
    rows = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    codes = {0: "Z", 1: "1", 2: "2"}
    before, _ = orient(codes, (TURNED - 1).ns).turn(rows, [True] * 3)
    np.testing.assert_allclose(before, [[-1, -2], [3, 4], [5, 6]], atol=1e-12)
    after, _ = orient(codes, TURNED.ns).turn(rows, [True] * 3)
    np.testing.assert_allclose(after, [[1, 2], [-5, -6], [3, 4]], atol=1e-12)


def test_coordinates_of_the_configuration_stand_above(file: Path) -> None:
    assert read_stations([file], {}).places == {"XX_ABC": (48.0, 11.0)}
    places = {"XX.ABC": Place(latitude=1.0, longitude=2.0), "XX.NEW": Place(latitude=3.0, longitude=4.0)}
    assert read_stations([file], places).places == {"XX_ABC": (1.0, 2.0), "XX_NEW": (3.0, 4.0)}


def test_unknown_stations_are_taken_at_their_word(file: Path) -> None:
    assert read_stations([file], {}).orient("FDSN:XX_OTHER__H_H") is None


def test_gain_by_epoch_of_velocity_alone(tmp_path: Path) -> None:
    begin, path = UTCDateTime(2000, 1, 1), tmp_path / "gains.xml"
    channels = []
    for band, unit in (("H", "M/S"), ("N", "M/S**2")):
        for row, code in enumerate("ZNE"):
            for gain, span in ((1e9 + row, (begin, TURNED)), (2e9 + row, (TURNED, None))):
                made = channel(f"H{band}{code}", 90.0 * (code == "E"), -90.0 * (code == "Z"), *span)
                made.response = Response(instrument_sensitivity=InstrumentSensitivity(gain, 1.0, unit, "COUNTS"))
                channels.append(made)
    Inventory([Network("XX", [Station("ABC", 48.0, 11.0, 500.0, channels=channels)])], source="test").write(
        str(path), format="STATIONXML"
    )
    stations = read_stations([path], {"XX.NEW": Place(latitude=1.0, longitude=2.0, counts_per_m_s=5.0)})
    assert stations.any_gain
    assert stations.counts_per_m_s("FDSN:XX_ABC__H_H", (TURNED - 1).ns) == (1e9, 1e9 + 1, 1e9 + 2)
    assert stations.counts_per_m_s("FDSN:XX_ABC__H_H", TURNED.ns) == (2e9, 2e9 + 1, 2e9 + 2)
    assert stations.counts_per_m_s("FDSN:XX_ABC__H_H", (begin - 1).ns) is None
    assert stations.counts_per_m_s("FDSN:XX_ABC__H_N", TURNED.ns) is None, "an accelerometer"
    assert stations.counts_per_m_s("FDSN:XX_NEW__H_H", TURNED.ns) == (5.0, 5.0, 5.0)
    assert stations.counts_per_m_s("FDSN:XX_NEW__H_N", TURNED.ns) is None, "an accelerometer"
    assert stations.is_oriented("FDSN:XX_ABC__H_H")


def test_a_gain_that_no_metadata_tell_is_not_known(file: Path) -> None:
    stations = read_stations([file], {})
    assert not stations.any_gain
    assert stations.counts_per_m_s("FDSN:XX_ABC__H_H", TURNED.ns) is None
    assert not stations.is_oriented("FDSN:XX_OTHER__H_H")


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "no.xml").write_text("<no/>")
    with pytest.raises(ConfigError, match=r"no\.xml"):
        read_stations([tmp_path / "no.xml"], {})
