"""OASIS Common Alerting Protocol 1.2: one file for each message, in a folder that a CAP server or feed takes them from.

The event is not located: the area is the stations' places, as circles of `radius_km`. Nothing is said to be observed, for
nobody has looked at it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Literal
from xml.etree import ElementTree

from pydantic import AfterValidator, Field

from quake.alerts import Alert, Mode, Status
from quake.times import NS
from streamer.notify.deciding import likeliest
from streamer.notify.files import Folder, stem
from streamer.notify.wording import MARKS, NOT_REAL, Notice, clean, name_of

NAMESPACE = "urn:oasis:names:tc:emergency:cap:1.2"
STATUSES = {Mode.LIVE: "Actual", Mode.EXERCISE: "Exercise", Mode.REPLAY: "Test", Mode.SCAN: "Test"}
SEVERITIES: dict[str | None, str] = {"Large": "Extreme", "Medium": "Severe", "Moderate": "Moderate", "Normal": "Minor"}


def _sender(text: str) -> str:
    if re.search(r"[\s,<&]", text) or not text:
        raise ValueError("no blanks, commas, < or & (CAP 1.2), best an address as watch@example.org")
    return text


class Cap(Folder):
    kind: Literal["cap"]
    sender: Annotated[str, AfterValidator(_sender)] = Field(description="Of all messages; unique worldwide")
    sender_name: str | None = Field(default=None, min_length=1, description="For people: the observatory")
    scope: Literal["Public", "Restricted"] = "Restricted"
    restriction: str = Field(
        default="Automatic and not reviewed: for the observatory's own use", min_length=1, description="Of `Restricted`"
    )
    language: str = Field(
        default="en-US", pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$", description="Of the templates"
    )
    area: str | None = Field(default=None, min_length=1, description="In words; if not given, the stations' names")
    radius_km: float = Field(default=0.0, ge=0, le=20_000, description="Around each station whose place is known")
    expires_s: float = Field(default=3600.0, gt=0)

    def send(self, notice: Notice, now_ns: int) -> None:
        if notice.alert is not None:
            self.write(f"{stem(notice)}-{notice.alert.revision}.xml", document(self, notice, notice.alert))


def document(cap: Cap, notice: Notice, alert: Alert) -> bytes:
    """The elements in the order of the standard; those that would be empty are left out."""
    top = ElementTree.Element("alert", xmlns=NAMESPACE)
    message = "Alert" if not notice.told else "Cancel" if alert.status is Status.CANCELLED else "Update"
    references = " ".join(f"{cap.sender},{_identifier(alert, r)},{_time(ns)}" for r, ns in notice.told)
    _add(top, "identifier", _identifier(alert, alert.revision))
    _add(top, "sender", cap.sender)
    _add(top, "sent", _time(alert.created))
    _add(top, "status", STATUSES[alert.mode])
    _add(top, "msgType", message)
    _add(top, "scope", cap.scope)
    _add(top, "restriction", cap.restriction if cap.scope == "Restricted" else "")
    _add(top, "note", f"{MARKS[alert.mode]}: {NOT_REAL}" if MARKS[alert.mode] else "")
    _add(top, "references", references)
    _add(top, "incidents", _identifier(alert, None))
    _info(ElementTree.SubElement(top, "info"), cap, notice, alert)
    ElementTree.indent(top)
    return bytes(ElementTree.tostring(top, encoding="utf-8", xml_declaration=True)) + b"\n"


def _info(info: ElementTree.Element, cap: Cap, notice: Notice, alert: Alert) -> None:
    over, cancelled = alert.status is Status.CLOSED, alert.status is Status.CANCELLED
    _add(info, "language", cap.language)
    _add(info, "category", "Geo")
    _add(info, "event", "Earthquake")
    _add(info, "urgency", "Past" if over or cancelled else "Immediate")
    _add(info, "severity", SEVERITIES.get(likeliest(alert), "Unknown"))
    _add(info, "certainty", "Unlikely" if cancelled else "Likely" if alert.probability > 0.5 else "Possible")
    _add(info, "onset", _time(alert.onset))
    _add(info, "expires", _time(alert.created + int(cap.expires_s * NS)))
    _add(info, "senderName", cap.sender_name or "")
    _add(info, "headline", notice.title)
    _add(info, "description", notice.text)
    for name, value in _parameters(alert):
        parameter = ElementTree.SubElement(info, "parameter")
        _add(parameter, "valueName", name)
        _add(parameter, "value", value)
    area = ElementTree.SubElement(info, "area")
    names = ", ".join(clean(name_of(station.source_id)) for station in alert.stations)
    _add(area, "areaDesc", cap.area or f"Around the stations {names}; not located")
    for latitude, longitude in dict.fromkeys((s.latitude, s.longitude) for s in alert.stations):
        if latitude is not None and longitude is not None:
            _add(area, "circle", f"{latitude:.4f},{longitude:.4f} {cap.radius_km:g}")


def _parameters(alert: Alert) -> Iterator[tuple[str, str]]:
    yield "quake:probability", f"{alert.probability:.3f}"
    yield "quake:stations", str(len(alert.stations))
    yield "quake:model", f"{clean(alert.model.name)} {clean(alert.model.version)}".strip() or "unknown"
    if size := clean(likeliest(alert) or "").strip():
        yield "quake:magnitude", size


def _identifier(alert: Alert, revision: int | None) -> str:
    return alert.id if revision is None else f"{alert.id}.{revision}"


def _time(time_ns: int) -> str:
    """CAP 1.2 forbids the Z of RFC 3339: UTC is -00:00."""
    return datetime.fromtimestamp(time_ns // NS, UTC).strftime("%Y-%m-%dT%H:%M:%S-00:00")


def _add(parent: ElementTree.Element, name: str, text: str) -> None:
    if text:
        ElementTree.SubElement(parent, name).text = text
