"""Detections and events that are open when another model or grid takes over end there.

Their states mean nothing to what follows, so nobody else would ever close them. Pure; `streamer.outbox` commits it together
with the change.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from quake.alerts import Alert
from streamer import coincidence, trigger
from streamer.alerting import Alerting, event_alert
from streamer.association.notes import Note
from streamer.coincidence import CoincidenceState, Member
from streamer.grid import Grid
from streamer.stages import Detection, station_of
from streamer.trigger import TriggerState

log = logging.getLogger(__name__)

Told = Callable[[str], Alert | None]
"""The newest revision of an alert; None where nobody knows it any more."""


def grid_of(fingerprint: str) -> Grid:
    """Of `streamer.composition.Scorer.fingerprint`."""
    rate, window, hop = map(int, fingerprint.rsplit("/", 3)[1:])
    return Grid(rate, window, hop)


def detections(fingerprint: str, states: Mapping[str, TriggerState]) -> list[Detection]:
    """The closings of all that are open. ``fingerprint``: of the grid that their windows are numbered on."""
    is_open = {subject: state for subject, state in states.items() if state.opened is not None}
    ended = [trigger.cut_off(subject, grid_of(fingerprint), state) for subject, state in is_open.items()]
    return [detection for detection in ended if detection is not None]


def closings(
    fingerprint: str, ended: Sequence[Detection], state: CoincidenceState | None, told: Told, now_ns: int
) -> Iterator[Alert]:
    """What tells of them, and of the events that were open with them: by the model and mode that their last alerts name."""
    for detection in ended:
        if not detection.held and (last := _known(detection.id, told)):
            alerting = Alerting(last.mode, last.model, grid_of(fingerprint), _places([last]), Counter(last.unused))
            yield alerting.detection(detection, now_ns)
    for event in coincidence.cut_off(state, ended) if state is not None else ():
        if last := _known(event.id, told):
            members = [alert for member in event.members if (alert := told(member.id))]
            yield event_alert(event, last.mode, last.model, _places([last, *members]), last.unused, now_ns)


def note(ended: Iterable[Detection], last: str) -> str:
    """For the associator, whose events wait for their closings too. ``last``: the note before, which names the model."""
    members = [Member.of(detection) for detection in ended]
    return Note(model=Note.model_validate_json(last).model, members=members).model_dump_json(exclude_defaults=True)


def _known(ident: str, told: Told) -> Alert | None:
    """Without it nothing says which model and mode it was of."""
    last = told(ident)
    if last is None:
        log.warning("alert %s stays open: the outbox no longer has what was told of it", ident)
    return last


def _places(alerts: Iterable[Alert]) -> dict[str, tuple[float, float]]:
    return {
        station_of(one.source_id): (one.latitude, one.longitude)
        for alert in alerts
        for one in alert.stations
        if one.latitude is not None and one.longitude is not None
    }
