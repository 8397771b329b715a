"""A network shared out among daemons: stations that move, and events that one associator at a time decides. Real processes."""

from __future__ import annotations

import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import redis
from daemon_harness import Life, Place, wait_for
from drill_report import judge
from drill_servers import hurry
from test_same_alerts import ends

from quake.alerts import Alert, Kind
from streamer.server import Record, ReplayServer
from streamer.shard import owner
from streamer.stages import station_of

ASSOCIATOR = (sys.executable, "-m", "streamer", "associate")
PAUSED = (sys.executable, str(Path(__file__).with_name("paused_associator.py")))
SECTION = "shards"
CROWD = 7
"""Associators."""
MANY = 6
"""Shards, of which three have one or two of the recording's four stations, and the others none."""
LONGEST_S = 240.0
"""That anything is waited for: several processes that load torch, on whatever machine."""
HOLD_S = 600.0
"""Of data, all of it: the daemons here share a machine, and one that is behind is to be waited for, however far."""


def shard(
    place: Place, seedlink: str, index: int, count: int, name: str = "", associator: bool = False
) -> tuple[Place, Path]:
    """A folder of its own, and the same prefix on Redis."""
    mine = Place(place.folder / (name or f"shard-{index}"), place.redis_url, place.prefix)
    mine.folder.mkdir(exist_ok=True)
    told = "[associator]\nenabled = true\nlease_s = 1.0\n" if associator else ""
    top = f"{told}[shard]\ncount = {count}\nindex = {index}\n"
    config = mine.configure(seedlink, hold_s=HOLD_S, top=top)
    config.write_text(config.read_text().replace("min_stations", "flowing_s = 600.0\nmin_stations"))
    return mine, config


def of_shard(records: list[Record], index: int, count: int) -> dict[str, int]:
    """Its stations' ends."""
    return {name: ns for name, ns in ends(records).items() if owner(station_of(name), count) == index}


def used(records: list[Record], count: int) -> list[int]:
    """The shards that have a station: one that has none is never connected."""
    return sorted({owner(station_of(name), count) for name in ends(records)})


def detections(alerts: Sequence[Alert]) -> list[Alert]:
    return [alert for alert in alerts if alert.kind is Kind.DETECTION]


def whole(alerts: Sequence[Alert]) -> set[tuple[object, ...]]:
    """Events with all that follows from the data."""
    return {
        (a.id, a.revision, a.status, a.on_time, a.off_time, tuple(s.detection_id for s in a.stations), a.model.sha256)
        for a in alerts
        if a.kind is Kind.EVENT
    }


@pytest.mark.drill
@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_another_number_of_shards_in_the_midst_of_an_earthquake(
    place: Place, demo_records: list[Record], undisturbed: list[Alert], how: signal.Signals
) -> None:
    """Two daemons, of which one ends while a detection is open at the station that will move; then three."""
    stations = sorted({station_of(name) for name in ends(demo_records)})
    moved = [name for name in stations if owner(name, 2) != owner(name, MANY)]
    after = used(demo_records, MANY)
    assert (used(demo_records, 2), len(after), len(moved)) == ([0, 1], 3, 1)
    with ReplayServer(demo_records, speed=6.0, wait_clients=2) as server:
        with ExitStack() as stack:
            two = [shard(place, server.address, index, 2) for index in range(2)]
            lives = [stack.enter_context(mine.start(config)) for mine, config in two]
            opened = moved_and_open(place, moved)
            wait_for("a detection is open at a station that will move", opened, LONGEST_S)
            lives[owner(moved[0], 2)].process.send_signal(how)
            lives[1 - owner(moved[0], 2)].kill()
            lives[owner(moved[0], 2)].process.wait(LONGEST_S)
        with ExitStack() as stack:
            many = [shard(place, server.address, index, MANY) for index in after]
            lives = [stack.enter_context(mine.start(config)) for mine, config in many]
            hurry(server)
            for index, life in zip(after, lives, strict=True):
                life.wait_newest(of_shard(demo_records, index, MANY), LONGEST_S)
            assert [life.stop() for life in lives] == [0, 0, 0]
            told = f"going on where another daemon stopped: {moved[0]}"
            assert told in lives[after.index(owner(moved[0], MANY))].text()
    judge(
        SECTION,
        f"two daemons, one ended ({how.name}) while a detection is open; then three, one with a station that was that one's",
        "no sample lost: each station's detections go on, and are those of one daemon",
        detections(place.published()),
        detections(undisturbed),
        sabotage="handover.py: taken_over leaves the resume points out",
    )


def moved_and_open(place: Place, moved: Sequence[str]) -> Callable[[], bool]:
    def look() -> bool:
        told = [a for a in detections(place.published()) if station_of(a.stations[0].source_id) in moved]
        closed = {a.id for a in told if a.revision}
        return any(a.id not in closed for a in told)

    return look


def is_open(place: Place) -> bool:
    """Whether an event is told and not closed."""
    told = [a for a in place.published() if a.kind is Kind.EVENT]
    return {a.id for a in told} != {a.id for a in told if a.off_time}


# -- the associator -----------------------------------------------------------------------------------------------------------


def associator(
    place: Place, seedlink: str, name: str, command: Sequence[str] = ASSOCIATOR, *more: str, lease_s: float = 1.0
) -> Life:
    mine, config = shard(place, seedlink, 0, 1, name, associator=True)
    config.write_text(config.read_text().replace("lease_s = 1.0", f"lease_s = {lease_s}"))
    return mine.start(config, command, more)


