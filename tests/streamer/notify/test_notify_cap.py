"""Each message keeps the rules of CAP 1.2, whatever an alert holds, and says what it may about what it knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cap_rules
import pytest
from cap_rules import text
from hypothesis import given, settings
from hypothesis import strategies as st
from made_alerts import NOW_NS, alert
from pydantic import ValidationError

from quake.alerts import Alert, Characterisation, Mode, StationOnset, Status
from streamer.notify.cap import Cap, document
from streamer.notify.deciding import Told
from streamer.notify.sink import RefusedError
from streamer.notify.wording import TEXT, TITLE, of_alert

CAP = Cap(kind="cap", folder=Path("nowhere"), sender="watch@example.org")


def read(one: Alert, told: Told = (), cap: Cap = CAP) -> ElementTree.Element:
    notice = of_alert(cap.title, cap.text, one, told)
    return cap_rules.check(document(cap, notice, one))


@st.composite
def alerts(draw: st.DrawFn) -> Alert:
    place = st.none() | st.floats(-90, 90)
    stations = [
        StationOnset(
            source_id=draw(st.text(min_size=1) | st.just("FDSN:XX_ABC__H_H")),
            detection_id="d",
            onset=NOW_NS,
            probability=0.5,
            latitude=draw(place),
            longitude=draw(place),
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    sizes = draw(st.none() | st.sampled_from(["Large", "Normal", "\x00<&>"]))
    return alert(
        revision=draw(st.integers(0, 9)),
        mode=draw(st.sampled_from(Mode)),
        status=draw(st.sampled_from(Status)),
        probability=draw(st.floats(0, 1)),
        stations=tuple(stations),
        characterisation=sizes and Characterisation(magnitude={sizes: 1.0}, azimuth=None),
        model={"name": draw(st.text(min_size=1)), "version": "1", "sha256": "0"},
    )


@settings(max_examples=50)
@given(alerts(), st.sampled_from(["Public", "Restricted"]), st.booleans())
def test_every_message_keeps_the_rules(one: Alert, scope: Any, told: bool) -> None:
    cap = CAP.model_copy(update={"scope": scope, "sender_name": "Observatory <&>"})
    before = tuple((n, NOW_NS + n) for n in range(one.revision)) if told else ()
    if one.status is Status.CANCELLED and not before:
        return  # never sent
    read(one, before, cap)


@pytest.mark.parametrize(
    ("mode", "status"),
    [(Mode.LIVE, "Actual"), (Mode.EXERCISE, "Exercise"), (Mode.REPLAY, "Test"), (Mode.SCAN, "Test")],
)
def test_what_is_no_earthquake_says_so(mode: Mode, status: str) -> None:
    top = read(alert(mode=mode), cap=CAP.model_copy(update={"title": "Wake up", "text": "now"}))
    assert text(top, "status") == status
    marked = text(top, "info/headline").startswith(("EXERCISE", "TEST")) and "not an earthquake" in text(top, "note")
    assert marked == (mode is not Mode.LIVE)


def test_messages_of_an_alert_refer_to_those_before() -> None:
    first = read(alert())
    assert text(first, "msgType") == "Alert"
    assert text(first, "references") == ""
    told = ((0, NOW_NS), (3, NOW_NS + 10**9))
    for status, kind in ((Status.UPDATE, "Update"), (Status.CLOSED, "Update"), (Status.CANCELLED, "Cancel")):
        later = read(alert(revision=5, status=status), told)
        assert text(later, "msgType") == kind
        earlier, second = text(later, "references").split()
        assert earlier == ",".join(text(first, name) for name in ("sender", "identifier", "sent"))
        assert second == f"watch@example.org,{alert().id}.3,2023-11-14T22:13:21-00:00"


def test_urgency_severity_and_certainty() -> None:
    def words(**changes: Any) -> list[str]:
        top = read(alert(revision=1, **changes), ((0, NOW_NS),))
        return [text(top, f"info/{name}") for name in ("urgency", "severity", "certainty")]

    large = Characterisation(magnitude={"Large": 0.9, "Normal": 0.1}, azimuth=None)
    assert words(characterisation=large) == ["Immediate", "Extreme", "Likely"]
    assert words(probability=0.4) == ["Immediate", "Unknown", "Possible"]
    assert words(status=Status.CLOSED)[0] == "Past"
    assert words(status=Status.CANCELLED) == ["Past", "Unknown", "Unlikely"]


def test_the_area_is_where_the_stations_are() -> None:
    station = alert().stations[0].model_copy(update={"latitude": 48.0, "longitude": -11.5})
    top = read(alert(stations=(station, alert().stations[0])), cap=CAP.model_copy(update={"radius_km": 30.0}))
    assert [found.text for found in top.iter(cap_rules.SPACE + "circle")] == ["48.0000,-11.5000 30"]
    assert "not located" in text(top, "info/area/areaDesc")


@pytest.mark.parametrize("sender", ["", "a b", "a,b", "a<b", "a&b"])
def test_a_sender_that_the_standard_forbids(sender: str) -> None:
    with pytest.raises(ValidationError):
        Cap(kind="cap", folder=Path("x"), sender=sender)


def test_a_file_for_each_message_whole_or_not_at_all(tmp_path: Path) -> None:
    cap = CAP.model_copy(update={"folder": tmp_path})
    one = alert(mode=Mode.EXERCISE, revision=2)
    cap.send(of_alert(TITLE, TEXT, one), NOW_NS)
    (file,) = tmp_path.iterdir()
    assert file.name == f"EXERCISE-{one.id}-2.xml"
    cap_rules.check(file.read_bytes())


@pytest.mark.parametrize("ident", ["../../etc/x", "a/b", "", "a\nb", "."])
def test_an_id_chooses_no_folder(ident: str, tmp_path: Path) -> None:
    cap = CAP.model_copy(update={"folder": tmp_path / "in"})
    cap.prepare()
    with pytest.raises(RefusedError):
        cap.send(of_alert(TITLE, TEXT, alert().model_copy(update={"id": ident})), NOW_NS)
    assert [path.name for path in tmp_path.rglob("*")] == ["in"]


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (b"-00:00</sent>", b"Z</sent>"),
        (b"<scope>Restricted</scope>", b""),
        (b"<category>Geo</category>", b""),
        (b">Geo<", b">Quake<"),
        (b"<status>Actual</status>", b"<status>Real</status>"),
        (b"cap:1.2", b"cap:1.1"),
        (b"<event>", b"<urgency>Past</urgency><event>"),
        (b"watch@example.org</sender>", b"the watch</sender>"),
    ],
)
def test_the_rules_find_what_is_wrong(right: bytes, wrong: bytes) -> None:
    content = document(CAP, of_alert(TITLE, TEXT, alert()), alert())
    assert right in content
    with pytest.raises(AssertionError):
        cap_rules.check(content.replace(right, wrong))
