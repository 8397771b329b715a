"""What other programs of ours need to know and no subscriber does: notes for the associator, and how far the stations are for
whichever daemon takes one over.

Of the publisher's thread. Notes leave in the order of the outbox, each at least once.
"""

from __future__ import annotations

import time
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import redis

from streamer.handover import held
from streamer.outbox import Outbox
from streamer.stages import NS

if TYPE_CHECKING:
    from streamer.publisher import PublishSettings

BATCH = 64
"""Notes read together."""
MOST = 1_000
"""Notes sent before alerts and heartbeat have their turn."""
MOST_UNREAD = 10_000
"""Notes on the stream while nobody associates, some 10 MB; further ones wait in the outbox, where there is more room."""
HAND_OVER_S = 10.0
"""How often Redis is told how far the stations are: whoever takes one over decides so much of it again. Of a new one at once."""


class Teller:
    def __init__(self, settings: PublishSettings, client: redis.Redis) -> None:
        self._settings, self._client = settings, client
        self._script = client.register_script(files("streamer").joinpath("note.lua").read_text())
        self._here: str | None = None
        """The Redis that was told all below."""
        self._held: dict[str, str] = {}
        self._noted = self._points = 0
        """The newest note that was sent; how many resume points there were when Redis was told of them."""
        self._due_s = 0.0

    def tell(self, outbox: Outbox, *, last: bool = False) -> bool:
        """All that is new; False where this Redis is another than the outbox knows, and `last` where anything is left."""
        here = outbox.get("redis")
        if here != self._here:
            self._here, self._held, self._noted, self._due_s = here, {}, 0, 0.0
        if not self._tell_notes(outbox):
            return False
        if last or time.monotonic() >= self._due_s or outbox.points() != self._points:
            self._hand_over(outbox)
        return not (last and outbox.unsent_notes(1))

    def _tell_notes(self, outbox: Outbox) -> bool:
        end = self._noted + MOST
        while self._noted < end and (waiting := outbox.unsent_notes(BATCH, self._noted)):
            for sequence, note in waiting:
                outcome = self._send(note)
                if outcome != "sent":
                    return outcome == "held"
                self._noted = sequence
        return True

    def _send(self, note: str) -> str:
        keys = self._settings.keys
        return str(self._script(keys=[keys.notes, keys.epoch, keys.lease], args=[self._here or "", note, MOST_UNREAD]))

    def _hand_over(self, outbox: Outbox) -> None:
        """Once all that was decided up to there is published. Notes are marked here, as a mark costs a disk's flush; one
        that comes twice does no harm."""
        outbox.mark_notes_sent(self._noted)
        saved = outbox.settled()
        if saved is None:
            return
        settings = self._settings
        now = held(saved, outbox.identity, settings.fingerprint, settings.shard.has)
        moved: dict[Any, Any] = {station: text for station, text in now.items() if self._held.get(station) != text}
        if moved:
            with self._client.pipeline(transaction=False) as pipe:
                pipe.hset(settings.keys.stations, mapping=moved)
                pipe.expire(settings.keys.stations, max(1, settings.retention_ns // NS))
                pipe.execute()
        self._held, self._points, self._due_s = now, len(saved.resume), time.monotonic() + HAND_OVER_S
