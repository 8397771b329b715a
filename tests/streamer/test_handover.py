"""A station that goes from one daemon to another: what is told of it, when, and what is taken over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made_alerts import alert
from test_publisher import Heard, publishing, settings, until
from valkey_server import OwnValkey, Valkey, own_port

from quake.alerts import Keys, Mode
from streamer.config import Config, resolve
from streamer.handover import held, read, selects, taken_over, within
from streamer.outbox import Outbox, Produced, Progress, Saved
from streamer.salvage import open_outbox
from streamer.shard import Shard, owner
from streamer.source.resume import ResumePoint
from streamer.takeover import take_over
from streamer.trigger import OpenDetection, TriggerState

SERVER = "seedlink://here:18000"
OPEN = OpenDetection(id="d", first_k=5, opened_k=7, onset_ns=9, peak=0.9, components="ZNE", complete=True)


def everything(_: str) -> bool:
    return True


def knows(station: str, time_ns: int = 100, state: TriggerState | None = None) -> Saved:
    state = state or TriggerState(last_k=8, opened=OPEN, last_first_k=5)
    return Saved({f"FDSN:{station}__H_H": state}, None, {(SERVER, station): ResumePoint(2**63, time_ns, 90)})


def told(saved: Saved, by: str = "other", fingerprint: str = "f") -> dict[str, Any]:
    return read(held(saved, by, fingerprint, everything))


def progress(saved: Saved) -> Progress:
    return Progress(triggers=saved.triggers, resume=saved.resume)


NOTHING = Saved({}, None, {})


def test_what_is_told_is_what_is_taken_over() -> None:
    saved = knows("XX_A")
    assert taken_over(NOTHING, told(saved), "own", "f", everything) == progress(saved)


def test_with_another_model_the_place_in_the_data_alone_is_taken() -> None:
    saved = knows("XX_A")
    assert taken_over(NOTHING, told(saved), "own", "g", everything) == Progress(resume=saved.resume)


@pytest.mark.parametrize(
    ("own_ns", "other_ns", "by", "fingerprint", "is_taken"),
    [
        (100, 200, "other", "f", True),  # another daemon had it meanwhile
        (200, 100, "other", "f", False),
        (100, 200, "own", "f", False),  # told by this outbox: it cannot be behind
        (100, 200, "other", "g", False),  # by another model: not what this one would have decided
    ],
)
def test_who_has_gone_on_is_followed(own_ns: int, other_ns: int, by: str, fingerprint: str, is_taken: bool) -> None:
    others = told(knows("XX_A", other_ns), by, fingerprint)
    found = taken_over(knows("XX_A", own_ns), others, "own", "f", everything)
    assert bool(found.resume) == bool(found.triggers) == is_taken


def test_only_stations_that_are_selected_and_of_the_shard() -> None:
    both = {**told(knows("XX_A")), **told(knows("YY_B"))}
    found = taken_over(NOTHING, both, "own", "f", selects(["XX.*.*.HH?"], Shard()))
    assert {station for _, station in found.resume} == {"XX_A"}
    elsewhere = Shard(2, 1 - owner("XX_A", 2))
    assert not taken_over(NOTHING, both, "own", "f", selects(["XX.*"], elsewhere)).resume
    assert not within(knows("XX_A"), elsewhere).triggers
    assert within(knows("XX_A"), Shard(2, owner("XX_A", 2))) == knows("XX_A")


def test_what_cannot_be_read_costs_its_own_station_alone() -> None:
    texts = held(knows("XX_A"), "other", "f", everything)
    assert set(read({"XX_B": "{", **texts})) == {"XX_A"}


# -- the publisher ------------------------------------------------------------------------------------------------------------


def on_redis(valkey: Valkey) -> dict[str, Any]:
    with valkey.client() as client:
        found: Any = client.hgetall(Keys(valkey.prefix).stations)
        return read(found)


def test_nothing_is_told_before_the_alerts_are_published(own_valkey: OwnValkey, tmp_path: Path) -> None:
    """Redis takes no alert: whoever took over by then would never publish it."""
    path = tmp_path / "outbox.sqlite"
    with Outbox(path) as outbox:
        outbox.commit(progress(knows("XX_A", 100)))
        assert outbox.settled() == knows("XX_A", 100)
        outbox.commit(replace(progress(knows("XX_A", 200)), alerts=[Produced(alert())]))
        assert outbox.settled() is None
        outbox.mark_sent([one.sequence for one in outbox.unsent(9)])
        assert outbox.settled() == knows("XX_A", 200)


def test_redis_is_told_of_the_shards_own_stations(valkey: Valkey, tmp_path: Path) -> None:
    path, mine, other = (
        tmp_path / "outbox.sqlite",
        "XX_A",
        next(name for name in (f"XX_{n}" for n in range(99)) if owner(name, 2) != owner("XX_A", 2)),
    )
    with Outbox(path) as outbox:
        outbox.commit(progress(knows(mine)))
        outbox.commit(progress(knows(other)))  # had it before the stations were shared out anew
    here = settings(valkey.url, valkey.prefix, shard=Shard(2, owner(mine, 2)), fingerprint="f")
    with publishing(path, here), Outbox(path) as outbox:
        until(lambda: on_redis(valkey))
        assert on_redis(valkey) == told(knows(mine), outbox.identity)
        outbox.commit(progress(knows(mine, 300)))
    assert on_redis(valkey) == told(knows(mine, 300), outbox_identity(path)), "not told at the stop"


def test_a_station_that_is_new_is_told_at_once(valkey: Valkey, tmp_path: Path) -> None:
    """It has been asked for "from now on", which is said once in its life."""
    path = tmp_path / "outbox.sqlite"
    with publishing(path, settings(valkey.url, valkey.prefix)), Outbox(path) as outbox:
        until(lambda: outbox.get("redis"))
        outbox.commit(progress(knows("XX_A")))
        until(lambda: "XX_A" in on_redis(valkey), 5.0)
        outbox.commit(progress(knows("XX_B")))
        until(lambda: "XX_B" in on_redis(valkey), 5.0)


def outbox_identity(path: Path) -> str:
    with Outbox(path) as outbox:
        return outbox.identity


def test_an_emptied_redis_is_told_again(own_valkey: OwnValkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.publisher.HEARTBEAT_S", 0.2)
    path, server = tmp_path / "outbox.sqlite", Valkey(own_valkey.url, "{q}")
    with Outbox(path) as outbox:
        outbox.commit(progress(knows("XX_A")))
    with publishing(path, settings(server.url, server.prefix)):
        until(lambda: on_redis(server))
        with server.client() as client:
            client.flushall()
        until(lambda: on_redis(server))


# -- the daemon's start -------------------------------------------------------------------------------------------------------


@dataclass
class Start:
    """A daemon that is about to ask its servers."""

    outbox: Outbox
    url: str
    prefix: str
    select: str = "*.*"
    mode: Mode = Mode.LIVE
    heard: Heard = field(default_factory=Heard)

    def configuration(self, count: int, index: int) -> Config:
        content = {
            "mode": self.mode,
            "source": [{"servers": [SERVER], "select": [self.select]}],
            "shard": {"count": count, "index": index},
        }
        return resolve({**content, "redis": {"url": self.url, "prefix": self.prefix}}, Path("quake.toml"))

    def take_over(self, count: int, index: int, stopping: Callable[[], bool] = lambda: False) -> bool:
        watch: Any = SimpleNamespace(config=self.configuration(count, index), scorer=SimpleNamespace(fingerprint="f"))
        return take_over(watch, self.outbox, self.heard, stopping)


@pytest.fixture
def start(valkey: Valkey, tmp_path: Path) -> Iterator[Start]:
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        yield Start(outbox, valkey.url, f"{valkey.prefix}")


def put(valkey: Valkey, saved: Saved) -> None:
    with valkey.client() as client:
        client.hset(Keys(valkey.prefix).stations, mapping=held(saved, "other", "f", everything))  # type: ignore[arg-type]


def test_a_new_shard_goes_on_where_another_daemon_stopped(start: Start, valkey: Valkey) -> None:
    put(valkey, knows("XX_A"))
    index = owner("XX_A", 2)
    assert start.take_over(2, 1 - index)
    assert not start.outbox.load("f").resume, "of another shard"
    assert start.take_over(2, index)
    assert start.outbox.load("f") == knows("XX_A"), "kept, in case that it is killed before the first packet"
    put(valkey, knows("XX_A", 500))
    assert start.take_over(2, index)
    assert start.outbox.load("f") == knows("XX_A"), "asked once: its own outbox knows better from then on"


def test_a_station_that_is_selected_later_is_taken_over_then(start: Start, valkey: Valkey) -> None:
    put(valkey, knows("XX_A"))
    start.select = "YY.*"
    assert start.take_over(1, 0)
    assert not start.outbox.load("f").resume
    start.select = "*.*"
    assert start.take_over(1, 0)
    assert start.outbox.load("f") == knows("XX_A")


def test_a_replay_may_be_replayed_again(start: Start, valkey: Valkey) -> None:
    """The former one's place in the data is its end: nothing would come after it. Shards do hand over what they replay."""
    start.mode = Mode.REPLAY
    with valkey.client() as client:
        keys = Keys.of(start.mode, valkey.prefix)
        client.hset(keys.stations, mapping=held(knows("XX_A"), "other", "f", everything))  # type: ignore[arg-type]
    assert start.take_over(1, 0)
    assert not start.outbox.load("f").resume
    path = start.outbox.path
    damaged = path.with_name("damaged.sqlite")
    damaged.write_text("no SQLite at all" * 99)
    with open_outbox(damaged) as start.outbox:
        assert start.take_over(1, 0)
        assert start.outbox.load("f") == knows("XX_A"), "it was there before"
    with Outbox(path) as start.outbox:
        assert start.take_over(2, owner("XX_A", 2))
        assert start.outbox.load("f") == knows("XX_A")


def test_one_of_several_waits_for_redis(start: Start) -> None:
    """And says so, with the cause; and one that is alone does not."""
    start.url = f"redis://127.0.0.1:{own_port()}/0"
    assert start.take_over(1, 0)
    assert start.outbox.get("shard") is None, "the next start asks again"
    stop = threading.Event()
    ended: list[bool] = []
    path, waiting, heard = start.outbox.path, [], Heard()

    def wait() -> None:
        with Outbox(path) as outbox:
            waiting.append(True)
            ended.append(Start(outbox, start.url, start.prefix, heard=heard).take_over(2, 0, stop.is_set))

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: waiting)
    time.sleep(1.2)  # two tries
    assert thread.is_alive()
    stop.set()
    thread.join(10.0)
    assert ended == [False]
    assert heard.failures["ConnectionError"] >= 2
