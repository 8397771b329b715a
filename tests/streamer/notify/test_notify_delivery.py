"""At least once, in order, and nobody held up by another: threads of sinks against a real Valkey and real HTTP servers."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from made_alerts import alert
from notify_servers import Hooked, free_port, hooked, until
from pydantic import TypeAdapter
from valkey_server import OwnValkey, Valkey

from quake import subscriber
from quake.alerts import Alert, Keys, Kind, Mode, Status
from quake.times import NS
from streamer.mutes import Mute
from streamer.notify import delivery, heartbeat
from streamer.notify.config import AnySink
from streamer.notify.delivery import Delivery
from streamer.notify.heartbeat import HeartbeatWatch, Pulse
from streamer.notify.metrics import NotifierMetrics

SECRET = base64.b64encode(bytes(32)).decode()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriber, "POLL_S", 0.05)
    monkeypatch.setattr(subscriber, "RETRY_S", (0.05, 0.2))
    monkeypatch.setattr(delivery, "RETRY_S", (0.02, 0.1))
    monkeypatch.setattr(delivery, "REDIS_RETRY_S", 0.05)
    monkeypatch.setattr(heartbeat, "RETRY_S", (0.02, 0.1))
    monkeypatch.setattr(heartbeat, "LOOK_S", 0.02)


@pytest.fixture
def hook() -> Iterator[Hooked]:
    with hooked() as server:
        yield server


def webhook(url: str, **keys: Any) -> Any:
    return TypeAdapter(AnySink).validate_python({"kind": "webhook", "url": url, "secret": SECRET, **keys})


def new(name: str, revision: int = 0, age_s: float = 0.0, **changes: Any) -> Alert:
    return alert(name, revision, created=time.time_ns() - int(age_s * NS), **changes)


def put(server: Valkey | OwnValkey, prefix: str, *alerts: Alert) -> None:
    with server.client() as client:
        for one in alerts:
            client.xadd(Keys(prefix).events, {"alert": one.model_dump_json()})


class Running:
    def __init__(self, thread: Delivery, metrics: NotifierMetrics) -> None:
        self.thread, self.metrics = thread, metrics

    def count(self, name: str, **labels: str) -> float:
        value = self.metrics.registry.get_sample_value(f"quake_notify_{name}", {"to": "siren", **labels})
        assert value is not None, name
        return value


def _name(group: Any) -> str:
    return str(group["name"])


@contextmanager
def running(server: Valkey | OwnValkey, sink: Any, prefix: str = "", name: str = "siren") -> Iterator[Running]:
    prefix = prefix or server.prefix  # type: ignore[union-attr]
    metrics = NotifierMetrics([name], lambda: True, lambda: False)
    thread = Delivery(name, sink, server.url, prefix, metrics.sinks[name])
    thread.start()
    keys = Keys.of(sink.mode, prefix)
    with server.client() as client:
        until(lambda: client.exists(keys.events) and f"notify-{name}" in map(_name, client.xinfo_groups(keys.events)))
    try:
        yield Running(thread, metrics)
    finally:
        thread.stop()
        thread.join(15)
        assert not thread.is_alive()


def pending(server: Valkey, name: str = "siren") -> int:
    with server.client() as client:
        return int(client.xpending(Keys(server.prefix).events, f"notify-{name}")["pending"])  # type: ignore[index]


def key(name: str, revision: int = 0) -> str:
    return f"{alert(name).id}:{revision}"


def test_one_that_is_dead_holds_up_no_other(valkey: Valkey, hook: Hooked) -> None:
    dead = webhook(f"http://127.0.0.1:{free_port()}/")
    with running(valkey, dead, name="siren") as first, running(valkey, webhook(hook.url), name="log"):
        put(valkey, valkey.prefix, *map(new, "abc"))
        until(lambda: hook.keys == [key(name) for name in "abc"])
        until(lambda: first.count("deferred_total") >= 2)
        assert pending(valkey)
        assert 0 < first.count("oldest_undelivered_seconds") < 60
    assert first.count("delivered_total") == 0


def test_tried_until_it_is_there_and_acknowledged_only_then(valkey: Valkey, hook: Hooked) -> None:
    hook.answers = [(503, {})] * 3
    hook.gate.clear()
    with running(valkey, webhook(hook.url)) as one:
        put(valkey, valkey.prefix, *map(new, "ab"))
        until(lambda: hook.posts)
        assert pending(valkey)
        hook.gate.set()
        until(lambda: len(hook.posts) == 5)
        until(lambda: not pending(valkey))
        assert hook.keys == [key("a")] * 4 + [key("b")]
        assert (one.count("deferred_total"), one.count("delivered_total")) == (3, 2)
        assert one.count("oldest_undelivered_seconds") == 0


def test_stopped_within_a_delivery_it_comes_again_with_the_same_key(valkey: Valkey, hook: Hooked) -> None:
    hook.answers = [(503, {"Retry-After": "200"})]
    sink = webhook(hook.url)
    with running(valkey, sink):
        put(valkey, valkey.prefix, *map(new, "ab"))
        until(lambda: hook.posts)
    assert pending(valkey)
    with running(valkey, sink):
        until(lambda: len(hook.posts) == 3)
    assert hook.keys == [key("a"), key("a"), key("b")]


def test_one_that_is_refused_is_let_go_and_the_next_tells(valkey: Valkey, hook: Hooked) -> None:
    hook.answers = [(422, {})]
    with running(valkey, webhook(hook.url)) as one:
        put(valkey, valkey.prefix, *map(new, "ab"))
        until(lambda: len(hook.posts) == 2)
        until(lambda: not pending(valkey))
        assert one.count("failed_total", reason="refused") == 1
    data = json.loads(hook.posts[1][1])["data"]
    assert data["left_out"] == {"failed": 1}
    assert data["title"].endswith("(and 1 more)")


def test_given_up_when_it_is_too_late(valkey: Valkey, hook: Hooked) -> None:
    hook.answers = [(503, {})] * 50
    with running(valkey, webhook(hook.url, give_up_s=2.0)) as one:
        put(valkey, valkey.prefix, new("a", age_s=1.5), new("b", age_s=3.0))
        until(lambda: one.count("failed_total", reason="late") == 1)
        until(lambda: one.count("left_out_total", reason="old") == 1)
    assert set(hook.keys) == {key("a")}


def test_a_fault_of_ours_holds_up_nobody(valkey: Valkey, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sink = TypeAdapter(AnySink).validate_python({"kind": "quakeml", "folder": tmp_path})
    strange = alert().stations[0].model_copy(update={"source_id": "nonsense"})  # names no station, so no pick
    with running(valkey, sink) as one:
        put(valkey, valkey.prefix, new("a", stations=(strange,)), new("b"))
        until(lambda: one.count("delivered_total") == 1)
        assert one.count("failed_total", reason="fault") == 1
    assert "given up (fault" in caplog.text
    assert [file.name for file in tmp_path.iterdir()] == [f"{alert('b').id}.xml"]


def test_what_the_rate_leaves_out_is_told_by_the_next_even_after_a_restart(valkey: Valkey, hook: Hooked) -> None:
    sink = webhook(hook.url, rate={"burst": 2, "every_s": 86_400})
    with running(valkey, sink) as one:
        put(valkey, valkey.prefix, *map(new, "abcde"))
        until(lambda: one.count("left_out_total", reason="rate") == 3)
    with running(valkey, sink):
        put(valkey, valkey.prefix, *map(new, "fg"))
        until(lambda: len(hook.posts) == 4)
    data = [json.loads(body)["data"] for _, body in hook.posts]
    assert [one["left_out"] for one in data] == [{}, {}, {"rate": 3}, {}]
    assert hook.keys == [key(name) for name in "abfg"]


def mute(server: Valkey, name: str, for_s: float) -> None:
    """As the page does."""
    now_ns = time.time_ns()
    mute = Mute(until=now_ns + int(for_s * NS), by="kim", why="road works", since=now_ns)
    with server.client() as client:
        client.hset(Keys(server.prefix).mutes, f"FDSN:XX_{name}__H_H", mute.model_dump_json())


def seen_by(name: str, *stations: str, kind: Kind = Kind.EVENT) -> Alert:
    (first,) = alert(name).stations
    onsets = tuple(first.model_copy(update={"source_id": f"FDSN:XX_{one}__H_H"}) for one in stations)
    return new(name, kind=kind, stations=onsets)


def test_what_muted_stations_alone_saw_is_not_sent_but_told_and_counted(
    valkey: Valkey, hook: Hooked, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", delivery.__name__)
    mute(valkey, "ABC", 3600)
    mute(valkey, "DEF", 1800)
    sink = webhook(hook.url, kinds=["event", "detection"])
    with running(valkey, sink) as one, valkey.client() as client:
        client.hset(Keys(valkey.prefix).mutes, "FDSN:XX_GHI__H_H", "no mute")
        detection = seen_by("d", "ABC", kind=Kind.DETECTION)
        client.xadd(Keys(valkey.prefix).detections, {"alert": detection.model_dump_json()})
        put(valkey, valkey.prefix, seen_by("a", "ABC", "DEF"), seen_by("b", "ABC", "GHI"), seen_by("c", "GHI"))
        until(lambda: one.count("left_out_total", reason="muted") == 2)
        until(lambda: hook.keys == [key("b"), key("c")])
        assert json.loads(hook.posts[0][1])["data"]["left_out"] == {}  # asked for, and so not told of later
        (line,) = (told for told in caplog.messages if alert("a").id in told)
        assert "not told, muted until" in line
        assert "by 'kim' ('road works')" in line
        client.hdel(Keys(valkey.prefix).mutes, "FDSN:XX_ABC__H_H")
        put(valkey, valkey.prefix, seen_by("e", "ABC"))
        until(lambda: hook.keys[2:] == [key("e")])


def test_a_mute_ends_by_the_clock(valkey: Valkey, hook: Hooked) -> None:
    mute(valkey, "ABC", 1800)
    with running(valkey, webhook(hook.url)) as one:
        put(valkey, valkey.prefix, new("a"))
        until(lambda: one.count("left_out_total", reason="muted") == 1)
        mute(valkey, "ABC", -1)  # over, though still kept
        put(valkey, valkey.prefix, new("b"))
        until(lambda: hook.posts)
    assert hook.keys == [key("b")]


def test_an_exercise_wakes_nobody_who_did_not_ask(valkey: Valkey, hook: Hooked) -> None:
    """Neither on its own stream, nor where somebody wrote it onto that of live alerts."""
    with running(valkey, webhook(hook.url)) as one:
        put(valkey, Keys.of(Mode.EXERCISE, valkey.prefix).prefix, new("a", mode=Mode.EXERCISE))
        put(valkey, valkey.prefix, new("b", mode=Mode.EXERCISE), new("c"))
        until(lambda: hook.posts)
        assert hook.keys == [key("c")]
        assert one.count("left_out_total", reason="mode") == 1


def test_who_asks_for_exercises_gets_them_marked(valkey: Valkey, hook: Hooked) -> None:
    with running(valkey, webhook(hook.url, mode="exercise")):
        put(valkey, Keys.of(Mode.EXERCISE, valkey.prefix).prefix, new("a", mode=Mode.EXERCISE))
        put(valkey, valkey.prefix, new("b"))
        until(lambda: hook.posts)
    assert hook.keys == [key("a")]
    assert json.loads(hook.posts[0][1])["data"]["mark"] == "EXERCISE"


def test_a_group_that_begins_again_repeats_nothing(valkey: Valkey, hook: Hooked) -> None:
    """As after a fail-over that lost the group's place."""
    sink = webhook(hook.url)
    with running(valkey, sink):
        put(valkey, valkey.prefix, *map(new, "ab"))
        until(lambda: len(hook.posts) == 2)
    with valkey.client() as client:
        client.xgroup_setid(Keys(valkey.prefix).events, "notify-siren", "0-0")
    with running(valkey, sink) as one:
        until(lambda: one.count("left_out_total", reason="repeat") == 2)
        put(valkey, valkey.prefix, new("c"), new("a", 1), new("a", 2, status=Status.CLOSED))
        until(lambda: len(hook.posts) == 4)
    assert hook.keys[2:] == [key("c"), key("a", 2)]
    assert one.count("left_out_total", reason="status") == 1


