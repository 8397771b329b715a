from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from made_alerts import alert
from valkey_server import OwnValkey, Valkey

from quake import subscriber as module
from quake.alerts import Alert, AlertSubscriber, HeartbeatLostError, Keys, Kind


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.1)
    monkeypatch.setattr(module, "RETRY_S", (0.05, 0.2))


def put(server: Valkey | OwnValkey, one: Alert, prefix: str, stream: str = "alerts", entry: str = "*") -> str:
    with server.client() as client:
        return str(client.xadd(f"{prefix}:{stream}", {"alert": one.model_dump_json()}, id=entry))


def reader(valkey: Valkey, **options: Any) -> AlertSubscriber:
    return AlertSubscriber(valkey.url, **{"keys": Keys(valkey.prefix), "heartbeat_s": 30.0, "last_id": "0", **options})


def take(one: AlertSubscriber, count: int) -> list[Alert]:
    """That many alerts; asked for one more, so that the last counts as handled."""
    found: list[Alert] = []
    timer = threading.Timer(20.0, one.stop)
    timer.start()
    for item in one:
        found.append(item)
        if len(found) == count:
            one.stop()
    timer.cancel()
    one._stopped.clear()
    assert len(found) == count
    return found


def until(condition: Callable[[], Any], timeout_s: float = 20.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "it did not happen in time"
        time.sleep(0.01)


def test_reads_in_order_drops_repeats_and_resumes(valkey: Valkey) -> None:
    for one in (alert("a"), alert("a", 1), alert("a", 1), alert("a"), alert("b")):
        put(valkey, one, valkey.prefix)
    with reader(valkey) as first:
        assert [(a.id, a.revision) for a in take(first, 3)] == [
            (alert("a").id, 0),
            (alert("a").id, 1),
            (alert("b").id, 0),
        ]
        last_id = first.last_ids[f"{valkey.prefix}:alerts"]
    put(valkey, alert("c"), valkey.prefix)
    with reader(valkey, last_id=last_id) as second:
        assert [a.id for a in take(second, 1)] == [alert("c").id]


def test_dollar_is_pinned_once_and_kinds_are_chosen(valkey: Valkey) -> None:
    put(valkey, alert("before"), valkey.prefix)
    with reader(valkey, last_id="$", kinds=(Kind.EVENT, Kind.DETECTION)) as one:
        one._prepare()
        put(valkey, alert("e"), valkey.prefix)
        put(valkey, alert("d", kind=Kind.DETECTION), valkey.prefix, "detections")
        assert {a.id for a in take(one, 2)} == {alert("e").id, alert("d").id}
    with reader(valkey) as events:
        assert [a.id for a in take(events, 2)] == [alert("before").id, alert("e").id]


@pytest.mark.parametrize("group", [None, "g"])
def test_dollar_is_when_the_iteration_began_though_redis_was_away(
    own_valkey: OwnValkey, group: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(own_valkey, alert("before"), "{quake}")
    own_valkey.stop()
    waits, published, found = threading.Event(), threading.Event(), list[str]()
    with AlertSubscriber(own_valkey.url, group=group, heartbeat_s=None) as one:

        def pause(_: float) -> bool:
            waits.set()
            return published.wait(20)

        monkeypatch.setattr(one._stopped, "wait", pause)
        thread = threading.Thread(target=lambda: found.extend(item.id for item in one))
        thread.start()
        try:
            assert waits.wait(20)
            own_valkey.start()
            put(own_valkey, alert("a"), "{quake}")
            published.set()
            until(lambda: one.last_ids["{quake}:alerts"] != "$")
            put(own_valkey, alert("b"), "{quake}")
            until(lambda: alert("b").id in found)
        finally:
            one.stop()
            published.set()
            thread.join(20)
    assert found == [alert("a").id, alert("b").id]


def test_a_user_who_may_not_ask_for_the_time_still_gets_what_comes(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(valkey, alert("before"), valkey.prefix)
    with reader(valkey, last_id="$") as one, valkey.client() as client:
        client.execute_command("ACL", "SETUSER", "narrow", "on", "nopass", "~*", "+@all", "-time")
        one._client.execute_command("AUTH", "narrow", "")
        one._waits_since_s = time.monotonic() - 3600
        one._prepare()
        put(valkey, alert("a"), valkey.prefix)
        assert [item.id for item in take(one, 1)] == [alert("a").id]
        client.execute_command("ACL", "DELUSER", "narrow")
    assert "does not tell its time" in caplog.text


@pytest.mark.parametrize("protocol", ["", "?protocol=3", "?protocol=2"])
def test_a_group_hands_out_again_what_was_cut_off(valkey: Valkey, protocol: str) -> None:
    for name in "abc":
        put(valkey, alert(name), valkey.prefix)
    options: dict[str, Any] = {"group": "g", "keys": Keys(valkey.prefix), "heartbeat_s": None, "last_id": "0"}
    with AlertSubscriber(valkey.url + protocol, **options) as one:
        alerts: Iterator[Alert] = iter(one)
        assert [next(alerts).id, next(alerts).id] == [alert("a").id, alert("b").id]
        # the crash: b was handed out and not handled
    with AlertSubscriber(valkey.url + protocol, **options) as again:
        assert [a.id for a in take(again, 2)] == [alert("b").id, alert("c").id]
    with valkey.client() as client:
        pending: Any = client.xpending(f"{valkey.prefix}:alerts", "g")
        assert pending["pending"] == 0


@pytest.mark.parametrize("group", [None, "g"])
def test_an_iteration_that_was_left_goes_on_with_what_was_not_handled(valkey: Valkey, group: str | None) -> None:
    for name in "ab":
        put(valkey, alert(name), valkey.prefix)
    with reader(valkey, group=group) as one:
        for item in one:
            assert item.id == alert("a").id
            break
        assert [a.id for a in take(one, 2)] == [alert("a").id, alert("b").id]


def test_unreadable_entries_are_said_and_skipped(valkey: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    with valkey.client() as client:
        client.xadd(f"{valkey.prefix}:alerts", {"alert": '{"id": 1}'})
        client.xadd(f"{valkey.prefix}:alerts", {"other": "field"})
    put(valkey, alert("a"), valkey.prefix)
    with reader(valkey, group="g") as one:
        assert [a.id for a in take(one, 1)] == [alert("a").id]
    assert [r.levelname for r in caplog.records if "not an alert" in r.message] == ["ERROR", "ERROR"]


def test_a_last_id_newer_than_the_stream_is_noticed(valkey: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    put(valkey, alert("a"), valkey.prefix, entry="1000-0")
    with reader(valkey, last_id="2000-0") as one:
        assert [a.id for a in take(one, 1)] == [alert("a").id]
    assert "before the last entry seen" in caplog.text


def test_a_group_past_the_streams_end_is_set_back(valkey: Valkey) -> None:
    stream = f"{valkey.prefix}:alerts"
    put(valkey, alert("a"), valkey.prefix, entry="1000-0")
    with valkey.client() as client:
        client.xgroup_create(stream, "g", id="2000-0")
    with reader(valkey, group="g") as one:
        assert [a.id for a in take(one, 1)] == [alert("a").id]


@pytest.mark.parametrize("group", [None, "g"])
def test_it_lives_through_a_restart_and_a_lost_group(own_valkey: OwnValkey, group: str | None) -> None:
    put(own_valkey, alert("a"), "{quake}")
    with AlertSubscriber(own_valkey.url, group=group, last_id="0", heartbeat_s=30.0) as one:
        found: list[str] = []

        def gather() -> None:
            for item in one:
                found.append(item.id)

        thread = threading.Thread(target=gather)
        thread.start()
        try:
            until(lambda: len(found) == 1)
            own_valkey.stop()
            own_valkey.start()
            put(own_valkey, alert("b"), "{quake}")
            until(lambda: len(found) == 2)
            with own_valkey.client() as client:
                client.flushall()
            put(own_valkey, alert("c"), "{quake}")
            until(lambda: len(found) == 3)
        finally:
            one.stop()
            thread.join(20)
    assert found == [alert(name).id for name in "abc"]


def test_silence_is_raised_and_a_beat_on_another_clock_counts(valkey: Valkey) -> None:
    with reader(valkey, heartbeat_s=0.5) as one, valkey.client() as client:
        client.hset(f"{valkey.prefix}:heartbeat", "d", "5")  # a daemon whose clock is far behind
        client.hset(f"{valkey.prefix}:heartbeat", "dead", "99999999999999999999")  # one that was far ahead
        thread = threading.Thread(target=_beat, args=(valkey, one))
        thread.start()
        with pytest.raises(HeartbeatLostError, match="no daemon has beaten"):
            next(iter(one))
        assert not thread.is_alive()  # silent only after the beats had ended
        thread.join()


def _beat(valkey: Valkey, one: AlertSubscriber) -> None:
    with valkey.client() as client:
        for n in range(15):
            client.hset(f"{valkey.prefix}:heartbeat", "d", str(6 + n))
            time.sleep(0.1)  # the beats' own pace
    assert not one._stopped.is_set()


def test_a_redis_that_is_gone_is_silence_too() -> None:
    with (
        AlertSubscriber("redis://127.0.0.1:9/0", heartbeat_s=0.4) as one,
        pytest.raises(HeartbeatLostError),
    ):
        next(iter(one))


def test_a_slow_reader_is_no_silence(valkey: Valkey) -> None:
    for name in "ab":
        put(valkey, alert(name), valkey.prefix)
    with reader(valkey, heartbeat_s=0.6) as one:
        alerts = iter(one)
        next(alerts)
        time.sleep(0.7)  # the reader's work
        assert next(alerts).id == alert("b").id
        time.sleep(0.7)
        put(valkey, alert("c"), valkey.prefix)
        assert next(alerts).id == alert("c").id


def test_it_goes_back_no_further_than_to_where_it_began(valkey: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    """A fail-over lost the last entry: what lies before this subscriber's time is not handed out."""
    stream = f"{valkey.prefix}:alerts"
    for n, name in enumerate("abc"):
        put(valkey, alert(name), valkey.prefix, entry=f"{1000 + n}-0")
    with reader(valkey, last_id="1000-0") as one, valkey.client() as client:
        assert [a.id for a in take(one, 2)] == [alert("b").id, alert("c").id]
        client.delete(stream)
        for n, name in enumerate("ab"):
            put(valkey, alert(name), valkey.prefix, entry=f"{1000 + n}-0")
        one._read_again()
        one._prepare()
        put(valkey, alert("c"), valkey.prefix, entry="1001-1")
        put(valkey, alert("d"), valkey.prefix, entry="1001-2")
        assert [a.id for a in take(one, 1)] == [alert("d").id]
    assert "reading it again from 1000-0" in caplog.text


GARBAGE: list[dict[bytes, bytes]] = [
    {b"alert": b"\xff\xfe\x00 not text"},
    {b"\xff\xff": b"\xff"},
    {b"alert": b'{"trace":' + b"[" * 100_000},
    {b"alert": b""},
    {b"alert": b'{"onset": 1e400, "revision": -1}'},
    {b"other": b"x"},
]


@pytest.mark.parametrize("group", [None, "readers"])
def test_entries_of_somebody_else_stop_nobody(valkey: Valkey, group: str | None) -> None:
    """Each is said, skipped and acknowledged; the alerts before and after come, each once."""
    put(valkey, alert("a"), valkey.prefix)
    with valkey.client() as client:
        for fields in GARBAGE:
            client.xadd(f"{valkey.prefix}:alerts", fields)  # type: ignore[arg-type]
        client.hset(f"{valkey.prefix}:heartbeat", b"\xff", b"\xff")  # type: ignore[arg-type]
    put(valkey, alert("b"), valkey.prefix)
    with reader(valkey, group=group) as one:
        assert [found.id for found in take(one, 2)] == [alert("a").id, alert("b").id]
    if group is not None:
        with valkey.client() as client:
            assert client.xpending(f"{valkey.prefix}:alerts", group)["pending"] == 0  # type: ignore[index]
