"""A station goes from one daemon to another: what the one had decided of it lies on Redis, and the other goes on from there.

It is a trigger's state and the resume points as one transaction of the outbox had them, and is written once every alert decided
up to there is published. So whoever takes over decides again at most what came since, and with the same ids, which Redis takes
once; a detection that is open goes on, and no sample is passed over. Pure; `streamer.publisher` writes it, `streamer.daemon`
asks for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

from pydantic import BaseModel, ConfigDict, ValidationError

from streamer.outbox import Progress, Saved
from streamer.shard import Shard
from streamer.source import parse_pattern
from streamer.source.resume import ResumePoint
from streamer.stages import station_of
from streamer.trigger import TriggerState

log = logging.getLogger(__name__)

Wanted = Callable[[str], bool]
"""Of NET_STA."""


class Held(BaseModel):
    """What a daemon holds of one station."""

    model_config = ConfigDict(extra="ignore")  # a daemon of a newer release may have written it

    by: str
    """Identity of the outbox that it stood in."""
    fingerprint: str
    """Of grid and model, without which the triggers' states mean nothing."""
    resume: dict[str, tuple[int | None, int | None, int | None]]
    """Server -> sequence, time and packet's time of a `ResumePoint`."""
    triggers: dict[str, TriggerState]

    @property
    def newest_ns(self) -> int:
        return max((time_ns or 0 for _, time_ns, _ in self.resume.values()), default=0)


def held(saved: Saved, by: str, fingerprint: str, wanted: Wanted) -> dict[str, str]:
    """NET_STA -> JSON, of the stations that are ``wanted`` and have a resume point."""
    found: dict[str, Held] = {}
    for (server, station), point in saved.resume.items():
        if wanted(station):
            one = found.setdefault(station, Held(by=by, fingerprint=fingerprint, resume={}, triggers={}))
            one.resume[server] = (point.sequence, point.time_ns, point.packet_ns)
    for subject, state in saved.triggers.items():
        if (station := station_of(subject)) in found:
            found[station].triggers[subject] = state
    return {station: one.model_dump_json() for station, one in found.items()}


def read(texts: Mapping[str, str]) -> dict[str, Held]:
    """What was written by `held`, without what cannot be read: such a station begins "from now", as a new one does."""
    found: dict[str, Held] = {}
    for station, text in texts.items():
        try:
            found[station] = Held.model_validate_json(text)
        except ValidationError as error:
            log.error("what Redis knows of station %s cannot be read: %s", station, error)
    return found


def taken_over(own: Saved, others: Mapping[str, Held], by: str, fingerprint: str, wanted: Wanted) -> Progress:
    """What goes into the own outbox: of stations it knows nothing of, and of those with which another daemon, with the same
    model and grid, has gone on since."""
    triggers: dict[str, TriggerState] = {}
    resume: dict[tuple[str, str], ResumePoint] = {}
    newest = _newest(own.resume)
    for station, one in others.items():
        is_same = one.fingerprint == fingerprint
        gone_on = one.by != by and is_same and one.newest_ns > newest.get(station, 0)
        if wanted(station) and (station not in newest or gone_on):
            resume |= {(server, station): ResumePoint(*point) for server, point in one.resume.items()}
            triggers |= one.triggers if is_same else {}
    return Progress(triggers=triggers, resume=resume)


def _newest(points: Mapping[tuple[str, str], ResumePoint]) -> dict[str, int]:
    newest: dict[str, int] = {}
    for (_, station), point in points.items():
        newest[station] = max(newest.get(station, 0), point.time_ns or 0)
    return newest


def within(saved: Saved, shard: Shard) -> Saved:
    """Without the triggers of stations that another daemon has by now: coincidence would wait for them."""
    return replace(saved, triggers={name: s for name, s in saved.triggers.items() if shard.has(station_of(name))})


def selects(patterns: Iterable[str], shard: Shard) -> Wanted:
    """Whether a station, ``NET_STA``, is of these patterns and of the shard."""
    parsed = [parse_pattern(text) for text in patterns]

    def wanted(name: str) -> bool:
        network, _, station = name.partition("_")
        return shard.has(name) and any(
            fnmatchcase(network, one.network) and fnmatchcase(station, one.station) for one in parsed
        )

    return wanted
