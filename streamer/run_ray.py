"""All shards of a network as daemons on the nodes of a Ray cluster, each started anew when it fails, and elsewhere when its node is lost.

Ray finds room and tells who died. What makes that safe is in the daemons: resume points and triggers of every station lie on
Redis, which takes each alert once, also from a node that is only out of reach. Imports Ray, which is an extra.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from streamer import systemd
from streamer.config import Config, ConfigError
from streamer.keeper import Keeper, Plan, Said
from streamer.process import signals
from streamer.ray_cluster import NO_QUAKE, ROOM_S, cause_of, cluster, in_words, needs_of, one_line
from streamer.reload import Budget
from streamer.seldom import Seldom

FAULTS, FAULTS_WITHIN_S = 5, 600.0
"""Once all shards fail more often within so long, and none is at work, this program ends: whoever started it is to know. One
that fails alone is no reason to end the others."""
PAUSE_S = (2.0, 60.0)
"""First and longest before a shard is started anew; doubled with each fault within `FAULTS_WITHIN_S`."""
WRONG = 2
"""Exit code of a daemon that refuses its configuration."""
LOOK_S = 0.2
READY_S = 180.0
"""From its start until a daemon says that it is at work, which it also does while it waits for Redis."""
SILENT_S = 60.0
"""A keeper answers within a second; one that does not hangs, or is out of reach."""
STARTING_S = 5.0
"""A stop waits so long for daemons that are just being started."""
STOP_S = 30.0
"""And so long for all, which decide what they have and publish it."""

log = logging.getLogger(__name__)


def run(path: Path, config: Config, options: Sequence[str], address: str | None) -> int:
    """Until SIGTERM or SIGINT; then 0. 1 once all shards failed too often. ``options``: of the daemons' command lines.
    ``address``: as `streamer.scan_ray.score` has it. Raises `ConfigError`, also where no shard's daemon takes its configuration."""
    count, needs = config.shard.count, needs_of(config)
    if count == 1:
        raise ConfigError("--engine ray: keeps the shards of [shard], and its count is 1")
    if config.metrics.port + count > 1 << 16:
        raise ConfigError(f"metrics.port: {config.metrics.port} and those after it are not {count} ports")
    plan = Plan.of(path, count, options)
    with signals() as asked, cluster(address, count * needs["num_cpus"]):
        shards = Shards(plan, needs)
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


class Kept(Keeper):
    """That also knows the node, in Ray's words."""

    def begin(self, plan: Plan, index: int) -> tuple[str, str]:
        return self.start(plan, index), ray.get_runtime_context().get_node_id()


@dataclass(eq=False, slots=True)
class _Life:
    """A shard's present actor and daemon."""

    index: int
    actor: Any
    begun_s: float = field(default_factory=time.monotonic)
    asked_s: float = 0.0
    node: str | None = None
    """None until it was started."""
    is_ready: bool = False


class FaultError(Exception):
    """A shard's life is over; the text says why."""


class EndedError(FaultError):
    """Its node is well, and what it had not published lies there."""


