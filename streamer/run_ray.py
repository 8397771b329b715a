"""All shards of a network as daemons on the nodes of a Ray cluster, each started anew elsewhere when its node is lost.

Ray finds room and tells who died. What makes that safe is in the daemons: resume points and triggers of every station lie on
Redis, which takes each alert once, also from a node that is only out of reach. Imports Ray, which is an extra.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from streamer import systemd
from streamer.config import Config, ConfigError
from streamer.keeper import Keeper, Plan
from streamer.process import signals
from streamer.ray_cluster import NO_QUAKE, RESOURCES, cause_of, cluster, needs_of, one_line
from streamer.reload import Budget
from streamer.seldom import Seldom

FAULTS, FAULTS_WITHIN_S = 5, 600.0
"""A shard that ends more often within so long ends all: whoever started this program is to know."""
WRONG = 2
"""Exit code of a daemon that another start would not help."""
LOOK_S = 0.2
ROOM_S = 30.0
"""Without a daemon that was started: Ray takes less where it has room."""
STOP_S = 30.0
"""Longest time that a stop waits for the daemons, which decide what they have and publish it."""

log = logging.getLogger(__name__)


def run(path: Path, config: Config, options: Sequence[str], address: str | None) -> int:
    """Until SIGTERM or SIGINT; then 0. 1 once a shard failed too often. ``options``: of the daemons' command lines.
    ``address``: as `streamer.scan_ray.score` has it. Raises `ConfigError`."""
    count, needs = config.shard.count, needs_of(config)
    if count == 1:
        raise ConfigError("--engine ray: keeps the shards of [shard], and its count is 1")
    with cluster(address, count * needs["num_cpus"]), signals() as asked:
        shards = Shards(Plan.of(path, options), count, needs)
        try:
            while not asked.stop:
                if not shards.look():
                    return 1
                if asked.reload:
                    asked.reload = False
                    log.warning("SIGHUP: the shards' configuration is read when this program is started")
        finally:
            systemd.notify("STOPPING=1")
            shards.stop()
        return 0


@dataclass(eq=False, slots=True)
class _Shard:
    """One of them, in its present life."""

    index: int
    actor: Any
    since_s: float = field(default_factory=time.monotonic)
    is_started: bool = False


class Shards:
    """An actor for each."""

    def __init__(self, plan: Plan, count: int, needs: Mapping[str, int]) -> None:
        # Not restarted by Ray: it would not say what it started, and where.
        options: Any = {**needs, "max_restarts": 0, "max_concurrency": 2, "scheduling_strategy": "SPREAD"}
        self._make: Any = ray.remote(**options)(Keeper)
        self._plan, self._count, self._needs = plan, count, needs
        self._budgets = [Budget(FAULTS, FAULTS_WITHIN_S) for _ in range(count)]
        self._asked: dict[Any, _Shard] = {}
        """Answer to come -> whose: the one to `Keeper.start`, then those to `Keeper.said`."""
        self._seldom, self._is_ready = Seldom(log), False
        for index in range(count):
            self._begin(index)

    def look(self) -> bool:
        """What there is; waits a moment for it. False where one failed too often. Raises `ConfigError`."""
        systemd.notify("WATCHDOG=1")
        lost = [shard for answer in self._answers(self._asked) if (shard := self._take(answer))]
        self._tell()
        return [self._restart(shard) for shard in lost].count(False) == 0

    def stop(self) -> None:
        """All daemons, each by a SIGTERM; those that do not end by themselves are ended."""
        running = {answer: shard for answer, shard in self._asked.items() if shard.is_started}
        for shard in running.values():
            shard.actor.stop.remote()
        until_s = time.monotonic() + STOP_S
        while running and time.monotonic() < until_s:
            for answer in self._answers(running):
                shard = running.pop(answer)
                with suppress(RayError):  # what is lost has ended
                    lines, code = ray.get(answer)
                    self._say(shard, lines)
                    if code is None:
                        running[shard.actor.said.remote()] = shard
        for shard in self._asked.values():
            ray.kill(shard.actor)

    @staticmethod
    def _answers(asked: Mapping[Any, _Shard]) -> list[Any]:
        """Waits a moment for one."""
        return list(ray.wait([*asked], num_returns=len(asked), timeout=LOOK_S)[0])

    def _begin(self, index: int) -> None:
        shard = _Shard(index, self._make.remote())
        self._asked[shard.actor.start.remote(self._plan, index)] = shard

    def _take(self, answer: Any) -> _Shard | None:
        """The shard, where its daemon is no more."""
        shard = self._asked.pop(answer)
        try:
            content = ray.get(answer)
        except RayTaskError as error:
            raise cause_of(error) from error
        except RayError as error:
            return self._lost(shard, error)
        if not shard.is_started:
            shard.is_started = True
            log.info("%s is on %s", self._name(shard), content)
        else:
            lines, code = content
            self._say(shard, lines)
            if code is not None:
                return self._ended(shard, code)
        self._asked[shard.actor.said.remote()] = shard
        return None

    def _lost(self, shard: _Shard, error: RayError) -> _Shard:
        """Whether it is dead or only out of reach."""
        if isinstance(error, RayActorError) and error.actor_init_failed:
            raise ConfigError(NO_QUAKE + one_line(error)) from error
        log.warning("%s is lost: %s", self._name(shard), one_line(error))
        ray.kill(shard.actor)
        return shard

    def _ended(self, shard: _Shard, code: int) -> _Shard:
        ray.kill(shard.actor)
        if code == WRONG:
            raise ConfigError(f"{self._name(shard)}: its daemon refuses the configuration, as is told above")
        log.warning("%s: its daemon ended with exit code %d", self._name(shard), code)
        return shard

    def _restart(self, shard: _Shard) -> bool:
        budget = self._budgets[shard.index]
        if not budget.spend():
            log.critical("%s failed more than %d times in %g s", self._name(shard), FAULTS, FAULTS_WITHIN_S)
            return False
        log.info("%s is started anew, %d more times in %g s allowed", self._name(shard), *budget.left)
        self._begin(shard.index)
        return True

    def _tell(self) -> None:
        """That all are at work, once; or that there is no room for one."""
        waiting = [shard for shard in self._asked.values() if not shard.is_started]
        if not waiting and not self._is_ready:
            self._is_ready = True
            systemd.notify("READY=1")
        for shard in waiting:
            if time.monotonic() - shard.since_s > ROOM_S:
                wanted = ", ".join(f"{RESOURCES[name]} {number}" for name, number in self._needs.items() if number)
                told = f"{self._name(shard)} is not started yet; Ray needs a node with {wanted} to spare"
                self._seldom.warning(("room", shard.index), time.monotonic(), told)

    def _name(self, shard: _Shard) -> str:
        return f"shard {shard.index}/{self._count}"

    def _say(self, shard: _Shard, lines: Sequence[str]) -> None:
        """As the daemon did: its lines are log lines already."""
        start = "" if "--log-json" in self._plan.options else f"{shard.index}/{self._count} "
        sys.stderr.writelines(f"{start}{line}\n" for line in lines)
