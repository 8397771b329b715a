"""Shards that Ray keeps on several nodes: what ends is started elsewhere, and the alerts are those of one daemon. Real processes."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest
import redis
from daemon_harness import DAEMON, Life, Place, wait_for
from drill_report import judge
from drill_servers import hurry
from made_keepers import Ending, OneEnding, Silent, Slow, Well
from ray_nodes import NODE, lose, nodes, parent, started
from test_same_alerts import ends
from test_shards import HOLD_S, LONGEST_S, SECTION, detections, of_shard

from quake.alerts import Alert
from streamer import run_ray
from streamer.config import Config, load
from streamer.handover import read
from streamer.run_ray import Kept
from streamer.server import Record, ReplayServer
from streamer.shard import owner
from streamer.stages import NS, station_of

pytestmark = [pytest.mark.drill, pytest.mark.timeout(900)]

Run = Callable[..., tuple[int, list[str], list[str]]]
"""Keeper, and what the log says before it is stopped -> exit code, log, and what systemd heard."""

TWO = "[shard]\ncount = 2\n"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Three nodes that work, for two shards."""
    with pytest.MonkeyPatch.context() as patch, nodes(patch, {}, {}, {}) as made:
        yield made


def configure(place: Place, seedlink: str, top: str = TWO) -> Path:
    config = place.configure(seedlink, hold_s=HOLD_S, top=top)
    config.write_text(config.read_text().replace("min_stations", "flowing_s = 600.0\nmin_stations"))
    return config


def keep(place: Place, config: Path, cluster: Any) -> Life:
    return place.start(config, DAEMON, ["--engine", "ray", "--ray-address", cluster.address])


def daemons(life: Life) -> dict[int, int]:
    """Shard -> the process of its newest daemon."""
    return {int(index): int(pid) for index, pid in re.findall(r"shard (\d)/2 is on \S+, process (\d+)", life.text())}


def open_shards(place: Place) -> set[int]:
    """With a detection that has not closed."""
    told = detections(place.published())
    closed = {a.id for a in told if a.revision}
    return {owner(station_of(a.stations[0].source_id), 2) for a in told if a.id not in closed}


def kill_the_daemon(life: Life, shard: int) -> float:
    """Seconds until the shard has another one."""
    former, began_s = daemons(life)[shard], time.monotonic()
    os.kill(former, signal.SIGKILL)
    wait_for("the shard is started anew", lambda: ended(life) or daemons(life)[shard] != former, LONGEST_S)
    return time.monotonic() - began_s


def lose_the_node(cluster: Any, life: Life, shard: int, disk: Path) -> float:
    """Its power fails, and its ``disk`` is nowhere else."""
    former, began_s = daemons(life)[shard], time.monotonic()
    keeper = parent(former)
    os.kill(keeper, signal.SIGSTOP)  # it says nothing more
    os.kill(former, signal.SIGKILL)
    disk.rename(disk.with_name("away"))
    lose(cluster, keeper)
    os.kill(keeper, signal.SIGKILL)
    wait_for("the shard is started anew", lambda: ended(life) or daemons(life)[shard] != former, LONGEST_S)
    return time.monotonic() - began_s


