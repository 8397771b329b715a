from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_alerts import NOW_NS, alert
from obspy import read_events
from obspy.io.quakeml.core import _validate as validate_quakeml
from pydantic import ValidationError

from quake.alerts import Alert, Keys, Kind, Mode, StationOnset, Status
from quake.schema import schema
from quake.times import format_ns, parse_ns

TIMES = st.integers(-62_135_596_800 * 10**9, 253_402_300_799 * 10**9)


@given(TIMES)
def test_times_come_back_to_the_nanosecond(time_ns: int) -> None:
    assert parse_ns(format_ns(time_ns)) == time_ns


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00.000000001z", 1),
        ("2010-05-27T18:24:33.5+02:00", 1_274_977_473_500_000_000),
        ("1969-12-31T23:59:59.75Z", -250_000_000),
    ],
)
def test_rfc_3339(text: str, time_ns: int) -> None:
    assert parse_ns(text) == time_ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2010-05-27",
        "2010-05-27T16:24:33",
        "2010-13-27T16:24:33Z",
        "2016-12-31T23:59:60Z",
        "٢010-05-27T16:24:33Z",
    ],
)
def test_what_is_no_rfc_3339_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_ns(text)


def test_format_shows_nanoseconds_only_where_there_are_some() -> None:
    assert format_ns(1_500_000_000) == "1970-01-01T00:00:01.500000Z"
    assert format_ns(1_500_000_001) == "1970-01-01T00:00:01.500000001Z"


def test_json_round_trip() -> None:
    one = alert(onset=NOW_NS + 1, off_time=NOW_NS + 123_456_789, unused={"gap": 3})
    text = one.model_dump_json()
    assert Alert.model_validate_json(text) == one
    assert json.loads(text)["onset"] == "2023-11-14T22:13:20.000000001Z"


@pytest.mark.parametrize(
    "wrong", [{"revision": -1}, {"probability": 1.1}, {"stations": ()}, {"onset": 1.5}, {"onset": True}]
)
def test_what_is_no_alert_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        alert(**wrong)


def test_the_schema_on_disk_is_that_of_the_code() -> None:
    """If this fails: ``python -m quake.schema > docs/reference/alert.schema.json``, and think of the subscribers."""
    file = Path(__file__).parents[2] / "docs" / "reference" / "alert.schema.json"
    assert file.read_text("utf-8") == schema()


def _placed(latitude: float | None) -> StationOnset:
    longitude = None if latitude is None else 11.0
    return StationOnset(
        source_id="FDSN:BW_UH3_00_H_H",
        detection_id="d",
        onset=NOW_NS + 7,
        probability=0.5,
        latitude=latitude,
        longitude=longitude,
    )


@pytest.mark.parametrize("latitude", [48.0, None])
@pytest.mark.parametrize("status", [Status.OPEN, Status.CANCELLED])
def test_quakeml_that_obspy_reads_and_validates(latitude: float | None, status: Status) -> None:
    one = alert(stations=(_placed(latitude),), status=status)
    file = io.BytesIO()
    one.to_quakeml().write(file, format="QUAKEML")
    assert validate_quakeml(io.BytesIO(file.getvalue()))
    (event,) = read_events(io.BytesIO(file.getvalue()))
    assert event.resource_id.id == f"smi:local/quake/{one.id}"
    assert event.event_type == ("not existing" if status is Status.CANCELLED else "earthquake")
    pick = event.picks[0]
    assert (pick.waveform_id.network_code, pick.waveform_id.station_code, pick.waveform_id.location_code) == (
        "BW",
        "UH3",
        "00",
    )
    assert abs(pick.time.ns - (NOW_NS + 7)) < 1000
    assert len(event.origins) == (latitude is not None)
    if latitude is not None:
        assert event.preferred_origin().latitude == latitude
        assert event.preferred_origin().time.ns == NOW_NS


def test_quakeml_of_two_revisions_in_one_process_is_the_same_twice() -> None:
    """ObsPy warns where one resource id stands for two objects."""
    texts = []
    for revision in (0, 1, 0):
        file = io.BytesIO()
        alert(revision=revision, stations=(_placed(48.0),)).to_quakeml().write(file, format="QUAKEML")
        texts.append(file.getvalue())
    assert texts[0] == texts[2] != texts[1]


def test_keys_share_a_hash_tag_and_only_live_alerts_go_where_subscribers_read() -> None:
    keys = Keys()
    assert (keys.events, keys.stream(Kind.DETECTION)) == ("{quake}:alerts", "{quake}:detections")
    assert Keys.of(Mode.LIVE) == keys
    for mode in (Mode.REPLAY, Mode.SCAN, Mode.EXERCISE):
        other = Keys.of(mode)
        names = {other.events, other.detections, other.heartbeat, other.epoch, other.seen("x"), other.opened("s")}
        assert all(name.startswith("{quake}:") for name in names)
        assert not names & {keys.events, keys.detections, keys.heartbeat, keys.epoch}


def test_summary_is_one_line() -> None:
    assert "\n" not in alert().summary()
    assert "XX_ABC__H_H" in alert().summary()
