"""The way out, against a real server: Valkey speaks Redis' protocol and runs its scripts."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from made_alerts import NOW_NS, alert, opening
from valkey_server import OwnValkey, Valkey

from quake.alerts import Alert, Keys, Kind, Mode
from streamer import publisher as module
from streamer.hooks import Hooks
from streamer.outbox import Outbox, Produced, Progress
from streamer.publisher import Publisher, PublishSettings
from streamer.stages import NS

HOUR_NS = 3600 * NS


class Heard(Hooks):
    def __init__(self) -> None:
        self.outcomes: list[tuple[str, int, str]] = []
        self.failures: Counter[str] = Counter()
        self.used_bytes = 0
        self.marked = 0

    def marked_sent(self, count: int) -> None:
        self.marked += count

    def published(self, alert: Alert, outcome: str) -> None:
        self.outcomes.append((alert.id, alert.revision, outcome))

    def publish_failed(self, cause: str) -> None:
        self.failures[cause] += 1

    def outbox_size(self, used_bytes: int) -> None:
        self.used_bytes = used_bytes

    @property
    def sent(self) -> list[str]:
        return [ident for ident, _, outcome in self.outcomes if outcome == "sent"]


def until(condition: Callable[[], Any], timeout_s: float = 20.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "it did not happen in time"
        time.sleep(0.01)


def settings(url: str, prefix: str, **changes: Any) -> PublishSettings:
    fields: dict[str, Any] = {
        "url": url,
        "keys": Keys(prefix),
        "daemon": "d1",
        "dead_ms": 15_000,
        "retention_ns": 30 * 24 * HOUR_NS,
        "again_ns": 48 * HOUR_NS,
        "most_bytes": 1 << 30,
        "max_age_ns": 300 * NS,
    }
    return PublishSettings(**{**fields, **changes})


@contextmanager
def publishing(
    path: Path, with_settings: PublishSettings, clock_ns: int | None = NOW_NS
) -> Iterator[tuple[Publisher, Heard]]:
    heard = Heard()
    clock: Callable[[], int] = time.time_ns if clock_ns is None else lambda: clock_ns
    one = Publisher(with_settings, path, heard, clock)
    one.start()
    try:
        yield one, heard
    finally:
        one.stop(0.1)
        one.join(15)
        assert not one.is_alive()


def commit(path: Path, *items: Produced) -> None:
    with Outbox(path) as outbox:
        outbox.commit(Progress(alerts=list(items)))


def entries(client: redis.Redis, stream: str) -> list[dict[str, str]]:
    found: Any = client.xrange(stream)
    return [fields for _, fields in found]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    commit(tmp_path / "outbox.sqlite")
    return tmp_path / "outbox.sqlite"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.2)
    monkeypatch.setattr(module, "RETRY_S", (0.05, 0.2))


def test_stream_and_channel_in_order_with_the_alert_as_committed(valkey: Valkey, path: Path) -> None:
    items = [Produced(alert(name, n)) for name in "abc" for n in range(3)]
    keys = Keys(valkey.prefix)
    with valkey.client() as client, client.pubsub() as channel:
        channel.subscribe(keys.events)
        until(lambda: channel.get_message(timeout=1))
        commit(path, *items)
        with publishing(path, settings(valkey.url, valkey.prefix)) as (_, heard):
            until(lambda: len(heard.sent) == 9)
        bodies = [fields["alert"] for fields in entries(client, keys.events)]
        assert [Alert.model_validate_json(b) for b in bodies] == [p.alert for p in items]
        told = [m["data"] for _ in bodies if (m := channel.get_message(timeout=5))]
        assert told == bodies
        assert client.ttl(keys.seen(items[0].alert.id)) > 29 * 86_400
    assert heard.marked == 9
    with Outbox(path) as outbox:
        assert outbox.backlog()[0] == 0


def test_a_lower_or_equal_revision_is_refused(valkey: Valkey, path: Path) -> None:
    commit(path, Produced(alert("a", 2)), Produced(alert("a", 1)), Produced(alert("a", 3)))
    with publishing(path, settings(valkey.url, valkey.prefix)) as (_, heard):
        until(lambda: len(heard.outcomes) == 3)
    assert [(r, o) for _, r, o in heard.outcomes] == [(2, "sent"), (1, "repeat"), (3, "sent")]
    with valkey.client() as client:
        assert [f["revision"] for f in entries(client, Keys(valkey.prefix).events)] == ["2", "3"]


def test_a_second_daemons_opening_within_the_dead_time_is_an_echo(valkey: Valkey, tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    commit(first, opening("a", 100))
    closing = Produced(alert("b", 1, kind=Kind.DETECTION), 114)
    commit(second, opening("b", 114), closing, opening("c", 115), opening("a", 100))
    with publishing(first, settings(valkey.url, valkey.prefix)) as (_, heard):
        until(lambda: heard.sent)
    with publishing(second, settings(valkey.url, valkey.prefix, daemon="d2")) as (_, heard):
        until(lambda: len(heard.outcomes) == 4)
    assert [o for *_, o in heard.outcomes] == ["echo", "echo", "sent", "repeat"]
    with valkey.client() as client:
        ids = [f["id"] for f in entries(client, Keys(valkey.prefix).detections)]
    assert ids == [alert("a").id, alert("c").id]


def test_another_hop_keeps_one_of_two_daemons_openings(valkey: Valkey, tmp_path: Path) -> None:
    """Windows of 1 s have half the numbers that those of 0.5 s had, which both daemons' openings fill the set with."""
    at_k, before, paths = 1_700_000_000, [], [tmp_path / "1", tmp_path / "2"]
    for n in range(120):
        before.append(opening(f"before {n}", 2 * at_k + 60 * n, NS // 2))
    with valkey.client() as client:  # as the release before kept them: by number
        old = {one.alert.id: one.k for one in before}
        client.zadd(f"{valkey.prefix}:opened:{before[0].alert.stations[0].source_id}", old)  # type: ignore[arg-type]
    commit(paths[0], *before, opening("a", at_k + 10_000))
    commit(paths[1], opening("b", at_k + 10_014), opening("c", at_k + 10_015))
    with publishing(paths[0], settings(valkey.url, valkey.prefix)) as (_, heard):
        until(lambda: len(heard.sent) == 121)
    with publishing(paths[1], settings(valkey.url, valkey.prefix, daemon="d2")) as (_, heard):
        until(lambda: len(heard.outcomes) == 2)
    assert [(ident, outcome) for ident, _, outcome in heard.outcomes] == [
        (alert("b").id, "echo"),
        (alert("c").id, "sent"),
    ]


def test_an_emptied_redis_is_offered_the_last_hours_once(own_valkey: OwnValkey, path: Path) -> None:
    old = Produced(alert("old", created=NOW_NS - 100 * HOUR_NS))
    commit(path, old, Produced(alert("a")), Produced(alert("b")))
    with own_valkey.client() as client, publishing(path, settings(own_valkey.url, "{q}")) as (one, heard):
        until(lambda: len(heard.sent) == 3)
        client.flushall()
        commit(path, Produced(alert("c")))
        one.wake()
        until(lambda: len(heard.sent) == 6)
        assert [f["id"] for f in entries(client, "{q}:alerts")] == [alert(n).id for n in "abc"]
        client.delete("{q}:epoch")  # lost by itself: offered again, and the script drops what is there
        until(lambda: len(heard.outcomes) == 9)
        assert [o for *_, o in heard.outcomes[6:]] == ["repeat"] * 3
        assert len(entries(client, "{q}:alerts")) == 3


def test_redis_down_at_the_start_then_up_then_restarted(own_valkey: OwnValkey, path: Path) -> None:
    own_valkey.stop()
    commit(path, Produced(alert("a")))
    with publishing(path, settings(own_valkey.url, "{q}")) as (one, heard):
        until(lambda: heard.failures)
        own_valkey.start()
        until(lambda: heard.sent == [alert("a").id])
        own_valkey.stop()
        commit(path, *(Produced(alert(str(n))) for n in range(20)))
        one.wake()
        until(lambda: sum(heard.failures.values()) > 2)
        own_valkey.start()
        until(lambda: len(set(heard.sent)) == 21)
        with own_valkey.client() as client:
            ids = [f["id"] for f in entries(client, "{q}:alerts")]
    assert [i for i in ids if i != alert("a").id] == [alert(str(n)).id for n in range(20)]
    assert len(ids) == len(set(ids))


def test_what_waited_too_long_is_stale(valkey: Valkey, path: Path) -> None:
    commit(path, Produced(alert("old", onset=NOW_NS - 301 * NS)), Produced(alert("new", onset=NOW_NS - 300 * NS)))
    with publishing(path, settings(valkey.url, valkey.prefix)) as (_, heard):
        until(lambda: len(heard.sent) == 2)
    with valkey.client() as client:
        assert [json.loads(f["alert"])["stale"] for f in entries(client, Keys(valkey.prefix).events)] == [True, False]


def test_a_replayed_alert_is_never_stale(valkey: Valkey, path: Path) -> None:
    commit(path, Produced(alert("old", onset=NOW_NS - 301 * NS, mode=Mode.REPLAY)))
    with publishing(path, settings(valkey.url, valkey.prefix)) as (_, heard):
        until(lambda: heard.sent)
    with valkey.client() as client:
        assert not json.loads(entries(client, Keys(valkey.prefix).events)[0]["alert"])["stale"]


def test_heartbeat_goes_on_under_a_clock_that_stands_still(valkey: Valkey, path: Path) -> None:
    """A wall clock that is set back must not silence it."""
    keys = Keys(valkey.prefix)
    with valkey.client() as client, client.pubsub() as channel:
        channel.subscribe(keys.heartbeat)
        client.hset(keys.heartbeat, "gone", str(NOW_NS - 25 * HOUR_NS))
        client.hset(keys.heartbeat, "quiet", str(NOW_NS - 24 * HOUR_NS))
        with publishing(path, settings(valkey.url, valkey.prefix)) as (_, heard):
            beats: list[Any] = []
            until(
                lambda: len([m for m in [channel.get_message(timeout=1)] if m and beats.append(m)]) or len(beats) >= 4
            )
        assert not heard.failures
        assert {m["data"] for m in beats if m["type"] == "message"} == {"d1"}
        assert client.hgetall(keys.heartbeat) == {"d1": str(NOW_NS), "quiet": str(NOW_NS - 24 * HOUR_NS)}


def test_old_entries_are_trimmed_from_the_stream(valkey: Valkey, path: Path) -> None:
    stream = Keys(valkey.prefix).events
    with valkey.client() as client:
        for n in range(300):  # MINID ~ trims by whole nodes of a hundred entries
            client.xadd(stream, {"alert": "x"}, id=f"{1000 + n}-0")
        commit(path, Produced(alert("a")))
        with publishing(path, settings(valkey.url, valkey.prefix)) as (_, heard):
            until(lambda: heard.sent)
        assert len(entries(client, stream)) < 150


def test_entries_within_the_retention_stay_on_the_stream(valkey: Valkey, path: Path) -> None:
    stream, oldest_ms = Keys(valkey.prefix).events, (NOW_NS - 30 * 24 * HOUR_NS) // 1_000_000
    with valkey.client() as client:
        for n in range(300):
            client.xadd(stream, {"alert": "x"}, id=f"{oldest_ms + n}-0")
        commit(path, Produced(alert("a")))
        with publishing(path, settings(valkey.url, valkey.prefix)) as (_, heard):
            until(lambda: heard.sent)
        assert len(entries(client, stream)) == 301


def test_one_alert_that_cannot_be_read_holds_up_nobody(valkey: Valkey, path: Path) -> None:
    commit(path, Produced(alert("a")), Produced(alert("b")))
    with Outbox(path) as outbox:
        outbox._db.execute("UPDATE alert SET body = '{}' WHERE sequence = 1")
    with publishing(path, settings(valkey.url, valkey.prefix)) as (_, heard):
        until(lambda: heard.sent == [alert("b").id])
    assert heard.failures == {"unreadable": 1}


def test_it_outlives_a_locked_outbox(valkey: Valkey, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marked, real = threading.Event(), Outbox.mark_sent

    def fail_once(self: Outbox, sequences: Any) -> None:
        if not marked.is_set():
            marked.set()
            raise sqlite3.OperationalError("database is locked")
        real(self, sequences)

    monkeypatch.setattr(Outbox, "mark_sent", fail_once)
    commit(path, Produced(alert("a")))
    with publishing(path, settings(valkey.url, valkey.prefix)) as (_, heard):
        until(lambda: len(heard.outcomes) == 2)
    assert [o for *_, o in heard.outcomes] == ["sent", "repeat"]


def test_stopping_empties_the_outbox_first(valkey: Valkey, path: Path) -> None:
    commit(path, *(Produced(alert(str(n))) for n in range(100)))
    heard = Heard()
    one = Publisher(settings(valkey.url, valkey.prefix), path, heard, lambda: NOW_NS)
    one.start()
    one.stop(20)
    assert not one.is_alive()
    assert len(heard.sent) == 100


def test_it_outlives_a_fault_of_its_own(
    valkey: Valkey, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    faults, real = iter([RuntimeError("a fault of ours")]), Publisher._beat

    def beat(self: Publisher, *arguments: Any) -> None:
        if fault := next(faults, None):
            raise fault
        real(self, *arguments)

    monkeypatch.setattr(Publisher, "_beat", beat)
    commit(path, Produced(alert("a")))
    with publishing(path, settings(valkey.url, valkey.prefix)) as (_, heard):
        until(lambda: heard.sent == [alert("a").id])
    assert heard.failures == {"internal": 1}
    (told,) = [r for r in caplog.records if r.message.startswith("a fault in the publisher; trying again")]
    assert told.exc_info, "with its trace"


def test_a_strangers_value_among_the_heartbeats_is_cleared_away(valkey: Valkey, path: Path) -> None:
    with_settings = settings(valkey.url, valkey.prefix)
    with valkey.client() as client:
        client.hset(with_settings.keys.heartbeat, "stranger", "no number")
        commit(path, Produced(alert("a")))
        with publishing(path, with_settings) as (_, heard):
            until(lambda: heard.sent)
            until(lambda: not client.hexists(with_settings.keys.heartbeat, "stranger"))
    assert not heard.failures


def test_stopping_while_redis_is_down_ends_and_does_not_spin(path: Path) -> None:
    commit(path, Produced(alert("a")))
    heard = Heard()
    one = Publisher(settings("redis://127.0.0.1:1/0", "{q}"), path, heard, lambda: NOW_NS)
    one.start()
    until(lambda: heard.failures)
    one.stop(1.0)
    assert not one.is_alive()
    assert set(heard.failures) == {"ConnectionError"}
    assert heard.failures.total() < 100
    with Outbox(path) as outbox:
        assert outbox.backlog()[0] == 1


def test_an_address_that_means_nothing_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="scheme"):
        Publisher(settings("http://127.0.0.1", "{q}"), Path("none"), Heard())


def test_the_first_alert_to_another_server_waits_for_those_it_lacks(own_valkey: OwnValkey, path: Path) -> None:
    """A fail-over between two heartbeats: the marker came along with the replica's data, the run id did not."""
    keys = Keys("{q}")
    commit(path, *(Produced(alert("a", n)) for n in range(3)))
    with own_valkey.client() as client, publishing(path, settings(own_valkey.url, "{q}")) as (one, heard):
        until(lambda: len(heard.sent) == 3)
        one._heartbeat_due_s = time.monotonic() + 3600.0
        client.set(keys.seen(alert("a").id), 0)  # revisions 1 and 2 had not been replicated
        for entry in client.xrange(keys.events)[1:]:  # type: ignore[index]
            client.xdel(keys.events, entry[0])
        with Outbox(path) as outbox:
            outbox.set("redis", f"{client.get(keys.epoch)} {40 * '0'}")
        commit(path, Produced(alert("a", 3)))
        one.wake()
        until(lambda: heard.outcomes[-1][1:] == (3, "sent"))
        assert [fields["revision"] for fields in entries(client, keys.events)] == ["0", "1", "2", "3"]


def test_a_backlog_does_not_hold_up_the_heartbeat(
    valkey: Valkey, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, beats = Publisher._send, []

    def slow(self: Publisher, *arguments: Any) -> bool:
        time.sleep(0.05)  # a slow Redis
        return real(self, *arguments)

    monkeypatch.setattr(Publisher, "_send", slow)
    commit(path, *(Produced(alert(str(n))) for n in range(40)))
    with publishing(path, settings(valkey.url, valkey.prefix)) as (_, heard):
        heard.redis_reachable = lambda time_ns: beats.append(len(heard.sent))  # type: ignore[method-assign]
        until(lambda: len(heard.sent) == 40)
    assert len({sent for sent in beats if 0 < sent < 40}) >= 4


def test_an_outage_is_told_once_and_its_end_too(path: Path, own_valkey: OwnValkey, caplog: Any) -> None:
    caplog.set_level("INFO")
    own_valkey.stop()
    commit(path, Produced(alert("a")))
    with publishing(path, settings(own_valkey.url, "{q}")) as (_, heard):
        until(lambda: sum(heard.failures.values()) > 4)
        own_valkey.start()
        until(lambda: "publishing again, after" in caplog.text)
    told = [r.message for r in caplog.records if "alerts wait in the outbox" in r.message]
    assert len(told) == len(set(told)) < 4
    assert heard.sent


def test_outbox_over_its_quota_forgets_what_redis_has(
    valkey: Valkey, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Outbox(path) as outbox:
        outbox.commit(Progress(alerts=[Produced(alert(str(n))) for n in range(300)]))
        outbox.mark_sent([u.sequence for u in outbox.unsent(200)])
        with publishing(path, settings(valkey.url, valkey.prefix, most_bytes=1)) as (_, heard):
            until(lambda: len(heard.sent) == 100)
            until(lambda: heard.used_bytes)
        assert outbox.send_again(0) == 100
    assert "the outbox is full (outbox_mb): 200 alert(s) that were sent cannot be offered again" in caplog.text


def test_alerts_that_redis_holds_are_forgotten_after_the_time_in_which_they_are_offered_again(
    valkey: Valkey, path: Path
) -> None:
    ages = [49, 48, 1]
    commit(path, *(Produced(alert(f"{hours} h", created=NOW_NS - hours * HOUR_NS)) for hours in ages))
    with Outbox(path) as outbox:
        outbox.mark_sent([u.sequence for u in outbox.unsent(2)])
    with publishing(path, settings(valkey.url, valkey.prefix)) as (_, heard):
        until(lambda: heard.sent)
    assert heard.sent == [alert("1 h").id], "what was sent does not go out again"
    with Outbox(path) as outbox:
        assert outbox.send_again(0) == 2


def test_pauses_double_up_to_the_longest_and_begin_anew_after_a_success(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, pauses = Heard(), list[float]()
    one = Publisher(settings("redis://127.0.0.1:1/0", "{q}"), path, heard)
    monkeypatch.setattr(module, "RETRY_S", (0.2, 1.0))
    monkeypatch.setattr(one._abandoned, "wait", pauses.append)
    monkeypatch.setattr(one._random, "uniform", lambda low, high: high)
    one._recovered()
    for _ in range(5):
        one._back_off("x")
    one._recovered()
    one._back_off("x")
    assert pauses == [0.2, 0.4, 0.8, 1.0, 1.0, 0.2]
    one._stopping.set()
    for _ in range(3):
        one._back_off("x")
    assert pauses[6:] == [0.4, 0.2, 0.2], "the last tries before the end are quick ones"
    assert heard.failures == {"x": 9}


def test_pauses_are_scattered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many daemons must not return to a server at once, and none before half of its pause."""
    pauses = []
    for _ in range(200):
        one = Publisher(settings("redis://127.0.0.1:1/0", "{q}"), path, Heard())
        one._recovered()
        with monkeypatch.context() as patch:
            patch.setattr(one._abandoned, "wait", pauses.append)
            one._back_off("x")
    assert 0.5 * 0.05 <= min(pauses) < 0.6 * 0.05
    assert 0.9 * 0.05 < max(pauses) <= 0.05


def test_it_rests_while_there_is_nothing_to_send(valkey: Valkey, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, drained, beats = Publisher._drain, [], []

    def drain(self: Publisher, *arguments: Any) -> bool:
        drained.append(True)
        return real(self, *arguments)

    monkeypatch.setattr(Publisher, "_drain", drain)
    with publishing(path, settings(valkey.url, valkey.prefix)) as (_, heard):
        heard.redis_reachable = beats.append  # type: ignore[method-assign]
        until(lambda: len(beats) >= 3)
    assert len(drained) < 10 * len(beats), "five looks a heartbeat"


def test_it_ends_with_the_process(path: Path) -> None:
    assert Publisher(settings("redis://127.0.0.1:1/0", "{q}"), path, Heard()).daemon


def test_what_is_offered_again_is_told(valkey: Valkey, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    commit(path, *(Produced(alert(name)) for name in "abc"))
    with Outbox(path) as outbox:
        outbox.mark_sent([1, 2])
        outbox.set("redis", "another one")
    with publishing(path, settings(valkey.url, valkey.prefix)) as (_, heard):
        until(lambda: len(heard.sent) == 3)
    assert "offering 2 alert(s) again" in caplog.text


def test_an_alert_that_cannot_be_read_is_named(valkey: Valkey, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    commit(path, Produced(alert("a")), Produced(alert("b")))
    with Outbox(path) as outbox:
        outbox._db.execute("UPDATE alert SET body = '{}' WHERE sequence = 1")
    with publishing(path, settings(valkey.url, valkey.prefix)) as (_, heard):
        until(lambda: heard.sent)
    assert f"outbox {path}: alert 1 is given up, it cannot be read" in caplog.text
