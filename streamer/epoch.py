"""Which Redis this is, and with which data: an emptied one has another epoch, one that took over another run id."""

from __future__ import annotations

import uuid

import redis


def here(client: redis.Redis, key: str) -> str:
    """Epoch and run id, as the scripts ask for them; ``key`` is the epoch's, which is made where there is none."""
    with client.pipeline(transaction=False) as pipe:  # one way there and back: Redis may be far, or slow
        pipe.set(key, str(uuid.uuid4()), nx=True)
        pipe.get(key)
        pipe.info("server")
        _, epoch, server = pipe.execute()
    return f"{epoch} {server['run_id']}"
