"""What the table of ``quake-streamer watch`` says: what daemons write on Redis of themselves, again and again."""

from __future__ import annotations

import json
from typing import Any

import redis

from quake.alerts import Keys
from streamer.dashboard.stations import described
from streamer.mutes import read_mutes
from streamer.stages import NS
from streamer.terminal.table import Fact, Shown

NOBODY = Fact("daemons", "none tells of its stations", is_fault=True)


def read(client: redis.Redis, keys: Keys, now_ns: int) -> Shown:
    """Of every daemon that beats. Redis' own fault is a fact among the others."""
    try:
        beats: Any = client.hgetall(keys.heartbeat)
        mutes: Any = client.hgetall(keys.mutes)
        written: Any = client.mget([keys.live_state(name) for name in beats]) if beats else []
    except redis.RedisError as error:
        client.connection_pool.disconnect()
        return Shown("", {}, [Fact("Redis", f"not reachable: {error}", is_fault=True)])
    states = [json.loads(text) for text in written if text]
    return Shown(
        ", ".join(
            sorted({f"{state['model']['name']} {state['model']['version']}, {state['mode']}" for state in states})
        ),
        described(states, read_mutes(mutes, now_ns), now_ns / NS),
        [Fact("Redis", "ok"), *(map(_daemon, states) if states else [NOBODY])],
    )


def _daemon(state: Any) -> Fact:
    health = state["health"]
    told = f"{state['servers']} server(s), {health.get('outbox_depth', 0)} to send, {health.get('behind_s', 0.0):.1f} s behind"
    dropping = bool(health.get("dropping_windows"))
    return Fact(state["daemon"], f"{told}, dropping windows" if dropping else told, is_fault=dropping)