class Shards:
    """A life of each, or a time when it begins."""

    def __init__(self, plan: Plan, needs: Mapping[str, int]) -> None:
        self._plan, self._needs = plan, needs
        self._budgets = [Budget(FAULTS, FAULTS_WITHIN_S) for _ in range(plan.count)]
        self._asked: dict[Any, _Life] = {}
        """Answer to come -> whose: the one to `Kept.begin`, then those to `Kept.said`."""
        self._due: dict[int, tuple[float, str | None]] = dict.fromkeys(range(plan.count), (0.0, None))
        """Shards without a life -> when they begin one, and on which node if it is there."""
        self._refused: set[int] = set()
        self._failing: set[int] = set()
        """Shards that failed too often, and were not at work since."""
        self._seldom, self._is_told = Seldom(log), False

    def look(self) -> bool:
        """What there is; waits a moment for it. False where all failed too often. Raises `ConfigError`."""
        systemd.notify("WATCHDOG=1")
        self._begin()
        for life, fault in [*self._faults()]:
            self._fail(life, fault)
        self._tell()
        return len(self._failing) < self._plan.count

    def stop(self) -> None:
        """All daemons, each by a SIGTERM; those that do not end by themselves are ended."""
        began_s, lives = time.monotonic(), [*self._asked.values()]
        for life in lives:
            if life.node is not None:
                life.actor.stop.remote()
        while self._asked and (waited_s := time.monotonic() - began_s) < STOP_S:
            if waited_s > STARTING_S and all(life.node is None for life in self._asked.values()):
                break
            for answer in self._answers():
                self._stopped(answer)
        for life in lives:
            ray.kill(life.actor)

    def _stopped(self, answer: Any) -> None:
        life = self._asked[answer]
        is_new = life.node is None
        with suppress(ConfigError, FaultError):  # what is lost has ended
            self._take(answer)
            if is_new:
                life.actor.stop.remote()

    def _answers(self) -> list[Any]:
        """Waits a moment for one."""
        if not self._asked:
            time.sleep(LOOK_S)
            return []
        return list(ray.wait([*self._asked], num_returns=len(self._asked), timeout=LOOK_S)[0])

    def _begin(self) -> None:
        """What is due."""
        for index, (due_s, node) in [*self._due.items()]:
            if time.monotonic() < due_s:
                continue
            del self._due[index]
            # Not restarted by Ray: it would not say what it started, and where.
            where = NodeAffinitySchedulingStrategy(node, soft=True) if node else "SPREAD"
            options: Any = {**self._needs, "max_restarts": 0, "max_concurrency": 2, "scheduling_strategy": where}
            life = _Life(index, ray.remote(**options)(Kept).remote())
            self._asked[life.actor.begin.remote(self._plan, index)] = life

    def _faults(self) -> Iterator[tuple[_Life, FaultError]]:
        """Lives that are over, and why. Raises `ConfigError`."""
        for answer in self._answers():
            life = self._asked[answer]
            try:
                self._take(answer)
            except FaultError as error:
                yield life, error
        for answer, life in [*self._asked.items()]:
            if fault := _overdue(life):
                del self._asked[answer]
                yield life, FaultError(fault)

    def _take(self, answer: Any) -> None:
        """Raises `FaultError` where the life is over; `ConfigError` where all shards were refused."""
        life = self._asked.pop(answer)
        try:
            content = ray.get(answer)
        except RayTaskError as error:
            raise self._refuse(life, str(cause_of(error))) from error
        except RayError as error:
            if isinstance(error, RayActorError) and error.actor_init_failed:
                raise self._refuse(life, NO_QUAKE + one_line(error)) from error
            raise FaultError(f"is lost: {one_line(error)}") from error  # whether it is dead or only out of reach
        life.asked_s = time.monotonic()
        if isinstance(content, Said):
            self._hear(life, content)
        else:
            told, life.node = content
            life.begun_s = life.asked_s
            log.info("%s is on %s", self._name(life.index), told)
        self._asked[life.actor.said.remote()] = life

    def _hear(self, life: _Life, said: Said) -> None:
        self._say(life, said.lines)
        if said.is_ready:
            life.is_ready = True
            self._refused.discard(life.index)
            self._failing.discard(life.index)
        if said.code == WRONG:
            raise self._refuse(life, "its daemon refuses the configuration, as is told above")
        if said.code is not None:
            raise EndedError(f"its daemon ended with exit code {said.code}")

    def _refuse(self, life: _Life, text: str) -> Exception:
        """What one node refuses, another may take; what all refuse, somebody has to mend."""
        self._refused.add(life.index)
        if len(self._refused) == self._plan.count:
            return ConfigError(f"{self._name(life.index)}: {text}")
        return FaultError(text)

    def _fail(self, life: _Life, fault: FaultError) -> None:
        """The shard is started anew, after its first fault where it was, if it may."""
        ray.kill(life.actor)
        budget, name = self._budgets[life.index], self._name(life.index)
        if not budget.spend():
            self._failing.add(life.index)
        faults = FAULTS - budget.left[0]
        pause_s = min(PAUSE_S[0] * 2 ** (faults - 1), PAUSE_S[1])
        log.error("%s: %s; started anew in %g s (fault %d within %g s)", name, fault, pause_s, faults, FAULTS_WITHIN_S)
        stays = faults == 1 and isinstance(fault, EndedError)
        self._due[life.index] = time.monotonic() + pause_s, life.node if stays else None

    def _tell(self) -> None:
        """That all are at work; or that there is no room for some, which is no reason to end the others."""
        lives = [*self._asked.values()]
        waiting = [one for one in lives if one.node is None and time.monotonic() - one.begun_s > ROOM_S]
        for life in waiting:
            told = (
                f"{self._name(life.index)} is not started yet; Ray needs a node with {in_words(self._needs)} to spare"
            )
            self._seldom.warning(("room", life.index), time.monotonic(), told)
        if not self._is_told and not self._due and all(life.is_ready or life in waiting for life in lives):
            self._is_told = True
            systemd.notify("READY=1")

    def _name(self, index: int) -> str:
        return f"shard {index}/{self._plan.count}"

    def _say(self, life: _Life, lines: Sequence[str]) -> None:
        """As the daemon did: its lines are log lines already."""
        shard = f"{life.index}/{self._plan.count}"
        for line in lines:
            is_json = "--log-json" in self._plan.options and line.startswith("{")
            sys.stderr.write(f'{{"shard": "{shard}", {line[1:]}\n' if is_json else f"{shard} {line}\n")


def _overdue(life: _Life) -> str | None:
    now_s = time.monotonic()
    if life.node is not None and now_s - life.asked_s > SILENT_S:
        return f"nothing was heard of it for {SILENT_S:g} s"
    if life.node is not None and not life.is_ready and now_s - life.begun_s > READY_S:
        return f"its daemon was not at work within {READY_S:g} s"
    return None
