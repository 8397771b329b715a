"""What a sink has to remember through a restart, on Redis beside its consumer group; and what operators muted there.

Not a second queue: what is to be delivered stays with the group until it is acknowledged.
"""

from __future__ import annotations

from typing import Any

from quake.alerts import Keys
from quake.connecting import connect
from streamer.notify.deciding import Told

TIMEOUT_S = 5.0
KEPT_S = 31 * 86_400
"""What was told of an alert is forgotten after this; alerts themselves stay on the stream for 30 days by default."""


class Memory:
    """Every call may raise `redis.RedisError`; what was to be kept is then kept by the next one."""

    def __init__(self, url: str, keys: Keys, name: str) -> None:
        self._client, self._keys = connect(url, TIMEOUT_S), keys
        self._key = f"{keys.prefix}:notify:{name}"
        self._unsaved: tuple[str, Told] | None = None

    def close(self) -> None:
        self._client.close()

    def told(self, alert_id: str) -> Told:
        self._save()
        text: Any = self._client.get(f"{self._key}:told:{alert_id}")
        pairs = (pair.split(":") for pair in (text or "").split())
        return tuple((int(revision), int(created_ns)) for revision, created_ns in pairs)

    def tell(self, alert_id: str, told: Told) -> None:
        """It was delivered, and with it what had been left out."""
        self._unsaved = alert_id, told
        self._save()

    def _save(self) -> None:
        if self._unsaved is None:
            return
        alert_id, told = self._unsaved
        text = " ".join(f"{revision}:{created_ns}" for revision, created_ns in told)
        with self._client.pipeline() as pipe:
            pipe.set(f"{self._key}:told:{alert_id}", text, ex=KEPT_S)
            pipe.delete(f"{self._key}:left_out")
            pipe.execute()
        self._unsaved = None

    def leave_out(self, reason: str) -> None:
        self._client.hincrby(f"{self._key}:left_out", reason)

    def left_out(self) -> dict[str, int]:
        found: Any = self._client.hgetall(f"{self._key}:left_out")
        return {reason: int(count) for reason, count in found.items()}

    def mutes(self) -> dict[str, str]:
        """Asked for with each alert: a mute holds from when it is given."""
        found: Any = self._client.hgetall(self._keys.mutes)
        return dict(found)

    def is_lost(self) -> bool:
        """Whether a loss of the heartbeat was told, and that it was found again not yet."""
        return bool(self._client.exists(f"{self._key}:lost"))

    def set_lost(self, lost: bool) -> None:
        if lost:
            self._client.set(f"{self._key}:lost", "1")
        else:
            self._client.delete(f"{self._key}:lost")
