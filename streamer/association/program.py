"""``quake-streamer associate``: the life of the process. SIGTERM hands the lease on; a second process stands by."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack, suppress
from importlib.metadata import version

import redis

from quake.alerts import Keys
from quake.connecting import connect
from streamer import systemd
from streamer.association.associator import WAIT_MS, Associator, Settings
from streamer.association.desk import Desk, EpochError
from streamer.association.metrics import AssociatorMetrics
from streamer.composition import rules
from streamer.config import Config, ConfigError
from streamer.http import serve
from streamer.inventory import read_stations
from streamer.process import Asked, signals
from streamer.publisher import TIMEOUT_S
from streamer.seldom import Seldom
from streamer.stages import NS

RETRY_S = (0.2, 2.0)
"""First and longest pause after Redis failed; doubled each time."""

log = logging.getLogger(__name__)


def run(config: Config, metrics: AssociatorMetrics | None = None) -> int:
    """Until SIGTERM or SIGINT; then 0. Raises `ConfigError` where it cannot start."""
    settings = settings_of(config)
    metrics = metrics or AssociatorMetrics()
    keys = Keys.of(config.mode, config.redis.prefix)
    try:
        client = connect(config.redis.url, TIMEOUT_S + WAIT_MS / 1000)
    except ValueError as error:
        raise ConfigError(f"redis.url: {error}") from error
    desk = Desk(client, keys, int(settings.lease_s * 1000), max(1, settings.retention_ns // NS))
    with ExitStack() as stack:
        stack.callback(client.close)
        asked = stack.enter_context(signals())
        stack.callback(serve(config.metrics, metrics, lambda: True).stop)
        log.info("quake %s: an associator, for shards that write to %s", version("quake"), keys.notes)
        systemd.notify("READY=1")
        Life(Associator(settings, desk, metrics), client, metrics).run(asked)
        systemd.notify("STOPPING=1")
    return 0


def settings_of(config: Config) -> Settings:
    """Raises `ConfigError`."""
    stations = read_stations(config.inventory, config.places)
    wanted = rules(config, stations)
    if wanted is None or not config.associator.enabled:
        raise ConfigError("associator.enabled is not set: every daemon decides events by itself")
    r = config.redis
    return Settings(
        mode=config.mode,
        rules=wanted,
        places=stations.places,
        lease_s=config.associator.lease_s,
        retention_ns=int(r.retention_d * 86_400 * NS),
        again_ns=int(r.retention_h * 3_600 * NS),
        max_age_ns=int(r.max_age_s * NS),
    )


class Life:
    """Rounds of an associator until it is asked to end; outlives every failure of Redis."""

    def __init__(self, associator: Associator, client: redis.Redis, metrics: AssociatorMetrics) -> None:
        self._associator, self._client, self._metrics = associator, client, metrics
        self._pause_s, self._seldom = RETRY_S[0], Seldom(log)

    def run(self, asked: Asked) -> None:
        while not asked.stop:
            self._metrics.tick()
            systemd.notify("WATCHDOG=1")
            try:
                self._associator.step()
                self._metrics.reachable()
                self._pause_s = RETRY_S[0]
            except EpochError:
                log.warning("Redis was restarted, emptied or replaced")
                self._fail("epoch")
            except redis.RedisError as error:
                self._seldom.warning(str(error), time.monotonic(), f"associating: {error}; trying again")
                self._fail(type(error).__name__)
            except Exception:
                log.exception(
                    "a fault in the associator; the lease is left, and what it did goes on from the checkpoint"
                )
                self._associator.give_up()
                self._fail("internal")
        with suppress(redis.RedisError):  # without Redis the lease ends by itself
            self._associator.stop()

    def _fail(self, cause: str) -> None:
        self._metrics.failed(cause)
        self._associator.fail()
        self._client.connection_pool.disconnect()  # a server that was demoted keeps its connections and refuses writes
        time.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, RETRY_S[1])