def test_a_node_is_lost_in_the_midst_of_an_earthquake(
    place: Place, demo_records: list[Record], undisturbed: list[Alert], cluster: Any
) -> None:
    """And the shard comes back to it later, where an outbox lies that others have gone beyond."""
    with (
        ReplayServer(demo_records, speed=6.0, wait_clients=2) as server,
        keep(place, configure(place, server.address), cluster) as life,
    ):
        wait_for("a detection is open", lambda: ended(life) or open_shards(place), LONGEST_S)
        shard = open_shards(place).pop()
        other, disk = daemons(life)[1 - shard], place.folder / "state" / f"shard-{shard}"
        anew_s = lose_the_node(cluster, life, shard, disk)
        hurry(server)
        wait_for("all is told", lambda: ended(life) or is_all(place, undisturbed), LONGEST_S)
        wait_for("Redis knows", lambda: ended(life) or is_told(place, of_shard(demo_records, shard, 2)), LONGEST_S)
        rmtree(disk)
        disk.with_name("away").rename(disk)
        kill_the_daemon(life, shard)
        wait_for("it asks Redis each time", lambda: ended(life) or taken_over(life, shard) == 2, LONGEST_S)
        assert life.stop() == 0
        assert daemons(life)[1 - shard] == other, "the other shard was disturbed"
        assert not any(map(is_alive, daemons(life).values()))
    started(lambda: cluster.add_node(**NODE))
    judge(
        SECTION,
        "two shards on three nodes of Ray's: a node is lost with all that ran there, while a detection is open",
        "the shard goes on elsewhere: no sample lost, each detection once, the other shard undisturbed",
        detections(place.published()),
        detections(undisturbed),
        measured=f"its daemon was started anew after {anew_s:.1f} s",
        sabotage="handover.py: taken_over leaves the resume points out",
    )


def test_a_daemon_is_killed_in_the_midst_of_an_earthquake(
    place: Place, demo_records: list[Record], undisturbed: list[Alert], cluster: Any
) -> None:
    with (
        ReplayServer(demo_records, speed=6.0, wait_clients=2) as server,
        keep(place, configure(place, server.address), cluster) as life,
    ):
        wait_for("a detection is open", lambda: ended(life) or open_shards(place), LONGEST_S)
        anew_s = kill_the_daemon(life, open_shards(place).pop())
        hurry(server)
        wait_for("all is told", lambda: ended(life) or is_all(place, undisturbed), LONGEST_S)
        assert life.stop() == 0
    judge(
        SECTION,
        "two shards on three nodes of Ray's: a daemon is killed (kill -9) while a detection is open",
        "the shard goes on: no sample lost, each detection once",
        detections(place.published()),
        detections(undisturbed),
        measured=f"it was started anew after {anew_s:.1f} s",
        sabotage="run_ray.py: _fail makes no new life due",
    )


def is_all(place: Place, undisturbed: list[Alert]) -> bool:
    return len(detections(place.published())) >= len(detections(undisturbed))


def is_told(place: Place, ends_ns: dict[str, int]) -> bool:
    """Whether Redis knows of the stations that they have come to these ends."""
    with redis.Redis.from_url(place.redis_url, decode_responses=True) as client:
        known = read(client.hgetall(place.keys.stations))  # type: ignore[arg-type]
    newest = {name: known[station_of(name)].newest_ns for name in ends_ns if station_of(name) in known}
    return all(newest.get(name, 0) > end_ns - 60 * NS for name, end_ns in ends_ns.items())


def taken_over(life: Life, shard: int) -> int:
    """How often its daemons went on where another one had stopped."""
    told = rf"^{shard}/2 .*: shard {shard}/2: going on where another daemon stopped: "
    return len(re.findall(told, life.text(), re.MULTILINE))


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def ended(life: Life) -> bool:
    assert life.process.poll() is None, life.text()[-3000:]
    return False


def test_a_daemon_ends_with_who_keeps_it(place: Place, cluster: Any, demo_records: list[Record]) -> None:
    with (
        ReplayServer(demo_records, speed=1.0) as server,
        keep(place, configure(place, server.address), cluster) as life,
    ):
        wait_for("both are started", lambda: ended(life) or len(daemons(life)) == 2, LONGEST_S)
        pids = daemons(life).values()
        wait_for("they are at work", lambda: life.text().count("metrics at http") == 2, LONGEST_S)
        life.kill()
        wait_for("they end", lambda: not any(map(is_alive, pids)), LONGEST_S)


