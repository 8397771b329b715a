"""An alert as an ObsPy catalogue, which writes QuakeML. Nothing is located here: the origin holds the onset alone."""

from __future__ import annotations

from obspy import UTCDateTime
from obspy.core.event import (
    Catalog,
    Comment,
    CreationInfo,
    Event,
    Origin,
    OriginQuality,
    Pick,
    ResourceIdentifier,
    WaveformStreamID,
)

from quake.alerts import Alert, StationOnset, Status


def catalog(alert: Alert) -> Catalog:
    """One event; its resource id carries the alert's id, its creation info the revision."""
    name = f"smi:local/quake/{alert.id}"
    info = CreationInfo(
        agency_id="quake",
        author=alert.model.name,
        version=str(alert.revision),
        creation_time=UTCDateTime(ns=alert.created),
    )
    event = Event(
        resource_id=ResourceIdentifier(name),
        event_type="not existing" if alert.status is Status.CANCELLED else "earthquake",
        event_type_certainty="suspected",
        picks=[_pick(station, info, f"{name}/pick/{n}") for n, station in enumerate(alert.stations)],
        comments=[_comment(f"probability {alert.probability:.4f}, {alert.kind}, {alert.status}, {alert.mode}", name)],
        creation_info=info,
    )
    origin = _origin(alert, info, f"{name}/origin")
    if origin is not None:
        event.origins, event.preferred_origin_id = [origin], ResourceIdentifier(f"{name}/origin")
    return Catalog([event], resource_id=ResourceIdentifier(f"{name}/catalog"), creation_info=info)


def _origin(alert: Alert, info: CreationInfo, name: str) -> Origin | None:
    """QuakeML demands coordinates: those of the first station that has some, marked as fixed to a station; without any
    there is no origin, and the picks tell the time."""
    placed = [s for s in sorted(alert.stations, key=lambda s: s.onset) if s.latitude is not None]
    if not placed:
        return None
    return Origin(
        resource_id=ResourceIdentifier(name),
        time=UTCDateTime(ns=alert.onset),
        latitude=placed[0].latitude,
        longitude=placed[0].longitude,
        epicenter_fixed=True,
        evaluation_mode="automatic",
        evaluation_status="preliminary",
        quality=OriginQuality(used_station_count=len(alert.stations)),
        comments=[_comment("Not located: the time is the earliest onset, the place that of the first station.", name)],
        creation_info=info,
    )


def _comment(text: str, name: str) -> Comment:
    return Comment(text=text, resource_id=ResourceIdentifier(f"{name}/comment"))


def _pick(station: StationOnset, info: CreationInfo, name: str) -> Pick:
    network, code, location, *_ = station.source_id.removeprefix("FDSN:").split("_")
    return Pick(
        resource_id=ResourceIdentifier(name),
        time=UTCDateTime(ns=station.onset),
        waveform_id=WaveformStreamID(network_code=network, station_code=code, location_code=location),
        evaluation_mode="automatic",
        evaluation_status="preliminary",
        creation_info=info,
    )
