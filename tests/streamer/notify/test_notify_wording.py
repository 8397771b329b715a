"""What is read by whoever is woken: marks, templates, and what was left out."""

from __future__ import annotations

import json
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_alerts import NOW_NS, alert

from quake.alerts import Alert, Characterisation, Kind, Mode, Status
from streamer.notify.mail import message
from streamer.notify.webhook import body
from streamer.notify.wording import FIELDS, LONGEST_TITLE, TEXT, TITLE, check_template, of_alert, of_heartbeat


def mail_of(one: Alert, title: str = TITLE, text: str = TEXT) -> EmailMessage:
    raw = message(of_alert(title, text, one), "q@example.org", ("w@example.org",), NOW_NS).as_bytes()
    read = message_from_bytes(raw, policy=policy.default)
    assert isinstance(read, EmailMessage)
    return read


def part(mail: EmailMessage, kind: str) -> str:
    found = mail.get_body((kind,))
    assert found is not None
    return str(found.get_content())


@pytest.mark.parametrize(
    ("mode", "mark"), [(Mode.EXERCISE, "EXERCISE"), (Mode.REPLAY, "TEST"), (Mode.SCAN, "TEST"), (Mode.LIVE, "")]
)
@pytest.mark.parametrize("template", [TITLE, "Wake up: $stations"])
def test_no_template_hides_what_is_no_earthquake(mode: Mode, mark: str, template: str) -> None:
    notice = of_alert(template, template, alert(mode=mode))
    mail = mail_of(alert(mode=mode), template, template)
    for shown in (notice.title, str(mail["Subject"])):
        assert shown.startswith(mark or ("Earthquake", "Wake"))
    assert ("not an earthquake" in notice.text) == bool(mark)
    assert ("not an earthquake" in part(mail, "plain")) == bool(mark)
    assert (f"<b>{mark}</b>" in part(mail, "html")) == bool(mark)
    assert json.loads(body(notice))["data"]["mark"] == (mark or None)


def test_every_field_can_be_named_and_is_told() -> None:
    template = " ".join(f"{name}=$" + name for name in FIELDS)
    sized = Characterisation(magnitude={"Large": 0.75, "Normal": 0.25}, azimuth=None)
    told = of_alert(TITLE, check_template(template), alert(characterisation=sized)).text
    assert "magnitude=Large (0.75)" in told
    assert "station_names=XX.ABC" in told
    assert "stations=1 " in told
    assert "$" not in told


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("$statoins", r"\$stations\?"),
        ("${Onset}", r"\$onset\?"),
        ("5 $ a piece", "no name"),
        ("$zzz", "there are headline"),
    ],
)
def test_a_template_that_names_what_there_is_not(template: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        check_template(template)
    assert check_template("5 $$ $onset") == "5 $$ $onset"


def test_what_was_left_out_is_told() -> None:
    notice = of_alert("x" * 500, TEXT, alert(), (), {"quiet": 12, "rate": 2})
    assert notice.title.endswith("x (and 14 more)")
    assert len(notice.title) == LONGEST_TITLE
    assert notice.text.endswith("And 14 more since the last message, not sent: 12 quiet, 2 rate.")
    assert json.loads(body(notice))["data"]["left_out"] == {"quiet": 12, "rate": 2}
    assert "more" not in of_alert(TITLE, TEXT, alert()).title


def test_headlines() -> None:
    for status, begin in (("open", "Earthquake: 1 st"), ("closed", "Earthquake over"), ("cancelled", "FALSE ALARM")):
        assert of_alert(TITLE, TEXT, alert(status=Status(status))).title.startswith(begin)
    assert of_alert(TITLE, TEXT, alert(kind=Kind.DETECTION)).title.startswith(
        "Detection, open: 1 station, 2023-11-14 22:13:20"
    )


def test_the_heartbeat() -> None:
    lost, found = (of_heartbeat(one, NOW_NS, 60.0) for one in (True, False))
    assert lost.title.startswith("Heartbeat LOST")
    assert "no longer means that there was no earthquake" in lost.text
    assert found.title.startswith("Heartbeat found again")
    assert lost.key != found.key
    assert json.loads(body(lost)) == {
        "type": "heartbeat.lost",
        "timestamp": "2023-11-14T22:13:20.000000Z",
        "data": {"mark": None, "title": lost.title, "text": lost.text, "left_out": {}, "alert": None},
    }


def test_revisions_are_one_conversation() -> None:
    first = message(of_alert(TITLE, TEXT, alert()), "q@example.org", ("w@example.org",), NOW_NS)
    later = message(
        of_alert(TITLE, TEXT, alert(revision=4), ((0, NOW_NS),)), "q@example.org", ("w@example.org",), NOW_NS
    )
    assert first["References"] is None
    assert later["References"] == first["Message-ID"] == f"<{alert().id}.0@example.org>"
    assert later["Message-ID"] != first["Message-ID"]


@settings(max_examples=40)
@given(st.text(), st.text())
def test_nothing_that_an_alert_holds_breaks_a_mail(source_id: str, model: str) -> None:
    """Of headers, a line's end begins another one."""
    station = alert().stations[0].model_copy(update={"source_id": source_id})
    one = alert(stations=(station,), model={"name": model, "version": "1", "sha256": "0"})
    mail = mail_of(one, "$station_names $model", "$station_names")
    assert set(mail.keys()) == {
        *("From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type")
    }
    assert "<script" not in part(mail, "html")


def test_hypertext_is_escaped() -> None:
    station = alert().stations[0].model_copy(update={"source_id": "<script>x</script>"})
    shown = part(mail_of(alert(stations=(station,)), text="$station_names"), "html")
    assert "<script" not in shown
    assert shown.count("&lt;script&gt;") == 2  # text and table
