"""Decisions become messages: detections and events as `quake.alerts.Alert`. Pure but for the clock it is given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from quake.alerts import Alert, Kind, Latency, Mode, ModelIdentity, StationOnset, Status, TracePoint
from streamer.coincidence import Event, Member
from streamer.grid import Grid
from streamer.stages import NS, Detection


@dataclass(slots=True)
class Alerting:
    mode: Mode
    model: ModelIdentity
    grid: Grid
    places: Mapping[str, tuple[float, float]]
    unused: Counter[str] = field(default_factory=Counter)
    """Windows not scored since the start, by reason."""

    def detection(self, detection: Detection, now_ns: int) -> Alert:
        closed = detection.off_ns is not None
        member = Member.of(detection)
        return Alert(
            id=detection.id,
            revision=1 if closed else 0,
            mode=self.mode,
            kind=Kind.DETECTION,
            status=Status.CLOSED if closed else Status.OPEN,
            onset=detection.onset_ns,
            on_time=self.grid.end_ns(detection.opened_k),
            off_time=detection.off_ns,
            stations=(_station(member, self.places),),
            probability=detection.probability,
            characterisation=detection.characterisation,
            model=self.model,
            latency=_latency(detection.onset_ns, detection.received_ns, now_ns),
            complete=detection.complete,
            unused=dict(self.unused),
            trace=tuple(TracePoint(window_start=self.grid.start_ns(k), probability=p) for k, p in detection.trace),
            created=now_ns,
        )

    def event(self, event: Event, now_ns: int) -> Alert:
        return event_alert(event, self.mode, self.model, self.places, self.unused, now_ns)


def event_alert(
    event: Event,
    mode: Mode,
    model: ModelIdentity,
    places: Mapping[str, tuple[float, float]],
    unused: Mapping[str, int],
    now_ns: int,
) -> Alert:
    running = Status.UPDATE if event.revision else Status.OPEN
    status = running if event.closed_ns is None else Status.CLOSED
    return Alert(
        id=event.id,
        revision=event.revision,
        mode=mode,
        kind=Kind.EVENT,
        status=status,
        onset=event.onset_ns,
        on_time=event.opened_ns,
        off_time=event.closed_ns,
        stations=tuple(_station(m, places) for m in event.members),
        probability=max(m.probability for m in event.members),
        characterisation=event.characterisation,
        model=model,
        latency=_latency(event.onset_ns, max(m.received_ns for m in event.members), now_ns),
        complete=all(m.complete for m in event.members),
        unused=dict(unused),
        created=now_ns,
    )


def aged(alert: Alert, max_age_ns: int, now_ns: int) -> Alert:
    """As it leaves: one that is live and older than this is marked stale."""
    is_old = alert.mode is Mode.LIVE and now_ns - alert.onset > max_age_ns
    return alert.model_copy(update={"stale": True}) if is_old else alert


def _station(member: Member, places: Mapping[str, tuple[float, float]]) -> StationOnset:
    latitude, longitude = places.get(member.station, (None, None))
    return StationOnset(
        source_id=member.subject,
        detection_id=member.id,
        onset=member.onset_ns,
        probability=member.probability,
        latitude=latitude,
        longitude=longitude,
    )


def _latency(onset_ns: int, received_ns: int, now_ns: int) -> Latency:
    """0 for processing where no packet led to it: a closing for want of data."""
    received_ns = received_ns or now_ns
    return Latency(data_s=(received_ns - onset_ns) / NS, processing_s=max(0.0, (now_ns - received_ns) / NS))