def test_redis_that_goes_away_loses_nothing(own_valkey: OwnValkey, hook: Hooked) -> None:
    """And comes back without its data, in the midst of a delivery: the daemon offers all again, and what was told, which
    could not be remembered then, is not told again."""
    hook.gate.clear()
    with running(own_valkey, webhook(hook.url), prefix="{own}"):
        put(own_valkey, "{own}", *map(new, "ab"))
        until(lambda: hook.posts)
        own_valkey.stop()
        hook.gate.set()
        time.sleep(0.2)  # some tries without Redis
        own_valkey.start()
        put(own_valkey, "{own}", *map(new, "abc"))
        until(lambda: len(hook.posts) == 3)
    assert hook.keys == [key(name) for name in "abc"]


class TestHeartbeat:
    def test_only_a_change_counts(self) -> None:
        pulse = Pulse(10.0, 0.0)
        one, two = frozenset("1"), frozenset("2")
        seen: list[bool | None] = []
        for now_s, beats in (
            (1, one),
            (12, one),
            (13, frozenset()),
            (14, one),
            (15, two),
            (24, two),
            (26, frozenset()),
        ):
            pulse.look(frozenset(beats), float(now_s))
            seen.append(pulse.lost)
        assert seen == [None, True, True, True, False, False, True]

    @contextmanager
    def watch(self, valkey: Valkey, sink: Any) -> Iterator[HeartbeatWatch]:
        metrics = NotifierMetrics(["siren"], lambda: True, lambda: False)
        one = HeartbeatWatch("siren", sink, valkey.url, valkey.prefix, 0.2, metrics.sinks["siren"])
        one.start()
        try:
            yield one
        finally:
            one.stop()
            one.join(15)
            assert not one.is_alive()

    @contextmanager
    def beating(self, valkey: Valkey) -> Iterator[None]:
        end = threading.Event()

        def beat() -> None:
            with valkey.client() as client:
                while not end.wait(0.05):
                    client.hset(f"{valkey.prefix}:heartbeat", "d", str(time.time_ns()))

        thread = threading.Thread(target=beat)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()

    @staticmethod
    def types(hook: Hooked) -> list[str]:
        return [json.loads(body)["type"].removeprefix("heartbeat.") for _, body in hook.posts]

    def test_told_once_when_lost_and_once_when_found_also_through_restarts(self, valkey: Valkey, hook: Hooked) -> None:
        sink = webhook(hook.url)
        with self.beating(valkey), self.watch(valkey, sink) as one:
            until(lambda: one.pulse.lost is False)
        with self.watch(valkey, sink) as one:
            until(lambda: hook.posts)
        with self.watch(valkey, sink) as one:
            until(lambda: one.pulse.lost)
            with self.beating(valkey):
                until(lambda: len(hook.posts) == 2)
            until(lambda: len(hook.posts) == 3)
        with self.beating(valkey), self.watch(valkey, sink) as one:
            until(lambda: len(hook.posts) == 4)
        assert self.types(hook) == ["lost", "found", "lost", "found"]

    def test_tried_until_it_is_told_but_not_when_it_is_no_longer_so(self, valkey: Valkey, hook: Hooked) -> None:
        hook.answers = [(503, {})] * 2
        with self.watch(valkey, webhook(hook.url)) as one:
            until(lambda: len(hook.posts) == 3)
            assert len(set(hook.keys)) == 1
            with self.beating(valkey):
                until(lambda: len(hook.posts) == 4)
                hook.answers = [(503, {})] * 1000
            until(lambda: len(hook.posts) > 5)
            with self.beating(valkey):
                until(lambda: one.pulse.lost is False)
                hook.answers.clear()
                count = len(hook.posts)
                until(lambda: one._notice is None)
        assert self.types(hook)[:4] == ["lost"] * 3 + ["found"]
        assert len(hook.posts) <= count + 1

    def test_a_redis_that_is_gone_is_silence_too(self, hook: Hooked) -> None:
        nowhere = Valkey(f"redis://127.0.0.1:{free_port()}/0", "{x}")
        with self.watch(nowhere, webhook(hook.url)):
            until(lambda: hook.posts)
        assert self.types(hook) == ["lost"]

    def test_who_hears_of_it(self) -> None:
        assert webhook("http://h/").hears_heartbeat
        assert not webhook("http://h/", heartbeat=False).hears_heartbeat
        assert not webhook("http://h/", mode="exercise").hears_heartbeat
        assert not TypeAdapter(AnySink).validate_python({"kind": "quakeml", "folder": "x"}).hears_heartbeat


def test_what_is_stuck_is_told_to_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[bool] = []
    metrics = NotifierMetrics(["siren"], lambda: True, lambda: bool(lost))
    assert metrics.faults(ready=True) == {}
    with metrics.sinks["siren"].holding(time.time_ns() - 400 * NS):
        lost.append(True)
        assert metrics.faults(ready=True) == {"to.siren": "an alert is not delivered for 400 s", "heartbeat": "lost"}
        assert metrics.registry.get_sample_value("quake_notify_heartbeat_lost") == 1