def test_an_associator_takes_the_lease_and_leaves_it_at_a_stop(place: Place) -> None:
    with associator(place, "seedlink://127.0.0.1:1", "associator") as life:
        wait_for("it associates", lambda: holds(life), LONGEST_S)
        wait_for("it is ready", lambda: life.get("/readyz")[0] == 200, LONGEST_S)
        assert life.get("/healthz")[0] == 200
        with redis.Redis.from_url(place.redis_url) as client:
            assert client.exists(place.keys.lease)
            assert life.stop() == 0
            assert not client.exists(place.keys.lease)


def holds(life: Life) -> bool:
    return life.process.poll() is None and sum(life.metric("quake_associator_holds_lease").values()) == 1.0


def three_shards(stack: ExitStack, place: Place, server: ReplayServer) -> list[Life]:
    made = [shard(place, server.address, index, MANY, associator=True) for index in used(server.records, MANY)]
    return [stack.enter_context(mine.start(config)) for mine, config in made]


def finish(place: Place, lives: Sequence[Life], records: list[Record], undisturbed: list[Alert]) -> list[Alert]:
    for index, life in zip(used(records, MANY), lives, strict=True):
        life.wait_newest(of_shard(records, index, MANY), LONGEST_S)
    with suppress(AssertionError):  # what is missing is told by who compares
        wait_for("all events are told", lambda: whole(place.published()) >= whole(undisturbed), LONGEST_S / 2)
    assert [life.stop() for life in lives] == [0] * len(lives)
    return place.published()


@pytest.mark.drill
@pytest.mark.timeout(900)
def test_associators_are_killed_in_the_midst_of_earthquakes(
    place: Place, demo_records: list[Record], undisturbed: list[Alert]
) -> None:
    """The one at work, with each new revision of an event and now and then besides; one of those that stand by goes on."""
    chance, gaps_s, told, during = random.Random(3), [], 0, 0
    with ExitStack() as stack, ReplayServer(demo_records, speed=3.0, wait_clients=3) as server:
        crowd = [stack.enter_context(associator(place, server.address, f"associator-{n}")) for n in range(CROWD)]
        wait_for("they are ready", lambda: all(life.get("/readyz")[0] == 200 for life in crowd), LONGEST_S)
        lives = three_shards(stack, place, server)
        wait_for("data come", lambda: all(life.metric("quake_packets_total") for life in lives), LONGEST_S)
        while len(crowd) > 1 and len(events := whole(place.published())) < len(whole(undisturbed)):
            if len(events) == told and chance.random() > 0.01:
                time.sleep(0.05)
                continue
            wait_for("one of them is at work", lambda: any(map(holds, crowd)), LONGEST_S)
            active = next(life for life in crowd if holds(life))
            active.kill()
            killed_s, told = time.monotonic(), len(whole(place.published()))
            crowd.remove(active)
            during += is_open(place)
            wait_for("another one takes over", lambda: any(map(holds, crowd)), LONGEST_S)
            gaps_s.append(time.monotonic() - killed_s)
        published = finish(place, lives, demo_records, undisturbed)
        assert [life.stop() for life in crowd] == [0] * len(crowd)
    kills = len(gaps_s)
    assert kills >= 4
    assert during >= 2
    judge(
        SECTION,
        "three shards, and associators, of which the one at work is killed (kill -9) with each revision of an event, and besides",
        "events are those of one daemon that watches all stations, each revision once",
        published,
        undisturbed,
        measured=f"{kills} kills, {during} while an event was open; another one at work after {max(gaps_s):.1f} s at most, lease of 1 s",
        sabotage="associator.py: _begin goes on after the newest note",
    )
    assert whole(published) == whole(undisturbed)


@pytest.mark.drill
@pytest.mark.timeout(900)
def test_a_paused_associator_that_wakes_up_publishes_nothing(
    place: Place, demo_records: list[Record], undisturbed: list[Alert]
) -> None:
    """Stopped at its first event; the next one too, before it has published it. Then the first wakes up."""
    witnesses = [place.folder / f"witness-{n}" for n in range(2)]

    def paused(n: int, lease_s: float) -> Life:
        return associator(place, server.address, f"paused-{n}", PAUSED, "1", str(witnesses[n]), lease_s=lease_s)

    with ExitStack() as stack, ReplayServer(demo_records, speed=6.0, wait_clients=3) as server:
        former = stack.enter_context(paused(0, 1.0))
        wait_for("it associates", lambda: holds(former), LONGEST_S)
        lives = three_shards(stack, place, server)
        wait_for("it is about to publish an event", witnesses[0].exists, LONGEST_S)
        successor = stack.enter_context(paused(1, 60.0))  # stopped, it must not lose the lease
        wait_for("the other one is about to publish it", witnesses[1].exists, LONGEST_S)
        former.process.send_signal(signal.SIGCONT)
        wait_for("it finds another one at work", lambda: "the lease is no longer this one's" in former.text(), 30.0)
        assert sum(former.metric("quake_associator_fenced_total").values()) == 1
        assert [a for a in place.published() if a.kind is Kind.EVENT] == [], "it published without the lease"
        assert former.stop() == 0
        successor.process.send_signal(signal.SIGCONT)
        hurry(server)
        published = finish(place, lives, demo_records, undisturbed)
        assert successor.stop() == 0
    judge(
        SECTION,
        "an associator is paused (SIGSTOP) while about to publish, and wakes up when another one has the lease",
        "it publishes nothing; the other one publishes each revision once",
        published,
        undisturbed,
        sabotage="publish.lua: the token is not looked at",
    )
    assert whole(published) == whole(undisturbed)