def test_a_configuration_that_a_daemon_refuses_ends_all_in_a_line(place: Place, cluster: Any) -> None:
    config = configure(place, "seedlink://127.0.0.1:1", f'{TWO}[model]\nsha256 = "{"0" * 64}"\n')
    with keep(place, config, cluster) as life:
        assert life.process.wait(LONGEST_S) == 2
        told = life.text().splitlines()
    assert re.fullmatch(r"quake-streamer: shard \d/2: its daemon refuses the configuration, as is told above", told[-1])
    assert any(re.match(r"\d/2 quake-streamer: .*sha256 is \w+, pinned is 0{64}$", line) for line in told)


def test_a_network_that_is_not_shared_out_is_refused(place: Place) -> None:
    with place.start(configure(place, "seedlink://127.0.0.1:1", ""), DAEMON, ["--engine", "ray"]) as life:
        assert life.process.wait(LONGEST_S) == 2
        assert life.text().splitlines() == [
            "quake-streamer: --engine ray: keeps the shards of [shard], and its count is 1"
        ]


@pytest.fixture
def config(place: Place) -> Config:
    return load(configure(place, "seedlink://127.0.0.1:1"))


@pytest.fixture
def run(
    place: Place, config: Config, cluster: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Run:
    """With made keepers, until the log says something, or by itself; what it came to."""
    caplog.set_level("INFO", "streamer.run_ray")
    monkeypatch.setattr(run_ray, "PAUSE_S", (0.05, 0.1))

    def run_until(kept: type[Kept], text: str | None, options: Sequence[str] = ()) -> tuple[int, list[str], list[str]]:
        notified: list[str] = []

        def notify(state: str) -> None:
            notified.append(state)
            if text is not None and any(re.search(text, record.getMessage()) for record in caplog.records):
                os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(run_ray, "Kept", kept)
        monkeypatch.setattr(run_ray.systemd, "notify", notify)
        code = run_ray.run(place.folder / "quake.toml", config, options, cluster.address)
        return code, [record.getMessage() for record in caplog.records if record.name == "streamer.run_ray"], notified

    return run_until


def test_shards_that_all_fail_again_and_again_end_all(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    code, told, notified = run(Ending, None)
    assert code == 1
    assert "READY=1" not in notified
    for index in range(2):
        faults = [line for line in told if f"shard {index}/2: its daemon ended with exit code 1" in line]
        assert len(faults) >= 6
        assert faults[5].endswith("(fault 6 within 600 s)")
    said = capfd.readouterr().err
    assert "0/2 shard 0 says this\n" in said
    assert "1/2 shard 1 says this\n" in said


def test_a_shard_that_fails_alone_does_not_end_the_other(run: Run) -> None:
    code, told, _ = run(OneEnding, r"\(fault 9 within")
    assert code == 0
    assert not [line for line in told if "shard 1/2: " in line]


def test_a_keeper_that_hangs_is_given_up(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_ray, "SILENT_S", 1.0)
    monkeypatch.setattr(run_ray, "LOOK_S", 0.05)
    code, told, notified = run(Silent, r"shard 0/2: nothing was heard")
    assert code == 0
    assert [line.partition(";")[0] for line in told if "nothing" in line] == [
        "shard 0/2: nothing was heard of it for 1 s"
    ]
    assert "READY=1" not in notified


def test_a_daemon_that_does_not_come_to_work_is_given_up(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_ray, "READY_S", 0.5)
    code, told, notified = run(Slow, "its daemon was not at work within 0.5 s")
    assert code == 0
    assert told
    assert "READY=1" not in notified


def test_that_there_is_no_room_is_told_and_ends_nobody(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_ray, "ROOM_S", 0.5)
    monkeypatch.setattr(run_ray, "needs_of", lambda config: {"num_cpus": 64, "num_gpus": 0})
    code, _, notified = run(Well, "is not started yet; Ray needs a node with CPU 64 to spare")
    assert code == 0
    assert "READY=1" in notified


def test_every_station_is_of_one_shard(demo_records: list[Record]) -> None:
    """What the drills above rest on: both have some."""
    assert {owner(station_of(name), 2) for name in ends(demo_records)} == {0, 1}
