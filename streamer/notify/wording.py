"""In which words a sink tells of an alert, or of the heartbeat. No I/O.

Templates are Python's `string.Template`: it is in the standard library, runs nothing that a template holds, and says which
fields one names, so that a wrong one is told at the start. What is no earthquake is marked here, whatever a template says.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from string import Template

from quake.alerts import Alert, Kind, Mode, Status
from quake.times import NS, format_ns
from streamer.notify.deciding import Told, likeliest

TITLE = "$headline"
TEXT = """\
$headline

Onset        $onset
Stations     $stations: $station_names
Near         $place (the station that felt it first; not located)
Magnitude    $magnitude
Probability  $probability
Alert        $id, revision $revision

Detected by a machine ($model), reviewed by nobody."""
LONGEST_TITLE = 200
"""Characters: what subjects and lock screens show, with room."""

MARKS = {Mode.LIVE: "", Mode.EXERCISE: "EXERCISE", Mode.REPLAY: "TEST", Mode.SCAN: "TEST"}
NOT_REAL = "this is not an earthquake that happens now."
HEADLINES = {
    Status.OPEN: "Earthquake",
    Status.UPDATE: "Earthquake, further stations",
    Status.CLOSED: "Earthquake over",
    Status.CANCELLED: "FALSE ALARM, not an earthquake",
}
_NOT_TEXT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, and nothing should show."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What a sink is given to deliver."""

    key: str
    """The same whenever the same is delivered again."""
    type: str
    """``alert.open``, ``heartbeat.lost``"""
    time_ns: int
    """When what it tells was made."""
    title: str
    text: str
    mark: str = ""
    """``EXERCISE`` or ``TEST``; empty for what is real."""
    alert: Alert | None = None
    told: Told = ()
    """What this sink was told of the alert before."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Reason -> messages that were not sent since the last one that was."""


def clean(text: str) -> str:
    return _NOT_TEXT.sub("", text)


def _headline(alert: Alert) -> str:
    what = HEADLINES[alert.status] if alert.kind is Kind.EVENT else f"Detection, {alert.status}"
    size = likeliest(alert)
    return f"{what}: {_count(alert)}{f', magnitude {size}' if size else ''}, {_minute(alert.onset)}"


def _count(alert: Alert) -> str:
    return f"{len(alert.stations)} station{'s' if len(alert.stations) > 1 else ''}"


def _minute(time_ns: int) -> str:
    return format_ns(time_ns)[:19].replace("T", " ") + " UTC"


def name_of(source_id: str) -> str:
    """``BW.UH3`` of ``FDSN:BW_UH3__S_H``."""
    return ".".join(source_id.removeprefix("FDSN:").split("_")[:2])


def _names(alert: Alert) -> str:
    return " ".join(name_of(station.source_id) for station in alert.stations)


def _place(alert: Alert) -> str:
    first = min(alert.stations, key=lambda station: station.onset)
    if first.latitude is None or first.longitude is None:
        return f"{name_of(first.source_id)}, coordinates not known"
    return f"{name_of(first.source_id)} at {first.latitude:.3f}, {first.longitude:.3f}"


def _magnitude(alert: Alert) -> str:
    classes = alert.characterisation and alert.characterisation.magnitude
    size = likeliest(alert)
    return f"{size} ({classes[size]:.2f})" if classes and size else "not known"


FIELDS: dict[str, tuple[str, Callable[[Alert], str]]] = {
    "headline": ("what happened, in a line", _headline),
    "mark": ("EXERCISE, TEST or nothing; titles and texts begin with it in any case", lambda a: MARKS[a.mode]),
    "kind": ("event or detection", lambda a: str(a.kind)),
    "status": ("open, update, closed or cancelled", lambda a: str(a.status)),
    "mode": ("live, exercise, replay or scan", lambda a: str(a.mode)),
    "id": ("of the alert", lambda a: a.id),
    "revision": ("grows", lambda a: str(a.revision)),
    "onset": ("of the earliest station, RFC 3339", lambda a: format_ns(a.onset)),
    "off_time": ("when it closed", lambda a: "not yet" if a.off_time is None else format_ns(a.off_time)),
    "stations": ("their number", lambda a: str(len(a.stations))),
    "station_names": ("NET.STA of each", _names),
    "place": ("the station with the first onset", _place),
    "magnitude": ("the likeliest class and its probability", _magnitude),
    "probability": ("highest so far", lambda a: f"{a.probability:.3f}"),
    "model": ("name and version", lambda a: f"{a.model.name} {a.model.version}"),
}
"""What templates may name."""


def check_template(text: str) -> str:
    """ValueError for one that names what there is not."""
    template = Template(text)
    if not template.is_valid():
        raise ValueError("a $ that begins no name; a dollar is written $$")
    for name in template.get_identifiers():
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, 1, 0.4)
            told = f"did you mean ${near[0]}?" if near else f"there are {', '.join(FIELDS)}"
            raise ValueError(f"no field ${name}; {told}")
    return text


def of_alert(title: str, text: str, alert: Alert, told: Told = (), left_out: Mapping[str, int] | None = None) -> Notice:
    """``title``, ``text``: templates."""
    values = {name: clean(value(alert)) for name, (_, value) in FIELDS.items()}
    return marked(
        Notice(
            key=f"{alert.id}:{alert.revision}",
            type=f"alert.{alert.status}",
            time_ns=alert.created,
            title=Template(title).substitute(values),
            text=Template(text).substitute(values),
            mark=MARKS[alert.mode],
            alert=alert,
            told=told,
            left_out=left_out or {},
        )
    )


def marked(notice: Notice) -> Notice:
    """With its mark, and with what was left out before it: no template can forget them."""
    count = sum(notice.left_out.values())
    more = f" (and {count} more)" if count else ""
    title = " ".join(f"{notice.mark} {notice.title}".split())[: LONGEST_TITLE - len(more)] + more
    parts = [f"{notice.mark}: {NOT_REAL}"] if notice.mark else []
    parts.append(notice.text.strip())
    if count:
        why = ", ".join(f"{n} {reason}" for reason, n in sorted(notice.left_out.items()))
        parts.append(f"And {count} more since the last message, not sent: {why}.")
    return replace(notice, title=title, text="\n\n".join(parts))


def of_heartbeat(lost: bool, since_ns: int, silent_s: float) -> Notice:
    """``since_ns``: when it was noticed."""
    text = (
        f"No daemon has said for {silent_s:.0f} s that it lives, or Redis cannot be reached.\n"
        "Silence no longer means that there was no earthquake."
        if lost
        else "A daemon says that it lives.\nWhat happened meanwhile it tells now, as far as the stations still have it."
    )
    what = "LOST: earthquakes may go unnoticed" if lost else "found again"
    return Notice(
        key=f"heartbeat:{'lost' if lost else 'found'}:{since_ns // NS}",
        type=f"heartbeat.{'lost' if lost else 'found'}",
        time_ns=since_ns,
        title=f"Heartbeat {what}, {_minute(since_ns)}",
        text=text,
    )
