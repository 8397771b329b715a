"""Stations that operators muted until a time, as the page keeps them on Redis (`quake.alerts.Keys.mutes`). Pure.

A mute changes nothing in the daemon: the station is scored and takes part in events as before. The page dims what muted
stations alone detected, and the notifier keeps silent about it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from quake.alerts import Alert
from quake.times import Timestamp


class Mute(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    until: Timestamp
    by: str = Field(min_length=1, max_length=64)
    why: str = Field(min_length=1, max_length=500)
    since: Timestamp


def read_mutes(stored: Mapping[str, str], now_ns: int) -> dict[str, Mute]:
    """Those that stand, by station; what cannot be read mutes nobody."""
    mutes = {}
    for station, text in stored.items():
        try:
            mute = Mute.model_validate_json(text)
        except ValidationError:
            continue
        if mute.until > now_ns:
            mutes[station] = mute
    return mutes


def is_muted(alert: Alert, mutes: Container[str]) -> bool:
    """Whether all its stations are: one that is not muted is enough for an event to be heard of."""
    return all(station.source_id in mutes for station in alert.stations)
