"""What operators say of alerts: kept on Redis as said, and handed on as labels that `quake-trainer` reads.

The file has one line for each station of each alert that was called an earthquake or a false alarm, in the format of the
trainer's data source ``marks``. What was withdrawn is not in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import redis
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from quake.alerts import Alert, Keys
from quake.times import Timestamp, format_ns

LABELS = ("earthquake", "false_alarm", "withdrawn")
"""Of these the newest stands; the others are beside them."""
READ_AT_ONCE = 1_000


class Said(BaseModel):
    """What the page sends."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    mark: Literal["acknowledged", "earthquake", "false_alarm", "withdrawn", "comment"]
    by: str = Field(min_length=1, max_length=64)
    comment: str = Field(default="", max_length=2_000)

    @model_validator(mode="after")
    def _comments_say_something(self) -> Said:
        if self.mark == "comment" and not self.comment:
            raise ValueError("a comment without a word")
        return self


class Onset(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    station: str
    onset: Timestamp


class Mark(BaseModel):
    """What is stored: all that the label needs, for alerts are forgotten after a month."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str
    mark: str
    by: str
    comment: str = ""
    time: Timestamp
    stations: tuple[Onset, ...]


def of(alert: Alert, said: Said, now_ns: int) -> Mark:
    stations = tuple(Onset(station=_sensor(s.source_id), onset=s.onset) for s in alert.stations)
    return Mark(id=alert.id, mark=said.mark, by=said.by, comment=said.comment, time=now_ns, stations=stations)


def _sensor(source_id: str) -> str:
    """``FDSN:NET_STA_LOC``: without band and source, which the trainer finds in its archive."""
    return "_".join(source_id.split("_")[:3])


def lines(marks: Iterable[Mark]) -> Iterator[str]:
    """For the trainer. ``marks``: in the order in which they were said."""
    standing = {mark.id: mark for mark in marks if mark.mark in LABELS}
    for mark in standing.values():
        for at in mark.stations if mark.mark != "withdrawn" else ():
            label = {"id": mark.id, "station": at.station, "onset": format_ns(at.onset), "mark": mark.mark}
            yield json.dumps(label | {"comment": mark.comment, "by": mark.by}, ensure_ascii=False)


def read_entry(fields: dict[str, str]) -> Mark | None:
    """None for what somebody else wrote there."""
    try:
        return Mark.model_validate_json(fields.get("mark", ""))
    except ValidationError:
        return None


def read_all(client: redis.Redis, keys: Keys) -> tuple[Sequence[Mark], str]:
    """In order, and the entry to go on after."""
    marks: list[Mark] = []
    last = "0-0"
    while True:
        entries: Any = client.xrange(keys.marks, f"({last}", count=READ_AT_ONCE)
        if not entries:
            return marks, last
        marks += [mark for _, fields in entries if (mark := read_entry(fields))]
        last = entries[-1][0]


def store(client: redis.Redis, keys: Keys, mark: Mark) -> None:
    client.xadd(keys.marks, {"mark": mark.model_dump_json()})
