"""Pieces of an archive scored by Ray's actors, on this machine or on the nodes of a cluster. https://docs.ray.io/

Ray is asked for processes, and to carry pieces and answers; order, bounds and what a lost process had are `Handout`'s.
Imports Ray, which is an extra.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from streamer import logs
from streamer.config import ConfigError
from streamer.ray_cluster import NO_QUAKE, RESOURCES, ROOM_S, cause_of, cluster, in_words, needs_of, one_line
from streamer.scan_handout import TRIES, Handout
from streamer.scan_piece import Scored
from streamer.scan_plan import Piece
from streamer.scan_pool import AHEAD, LOOK_S, Job, ProcessDiedError, cores
from streamer.scan_remote import RemoteScorer, seen, unpacked, with_whole_paths, without_secrets
from streamer.seldom import Seldom

log = logging.getLogger(__name__)


def score(
    job: Job, pieces: Sequence[Piece], stopping: Callable[[], bool], *, address: str | None, actors: int | None
) -> Iterator[Scored]:
    """An `streamer.scan_pool.Engine`. ``address``: of a cluster that this machine is a node of; without it one is started
    here, and ended. ``actors``: processes; as many as there is room for if not given.

    Raises `ConfigError`, `ProcessDiedError`, `streamer.objects.StoreError`, and whatever else scoring a piece raises."""
    if not pieces:
        return
    job = replace(job, config=without_secrets(job.config))
    needs = needs_of(job.config)
    with cluster(address, (actors or cores()) * needs["num_cpus"]):
        count = min(actors or _room(needs), len(pieces))
        lanes, handout = _Lanes(job, count, needs), Handout(map(with_whole_paths, pieces), count * AHEAD)
        while not stopping():
            yield from handout.in_turn()
            if handout.is_done:
                return
            lanes.give(handout)
            lanes.collect(handout)


def _room(needs: Mapping[str, int]) -> int:
    """Actors that the cluster as it is has room for."""
    there: Mapping[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return max(1, min(int(there.get(name, 0) // needs[key]) for key, name in RESOURCES.items() if needs[key]))


@dataclass(eq=False, slots=True)
class _Lane:
    actor: Any
    is_ready: bool = False
    has: list[int] = field(default_factory=list)
    """Numbers of pieces."""


class _Lanes:
    """Actors, and what they were asked."""

    def __init__(self, job: Job, count: int, needs: Mapping[str, int]) -> None:
        """Not restarted by Ray: another takes the place of one that is lost, and meanwhile its pieces go to those there are."""
        options: Any = {**needs, "max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
        self._make: Any = ray.remote(**options)(RemoteScorer)
        self._load = ray.put(job), version("quake"), logs.as_here()[0]
        self._count, self._needs = count, needs
        self._lanes: list[_Lane] = []
        self._asked: dict[Any, tuple[_Lane, int | None]] = {}
        """Answer to come -> whose, and of which piece; None: whether it is ready."""
        self._unborn = 0
        """Lost in a row before they were ready."""
        self._seldom, self._since_s = Seldom(log), time.monotonic()
        for _ in range(count):
            self._open()

    def give(self, handout: Handout) -> None:
        """To those that have least."""
        for most in range(AHEAD):
            for lane in self._lanes:
                if lane.is_ready and len(lane.has) <= most and (given := handout.give()) is not None:
                    number, piece = given
                    lane.has.append(number)
                    self._asked[lane.actor.score.remote(piece, seen(piece))] = lane, number

    def collect(self, handout: Handout) -> None:
        """What there is; waits a moment for it."""
        for answer in ray.wait([*self._asked], timeout=LOOK_S)[0]:
            self._take(answer, handout)
        if not any(lane.is_ready for lane in self._lanes) and time.monotonic() - self._since_s > ROOM_S:
            told = f"Ray has started none of {self._count} processes yet; each wants {in_words(self._needs)}"
            self._seldom.warning("room", time.monotonic(), told)

    def _open(self) -> None:
        lane = _Lane(self._make.remote())
        self._lanes.append(lane)
        self._asked[lane.actor.load.remote(*self._load)] = lane, None

    def _take(self, answer: Any, handout: Handout) -> None:
        lane, number = self._asked.pop(answer)
        try:
            content = ray.get(answer)
        except RayTaskError as error:
            raise cause_of(error) from error
        except RayError as error:
            self._lose(lane, handout, error)
            return
        if number is None:
            lane.is_ready, self._unborn = True, 0
        else:
            lane.has.remove(number)
            handout.take(number, unpacked(content))

    def _lose(self, lane: _Lane, handout: Handout, error: RayError) -> None:
        """Whether it is dead or only out of reach: nothing is asked of it any more."""
        if isinstance(error, RayActorError) and error.actor_init_failed:
            raise ConfigError(NO_QUAKE + one_line(error)) from error
        log.warning("a process of Ray's is lost; what it had goes to others: %s", one_line(error))
        self._lanes.remove(lane)
        self._asked = {answer: asked for answer, asked in self._asked.items() if asked[0] is not lane}
        ray.kill(lane.actor)
        handout.lost(lane.has, one_line(error))
        self._unborn += not lane.is_ready
        if self._unborn >= TRIES * self._count:
            raise ProcessDiedError(
                f"{self._unborn} processes in a row ended before they could score: {one_line(error)}"
            )
        self._open()
