"""Stations that another daemon had before: what Redis knows of them goes into the outbox before anything is asked of a server.

Once for each number of shards and each selection, and for an outbox that is new. What is taken over is `streamer.handover`'s decision.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import redis

from quake.alerts import Keys, Mode
from quake.connecting import connect
from streamer import systemd
from streamer.composition import Watch, shard
from streamer.handover import Held, read, selects, taken_over
from streamer.hooks import Hooks
from streamer.outbox import Outbox, Progress
from streamer.publisher import TIMEOUT_S
from streamer.seldom import Seldom

RETRY_S = 0.5
SHARD = "shard"
"""Of the outbox's values: the shard and the patterns whose stations it knows; empty where it was damaged."""

log = logging.getLogger(__name__)


def take_over(watch: Watch, outbox: Outbox, hooks: Hooks, stopping: Callable[[], bool]) -> bool:
    """False where it was stopped meanwhile.

    One of several shards waits for Redis: a station would otherwise begin "from now" although another daemon told how far it
    was. A daemon that is alone does not; and with a replay it does not even ask, unless its outbox was damaged: a recording is
    replayed to see it again.
    """
    here, fingerprint = shard(watch.config), watch.scorer.fingerprint
    patterns = [pattern for source in watch.config.source for pattern in source.select]
    asked = " ".join([str(here), *sorted(patterns)])
    known, is_replayed_alone = outbox.get(SHARD), watch.config.mode is Mode.REPLAY and here.count == 1
    if known == asked or (known is None and is_replayed_alone):
        return True
    others = _ask(watch, hooks, stopping, is_patient=here.count > 1)
    if others is None:
        return not stopping()
    wanted = selects(patterns, here)
    found = taken_over(outbox.load(fingerprint), others, outbox.identity, fingerprint, wanted)
    found.values = {SHARD: asked}
    outbox.commit(found)
    if found.resume:
        stations = sorted({station for _, station in found.resume})
        log.info("shard %s: going on where another daemon stopped: %s", here, ", ".join(stations))
    return True


def _ask(watch: Watch, hooks: Hooks, stopping: Callable[[], bool], *, is_patient: bool) -> dict[str, Held] | None:
    """None where Redis does not answer, and nobody waits for it any longer."""
    key = Keys.of(watch.config.mode, watch.config.redis.prefix).stations
    seldom = Seldom(log)
    with closing(connect(watch.config.redis.url, TIMEOUT_S)) as client:
        while not stopping():
            try:
                found: Any = client.hgetall(key)
                return read(found)
            except redis.RedisError as error:
                hooks.publish_failed(type(error).__name__)
                told = f"how far other daemons were is not known: {error}"
                if not is_patient:
                    log.warning("%s; stations that are new here begin from now", told)
                    return None
                seldom.warning("redis", time.monotonic(), f"{told}; waiting for Redis, stations may have been theirs")
                systemd.notify("READY=1")  # it waits as it should: no reason to be started anew
                hooks.tick()
                time.sleep(RETRY_S)
    return None


def forget(outbox: Outbox) -> None:
    """The next start asks Redis as that of a new outbox does: meanwhile another daemon may go on with its stations."""
    outbox.commit(Progress(values={SHARD: ""}))
