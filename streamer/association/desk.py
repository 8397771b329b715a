"""Where the associator reads and writes: notes, lease, token, checkpoint and events, all on one Redis.

Whatever it writes, a script holds its token against the newest one first: an associator that was paused while another took
over finds that out before a byte is written, however late it wakes up. Decides nothing about events.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import redis
from pydantic import BaseModel, ConfigDict

from quake.alerts import Alert, Keys
from streamer.association.association import AssociationState
from streamer.epoch import here

START = "0-0"
"""Before a stream's first entry."""


class FencedError(Exception):
    """Another one holds the lease."""


class EpochError(Exception):
    """This Redis is not the one that was taken hold of, or has lost its data."""


class Checkpoint(BaseModel):
    """The state as it was after an entry of the stream, and after all events up to there were published."""

    model_config = ConfigDict(extra="forbid")

    entry: str
    state: AssociationState


@dataclass(frozen=True, slots=True)
class Entry:
    """One of the stream of notes."""

    id: str
    note: str | None
    """None: a release."""

    @property
    def time_ms(self) -> int:
        """When Redis took it, since 1970."""
        return int(self.id.partition("-")[0])


class Desk:
    """Every call may raise `redis.RedisError`; those that write `FencedError`."""

    def __init__(self, client: redis.Redis, keys: Keys, lease_ms: int, retention_s: int) -> None:
        self._client, self._keys, self._lease_ms, self._retention_s = client, keys, lease_ms, retention_s
        self.who = str(uuid.uuid4())
        self.token = ""
        """Of the lease; empty without."""
        self.here = ""
        """Epoch and run id of the Redis that it was taken on."""
        folder = files("streamer")
        self._act = client.register_script(folder.joinpath("association", "act.lua").read_text())
        self._publish = client.register_script(folder.joinpath("publish.lua").read_text())

    # -- the lease -------------------------------------------------------------------------------------------------------------

    def take(self) -> bool:
        """Whether the lease is this one's now."""
        self.here = here(self._client, self._keys.epoch)
        self.token = self._do("take", self._lease_ms)
        return bool(self.token)

    def keep(self) -> None:
        self._fenced("keep", self._lease_ms)

    def leave(self) -> None:
        """For another one to take it at once."""
        self._fenced("leave")
        self.token = ""

    def _fenced(self, what: str, *arguments: Any) -> None:
        if self._do(what, *arguments) == "fenced":
            raise FencedError

    def _do(self, what: str, *arguments: Any) -> str:
        keys = self._keys
        names = [keys.lease, keys.lease_number, keys.lease_token, keys.notes, keys.checkpoint]
        return str(self._act(keys=names, args=[what, self.who, self.token, *arguments]))

    # -- notes -----------------------------------------------------------------------------------------------------------------

    def load(self) -> Checkpoint | None:
        """Raises ValueError where it cannot be read."""
        text: Any = self._client.get(self._keys.checkpoint)
        return None if text is None else Checkpoint.model_validate_json(text)

    def save(self, checkpoint: Checkpoint) -> None:
        """Notes up to there are needed by nobody any more."""
        self._fenced("checkpoint", checkpoint.model_dump_json(), checkpoint.entry)

    def release(self) -> None:
        self._fenced("release")

    def read(self, after: str, count: int, wait_ms: int) -> list[Entry]:
        """The next entries, waiting for the first."""
        found: Any = self._client.xread({self._keys.notes: after}, count=count, block=wait_ms)
        streams = found.values() if isinstance(found, dict) else [entries for _, entries in found or []]
        return [Entry(ident, fields.get("note")) for entries in streams for ident, fields in _flat(entries)]

    # -- events ----------------------------------------------------------------------------------------------------------------

    def publish(self, alert: Alert, oldest_ms: int) -> str:
        """``sent``, or ``repeat`` where this revision was there. ``oldest_ms``: entries before then are trimmed."""
        keys = self._keys
        stream = keys.stream(alert.kind)
        names = [stream, keys.seen(alert.id), keys.opened(alert.stations[0].source_id), keys.epoch, keys.lease_token]
        told: list[Any] = [self.here, alert.id, alert.revision, alert.model_dump_json(), stream]
        outcome = str(self._publish(keys=names, args=[*told, self._retention_s, oldest_ms, "", 0, self.token]))
        if outcome == "fenced":
            raise FencedError
        if outcome == "epoch":
            raise EpochError
        return outcome


def _flat(entries: Any) -> list[tuple[str, dict[str, str]]]:
    """The third protocol nests them once more."""
    if entries and isinstance(entries[0], list) and entries[0] and not isinstance(entries[0][0], str):
        return [entry for inner in entries for entry in _flat(inner)]
    return list(entries)
