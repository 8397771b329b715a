"""The daemon's side of the web page, against a real Redis: who is not looked at costs nothing, and nobody is waited for."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from made_alerts import MODEL, NOW_NS, alert
from made_packets import EPOCH_S, SUBJECT, noise, packet, score
from valkey_server import OwnValkey, Valkey

from quake.alerts import Kind, StationOnset, Status
from quake.connecting import connect
from streamer.grid import Grid
from streamer.hooks import Hooks
from streamer.inventory import Stations
from streamer.live import feed as live
from streamer.live.feed import About, Feed
from streamer.live.view import View
from streamer.stages import NS, Cursor, Unused
from streamer.trigger import Thresholds

GRID = Grid(100, 400, 100)
ABOUT = About("here", "live", MODEL, "cpu", Thresholds(0.8, 0.5, 2, 3, 15, 300), 1.0, 4.0)
SERVER = "seedlink://a:18000"


class Told(Hooks):
    dropped = 0

    def live_dropped(self, count: int) -> None:
        self.dropped += count


def view(*, has_helicorder: bool = False) -> View:
    return View(GRID, Stations({"XX_ABC": (48.0, 11.0)}, {}), has_helicorder=has_helicorder)


@contextmanager
def fed(
    server: Valkey | OwnValkey, prefix: str, told: Hooks | None = None, *, has_helicorder: bool = False
) -> Iterator[Feed]:
    seen = view(has_helicorder=has_helicorder)
    made = Feed(connect(server.url, 1.0), live.Keys(prefix), ABOUT, seen, told or Hooks())
    made.start(lambda: {"FDSN:XX_NEW__H_H": None})
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ROUND_S", "VIEWERS_S", "STATE_S", "HOURS_S", "RETRY_S"):
        monkeypatch.setattr(live, name, 0.02)


def until(look: Callable[[], Any], timeout_s: float = 10.0) -> Any:
    end_s = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < end_s
        time.sleep(0.01)
    return found


def state(server: Valkey | OwnValkey, prefix: str) -> dict[str, Any]:
    with server.client() as client:
        return json.loads(str(client.get(f"{prefix}:live:state:here") or '{"stations": {}}'))


def test_a_station_is_told_with_what_was_not_used(valkey: Valkey) -> None:
    with fed(valkey, valkey.prefix) as feed:
        feed.source("connected", SERVER, "")
        feed.packet(packet("Z", 0, noise(400), cursor=Cursor(SERVER, "XX_ABC", 1)))
        feed.samples_unused(f"{SUBJECT}_Z", Unused.GAP, 7)
        feed.samples_unused(f"{SUBJECT}_N", Unused.GAP, 5)
        feed.scored([score(EPOCH_S, 0.25)])
        feed.state(SUBJECT, (EPOCH_S + 4) * NS, EPOCH_S * NS, 0.5)
        feed.behind(1.5)
        told = until(lambda: (found := state(valkey, valkey.prefix)).get("health", {}).get("behind_s") == 1.5 and found)
    station = told["stations"][SUBJECT]
    assert station["newest_s"] == EPOCH_S + 4
    assert station["fill"] == 0.5
    assert station["connected"] is True
    assert station["unused"]["gap"][0] == 12
    assert (station["probability"], station["scored_s"]) == (0.25, EPOCH_S + 4)
    assert (station["latitude"], station["longitude"]) == (48.0, 11.0)
    assert told["stations"]["FDSN:XX_NEW__H_H"]["newest_s"] is None
    assert told["health"]["behind_s"] == 1.5
    assert (told["on"], told["model"]["version"]) == (0.8, "1.0.0")
    with valkey.client() as client:
        assert 0 < int(client.ttl(f"{valkey.prefix}:live:state:here")) <= live.STATE_EXPIRES_S


def test_a_server_that_is_lost_is_told_of_its_stations(valkey: Valkey) -> None:
    with fed(valkey, valkey.prefix) as feed:
        feed.source("connected", SERVER, "")
        feed.packet(packet("Z", 0, noise(400), cursor=Cursor(SERVER, "XX_ABC", 1)))
        until(lambda: state(valkey, valkey.prefix)["stations"].get(SUBJECT, {}).get("connected"))
        feed.source("lost", SERVER, "timeout")
        until(lambda: state(valkey, valkey.prefix)["stations"][SUBJECT]["connected"] is False)


def test_samples_come_once_somebody_looks_and_with_the_minutes_before(valkey: Valkey) -> None:
    data = f"{valkey.prefix}:live:data:{SUBJECT}"
    with valkey.client() as client, fed(valkey, valkey.prefix) as feed:
        feed.packet(packet("Z", 0, noise(400)))
        feed.scored([score(EPOCH_S, 0.25)])
        until(lambda: state(valkey, valkey.prefix)["stations"].get(SUBJECT))
        assert not client.exists(data)
        client.set(f"{valkey.prefix}:live:viewer:{SUBJECT}", 1)
        until(lambda: client.xlen(data) == 2)
        feed.packet(packet("Z", 400, noise(400)))
        until(lambda: client.xlen(data) == 3)
        entries: Any = client.xrange(data)
        pieces = [json.loads(fields["samples"]) for _, fields in entries if "samples" in fields]
        assert [piece["component"] for piece in pieces] == ["Z", "Z"]
        assert pieces[1]["start_s"] - pieces[0]["start_s"] == pytest.approx(72 / 20)  # 0.4 s wait for the filter
        assert json.loads(entries[1][1]["window"]) == [EPOCH_S + 4, 0.25]
        assert 0 < int(client.ttl(data)) <= live.DATA_EXPIRES_S
        client.delete(f"{valkey.prefix}:live:viewer:{SUBJECT}")
        before = state(valkey, valkey.prefix)["written_s"]
        until(lambda: state(valkey, valkey.prefix)["written_s"] > before + 0.1)
        feed.packet(packet("Z", 800, noise(400)))
        feed.state(SUBJECT, 9 * NS, 0, 1.0)
        until(lambda: state(valkey, valkey.prefix)["stations"][SUBJECT]["newest_s"] == 9)
        assert client.xlen(data) == 3


def test_five_minutes_are_kept() -> None:
    made = view()
    for number in range(400):
        made.packet(packet("Z", 100 * number, noise(100)))
        made.scored([(SUBJECT, EPOCH_S + number, 0.5)])
    sight = made.sights[SUBJECT]
    assert (sight.pieces[-1].end_ns - sight.pieces[0].start_ns) / NS == pytest.approx(301, abs=1)
    assert len(sight.windows) == 301


def test_who_looks_on_is_told_what_came_once() -> None:
    made = view()
    for number in range(10):
        made.packet(packet("Z", 100 * number, noise(100)))
        made.scored([(SUBJECT, EPOCH_S + number, 0.5)])
    made.watch([SUBJECT])
    assert len(made.take_fresh()[SUBJECT]) > 10
    made.watch([SUBJECT])
    assert made.take_fresh() == {}
    made.packet(packet("Z", 1000, noise(100)))
    made.watch([SUBJECT])
    assert [name for name, _ in made.take_fresh()[SUBJECT]] == ["samples"]


@pytest.mark.parametrize("ahead_s", [-400, 86_400])
def test_a_packet_of_another_time_neither_hides_what_is_true_nor_keeps_it_for_ever(ahead_s: int) -> None:
    made = view()
    for number in range(350):
        made.packet(packet("Z", 100 * number, noise(100)))
    wrong = packet("Z", 100 * (350 + ahead_s), noise(100))
    made.packet(replace(wrong, received_ns=(EPOCH_S + 352) * NS))
    for number in range(351, 1000):
        made.packet(packet("Z", 100 * number, noise(100)))
    pieces = made.sights[SUBJECT].pieces
    assert len(pieces) == pytest.approx(301, abs=2)
    assert pieces[-1].end_ns / NS == pytest.approx(EPOCH_S + 1000, abs=1)


def event(status: Status = Status.OPEN, revision: int = 0, kind: Kind = Kind.EVENT) -> Any:
    onset = (EPOCH_S + 60) * NS
    station = StationOnset(source_id=SUBJECT, detection_id="d", onset=onset, probability=0.9)
    return alert("e", revision, kind, status=status, onset=onset, stations=(station,))


def test_a_picture_holds_what_lies_around_the_onset_and_is_written_again_when_it_is_whole() -> None:
    made = view()
    for number in range(70):
        made.packet(packet("Z", 100 * number, noise(100)))
        made.scored([(SUBJECT, EPOCH_S + number, 0.5)])
    made.alerts([event()])
    (_, picture), *others = made.take_pictures(9)
    assert not others
    samples = picture[SUBJECT]["samples"]
    assert EPOCH_S + 28 < samples[0]["start_s"] < EPOCH_S + 31
    assert len(picture[SUBJECT]["windows"]) == 43
    assert made.take_pictures(9) == []
    for number in range(70, 140):
        made.packet(packet("Z", 100 * number, noise(100)))
        made.scored([(SUBJECT, EPOCH_S + number, 0.5)])
    (_, picture), *_ = made.take_pictures(9)
    assert EPOCH_S + 118 < picture[SUBJECT]["samples"][-1]["start_s"] < EPOCH_S + 120
    made.alerts([event(Status.CLOSED, 3)])  # what lies before the onset may have gone
    assert made.take_pictures(9) == []


def test_a_single_stations_picture_waits_until_it_is_whole_or_given_up() -> None:
    made = view()
    made.scored([(SUBJECT, EPOCH_S + 60, 0.5)])
    made.alerts([event(kind=Kind.DETECTION)])
    assert made.take_pictures(9) == []
    made.now_s = 1_000.0
    assert len(made.take_pictures(9)) == 1
    assert made.take_pictures(9) == []


def test_an_events_picture_is_written(valkey: Valkey) -> None:
    with valkey.client() as client, fed(valkey, valkey.prefix) as feed:
        feed.packet(packet("Z", 0, noise(400)))
        feed.committed([alert("e", onset=NOW_NS)])
        key = f"{valkey.prefix}:live:picture:{alert('e').id}"
        until(lambda: client.exists(key))
        assert int(client.ttl(key)) > 6 * 86_400


class Stuck:
    """A Redis that never answers."""

    def pipeline(self, **_: object) -> Any:
        time.sleep(60)

    def close(self) -> None: ...


def test_a_redis_that_hangs_costs_the_pipeline_nothing_and_what_is_dropped_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live, "QUEUE", 100)
    monkeypatch.setattr(live, "TIMEOUT_S", 0.1)
    told = Told()
    made = Feed(Stuck(), live.Keys("{x}"), ABOUT, view(), told)  # type: ignore[arg-type]
    made.start(dict)
    time.sleep(0.1)
    begun_s = time.monotonic()
    for number in range(10_000):
        made.state(SUBJECT, number, 0, 0.0)
    assert time.monotonic() - begun_s < 1.0
    assert len(made._queue) <= 100
    made.stop()
    made._take()
    assert 9_000 < told.dropped <= 10_000


def test_redis_that_goes_and_comes_back_is_found_again(own_valkey: OwnValkey) -> None:
    with fed(own_valkey, "{q}") as feed:
        feed.state(SUBJECT, 1 * NS, 0, 0.0)
        until(lambda: state(own_valkey, "{q}")["stations"].get(SUBJECT))
        own_valkey.stop()
        feed.state(SUBJECT, 2 * NS, 0, 0.0)
        until(lambda: not feed._queue)
        own_valkey.start()
        until(lambda: state(own_valkey, "{q}")["stations"].get(SUBJECT, {}).get("newest_s") == 2)


def test_who_looks_gets_the_minutes_before_anew_once_redis_is_back(
    own_valkey: OwnValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "RETRY_S", 1.0)
    viewer, data = f"{{q}}:live:viewer:{SUBJECT}", f"{{q}}:live:data:{SUBJECT}"
    with fed(own_valkey, "{q}") as feed:
        with own_valkey.client() as client:
            client.set(viewer, 1)
            feed.packet(packet("Z", 0, noise(400)))
            until(lambda: client.xlen(data) == 1)
        own_valkey.stop()
        feed.packet(packet("Z", 400, noise(400)))
        until(lambda: feed._retry_s > time.monotonic())
        own_valkey.start()
        with own_valkey.client() as client:
            client.delete(data)
            client.set(viewer, 1)
            until(lambda: client.xlen(data) == 2)


def test_a_day_is_kept_only_where_it_is_asked_for(valkey: Valkey) -> None:
    other, asked = f"{valkey.prefix}:other", f"{valkey.prefix}:asked"
    key, late = (live.Keys(asked).hour(SUBJECT, EPOCH_S // 3600 + later) for later in (0, 1))
    with fed(valkey, other) as without, fed(valkey, asked, has_helicorder=True) as feed, valkey.client() as client:
        for number in range(4):
            for one in (without, feed):
                one.packet(packet("Z", 1000 * number, noise(1000)))
                one.packet(packet("N", 1000 * number, noise(1000)))
        first = EPOCH_S % 3600 // 5
        until(lambda: client.strlen(key) == 4 * (first + 8))
        text: Any = client.get(key)
        assert text[: 4 * first] == "\0" * 4 * first
        assert "\0" not in text[4 * first :]
        assert live.HOUR_EXPIRES_S - 60 < int(client.ttl(key)) <= live.HOUR_EXPIRES_S
        feed.packet(packet("Z", 100 * (3600 - EPOCH_S % 3600), noise(1000)))
        until(lambda: client.strlen(late) == 8)
        assert client.strlen(key) == 4 * (first + 8)
        until(lambda: state(valkey, asked)["stations"] and state(valkey, other)["stations"])
        assert (state(valkey, asked)["helicorder"], state(valkey, other)["helicorder"]) == (True, False)
        assert not client.keys(f"{other}:live:hour:*")
        assert not without._view.sights[SUBJECT].envelope._bins
