"""The page's server against a real Redis: what it tells, to whom, and what it takes down."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncGenerator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from dashboard_server import Page, beat, page, publish, station, until
from made_alerts import NOW_NS, alert
from redis import Redis
from test_http import make
from valkey_server import OwnValkey, Valkey

from quake import subscriber
from quake.alerts import Keys, Kind, StationOnset, Status
from quake.times import NS, format_ns
from streamer.dashboard import app as app_module
from streamer.dashboard import hub as hub_module
from streamer.dashboard.guard import COOKIE
from streamer.dashboard.stations import described
from streamer.mutes import read_mutes
from trainer.data.marks import read_marks

TOKEN = "a token of some length"
ABC, DEF = "FDSN:XX_ABC_00_H_H", "FDSN:XX_DEF__H_H"
SAID = {"mark": "earthquake", "by": "kim"}


def event(name: str, *stations: str, kind: Kind = Kind.EVENT, onset: int = NOW_NS, **changes: Any) -> Any:
    onsets = [
        StationOnset(source_id=s, detection_id="d", onset=onset + i, probability=0.9) for i, s in enumerate(stations)
    ]
    return alert(name, kind=kind, onset=onset, stations=tuple(onsets), **changes)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "STATE_S", 0.1)
    monkeypatch.setattr(hub_module, "POLL_MS", 50)
    monkeypatch.setattr(subscriber, "POLL_S", 0.05)


@pytest.fixture
def keys(valkey: Valkey) -> Keys:
    return Keys(valkey.prefix)


@pytest.fixture
def client(valkey: Valkey) -> Iterator[Redis]:
    with valkey.client() as made:
        yield made


@pytest.fixture
def night(valkey: Valkey, keys: Keys, client: Redis) -> Iterator[Page]:
    """Two stations, an event and a detection of another time."""
    beat(client, keys, {ABC: station(), DEF: station(connected=False)})
    publish(client, keys, event("e", ABC, DEF), event("d", DEF, kind=Kind.DETECTION, onset=NOW_NS + 60 * NS))
    with page(valkey.url, keys) as made:
        until(lambda: len(made.ask("api/alerts")[1]) == 2 and made.ask("api/state")[1]["stations"])
        yield made


# -- what it tells ---------------------------------------------------------------------------------------------------


def names(night: Page, query: str) -> list[str]:
    status, found, _ = night.ask(f"api/alerts?{query}")
    assert status == 200
    return [one["kind"] for one in found]


def test_alerts_are_filtered(night: Page) -> None:
    assert names(night, "") == ["detection", "event"]
    assert names(night, "kind=event") == ["event"]
    assert names(night, "station=abc") == ["event"]
    assert names(night, "status=closed") == []
    assert names(night, f"since={format_ns(NOW_NS + NS)}") == ["detection"]
    assert names(night, f"until={format_ns(NOW_NS + NS)}") == ["event"]
    assert names(night, "limit=1") == ["detection"]


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("api/alerts?kind=quake", 422, "kind: Input should be"),
        ("api/alerts?since=yesterday", 422, "since: Value error, 'yesterday' is not an RFC 3339 time"),
        ("api/alerts?colour=red", 422, "colour: Extra inputs"),
        ("api/alerts/none", 404, "no such alert"),
        ("api/events?station=FDSN:none", 404, "no station FDSN:none"),
        ("api/nothing", 404, "Not Found"),
    ],
)
def test_a_wrong_question_is_told_so(night: Page, path: str, status: int, told: str) -> None:
    answer = night.ask(path)
    assert (answer[0], told in str(answer[1])) == (status, True), answer


def test_the_newest_revision_stands(night: Page, client: Redis, keys: Keys) -> None:
    publish(client, keys, event("e", ABC, DEF, revision=1, status=Status.CLOSED))
    until(lambda: names(night, "status=closed"))
    assert len(night.ask("api/alerts")[1]) == 2


def test_an_alert_comes_with_its_picture_while_it_is_kept(night: Page, client: Redis, keys: Keys) -> None:
    ident = event("e", ABC).id
    assert night.ask(f"api/alerts/{ident}")[1]["picture"] is None
    client.set(keys.picture(ident), '{"a": 1}')
    assert night.ask(f"api/alerts/{ident}")[1]["picture"] == {"a": 1}


def test_a_day_is_told_by_the_hour_up_to_the_newest_sample(night: Page, client: Redis, keys: Keys) -> None:
    hour = int(time.time() - 1) // 3600
    for back in (0, 3, 23, 24):
        client.setrange(keys.hour(ABC, hour - back), 4, "abcd")
    status, found, _ = night.ask(f"api/helicorder/{ABC}")
    assert (status, found) == (200, {str(hour - back): "\0\0\0\0abcd" for back in (23, 3, 0)})
    assert night.ask(f"api/helicorder/{DEF}")[1] == {}
    assert night.ask("api/helicorder/none")[0] == 404


def messages(answer: Any, wanted: int) -> list[tuple[str, Any]]:
    """The first of the stream."""
    found: list[tuple[str, Any]] = []
    name = ""
    while len(found) < wanted:
        line = answer.readline().decode().strip()
        if line.startswith("event:"):
            name = line[7:]
        elif line.startswith("data:"):
            found.append((name, json.loads(line[6:])))
    return found


def test_what_is_new_comes_by_itself(night: Page, client: Redis, keys: Keys) -> None:
    client.xadd(keys.live_data(ABC), {"window": "[1, 0.25]"})
    with urllib.request.urlopen(f"{night.address}api/events?station={ABC}", timeout=10) as answer:
        assert answer.headers.get_content_type() == "text/event-stream"
        first = messages(answer, 2)
        assert [name for name, _ in first] == ["state", "window"]
        assert first[0][1]["stations"][ABC]["condition"] == "ok"
        assert int(client.ttl(keys.viewer(ABC))) > 0
        publish(client, keys, event("new", ABC))
        with urllib.request.urlopen(f"{night.address}api/events?station={DEF}", timeout=10) as other:
            messages(other, 1)
            client.xadd(keys.live_data(DEF), {"samples": '{"component": "N"}'})
            while not dict(messages(other, 1)).get("samples"):
                pass
        client.xadd(keys.live_data(ABC), {"samples": '{"component": "Z"}'})
        came = dict(first)
        while not {"alert", "samples"} <= came.keys():
            came |= messages(answer, 1)
        assert came["alert"]["id"] == event("new", ABC).id
        assert came["samples"] == {"component": "Z"}
    until(lambda: night.hub.listening == 0)


def test_a_browser_that_does_not_take_what_it_is_told_is_let_go(
    night: Page, client: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is told of no more, though somebody still holds its stream."""
    held = []

    class Held(app_module.EventStream):
        def __init__(self, told: AsyncGenerator[str]) -> None:
            super().__init__(told)
            held.append(self)

    monkeypatch.setattr(app_module, "EventStream", Held)
    monkeypatch.setattr(app_module, "SEND_S", 0.3)
    port = int(night.address.rstrip("/").rpartition(":")[2])
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        connection.request("GET", "/api/events")
        until(lambda: night.hub.listening == 1)
        large = event("e", *[f"FDSN:XX_S{number}__H_H" for number in range(2_000)])
        for revision in range(1, 60):
            publish(client, keys, large.model_copy(update={"revision": revision}))
        until(lambda: night.hub.listening == 0, 20.0)
    assert held


def test_a_station_is_silent_late_lost_or_not_used() -> None:
    def condition(now_s: float = 1_000.0, mode: str = "live", **changes: Any) -> Any:
        told = station(newest_s=999.0, scored_s=990.0, **changes) if "newest_s" not in changes else station(**changes)
        state = {"mode": mode, "written_s": 998.0, "window_s": 20.0, "stations": {"a": told}}
        return described([state], {}, now_s)["a"]

    assert condition()["condition"] == "ok"
    assert condition()["latency_s"] == 1.0
    assert condition(mode="replay", now_s=1e9)["latency_s"] is None
    assert condition(connected=False)["condition"] == "disconnected"
    assert condition(quiet_s=59.0)["condition"] == "silent"
    assert condition(quiet_s=57.0)["condition"] == "ok"
    assert condition(newest_s=939.0, scored_s=930.0)["condition"] == "late"
    assert condition(newest_s=939.0, scored_s=930.0, mode="replay", now_s=999.0)["condition"] == "ok"
    assert condition(newest_s=None)["condition"] == "waiting"
    assert condition(newest_s=999.0, scored_s=918.0)["condition"] == "unused"
    assert condition(newest_s=999.0, scored_s=920.0)["condition"] == "ok"
    told = condition(unused={"gap": [3, 50.0], "late": [1, 2.0], "overlap": [9, 1.0], "flat": [1, 70.0]})
    assert told["reasons"] == ["late", "gap"]
    assert told["unused"] == {"gap": 3, "late": 1, "overlap": 9, "flat": 1}


def test_of_two_daemons_the_fresher_is_shown() -> None:
    states = [
        {"mode": "live", "written_s": 1e3, "window_s": 20, "stations": {"a": station(scored_s=at_s, newest_s=at_s)}}
        for at_s in (900.0, 990.0, 950.0)
    ]
    assert described(states, {}, 1e3)["a"]["scored_s"] == 990.0


def test_a_silent_heartbeat_is_told(night: Page, client: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    assert night.ask("api/state")[1]["beating"]
    monkeypatch.setattr(hub_module, "SILENT_S", 0.3)
    until(lambda: not night.ask("api/state")[1]["beating"])
    beat(client, keys, {})
    monkeypatch.setattr(hub_module, "SILENT_S", 60.0)
    until(lambda: night.ask("api/state")[1]["beating"])


def test_an_old_heartbeat_is_none(valkey: Valkey, keys: Keys, client: Redis) -> None:
    client.hset(keys.heartbeat, "gone", str(time.time_ns() - 30 * NS))
    with page(valkey.url, keys) as made:
        until(lambda: made.ask("api/state")[1]["redis"])
        assert not made.ask("api/state")[1]["beating"]


def test_redis_that_goes_is_told_and_found_again(own_valkey: OwnValkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "RETRY_S", 0.05)
    keys = Keys("{q}")
    with page(own_valkey.url, keys) as made:
        with own_valkey.client() as client:
            beat(client, keys, {ABC: station()})
        until(lambda: made.ask("api/state")[1]["stations"])
        own_valkey.stop()
        until(lambda: not made.ask("api/state")[1]["redis"])
        assert made.ask("api/marks")[0] == 503
        with urllib.request.urlopen(f"{made.address}api/events?station={ABC}", timeout=10) as answer:
            assert not messages(answer, 1)[0][1]["redis"]
        own_valkey.start()
        with own_valkey.client() as client:
            publish(client, keys, event("e", ABC))
        until(lambda: made.ask("api/state")[1]["redis"])
        until(lambda: len(made.ask("api/alerts")[1]) == 1)
        ident = event("e", ABC).id
        assert made.ask(f"api/alerts/{ident}/marks", SAID)[0] == 201
        until(lambda: made.ask(f"api/alerts/{ident}")[1]["marks"])


# -- what it takes down ----------------------------------------------------------------------------------------------


def test_marks_are_kept_and_the_trainer_reads_them(night: Page, tmp_path: Path, valkey: Valkey) -> None:
    quake, other = event("e", ABC, DEF).id, event("d", DEF).id
    for ident, said in [
        (quake, SAID | {"mark": "false_alarm"}),
        (quake, SAID | {"comment": "felt in Füssen"}),
        (quake, SAID | {"mark": "acknowledged"}),
        (other, SAID | {"mark": "false_alarm"}),
        (other, SAID | {"mark": "withdrawn"}),
    ]:
        assert night.ask(f"api/alerts/{ident}/marks", said)[0] == 201
    shown = until(lambda: (m := night.ask(f"api/alerts/{quake}")[1]["marks"])[2:] and m)
    assert [one["mark"] for one in shown] == ["false_alarm", "earthquake", "acknowledged"]
    path = tmp_path / "marks.jsonl"
    path.write_text(night.ask("api/marks")[1])
    first, second = read_marks(path)
    assert (first.id, first.station, first.mark, first.onset) == (quake, "FDSN:XX_ABC_00", "earthquake", NOW_NS)
    assert (second.station, second.onset, second.by) == ("FDSN:XX_DEF_", NOW_NS + 1, "kim")
    assert first.comment == "felt in Füssen"
    done = dashboard("marks", "--redis", valkey.url, "--prefix", valkey.prefix, "--out", str(tmp_path / "again"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again").read_text() == path.read_text()


def test_marks_of_before_are_read(night: Page, valkey: Valkey, keys: Keys) -> None:
    night.ask(f"api/alerts/{event('e', ABC).id}/marks", SAID)
    with page(valkey.url, keys) as other:
        until(lambda: any(one["marks"] for one in other.ask("api/alerts")[1]))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"mark": "quake", "by": "kim"}, "mark: Input should be"),
        ({"mark": "earthquake", "by": " "}, "by: String should have at least 1 character"),
        ({"mark": "comment", "by": "kim"}, "a comment without a word"),
        ({"mark": "earthquake", "by": "kim", "id": "x"}, "id: Extra inputs"),
        ([], "body: Input should be an object"),
    ],
)
def test_a_mark_that_is_none_is_refused(night: Page, said: Any, told: str) -> None:
    status, answer, _ = night.ask(f"api/alerts/{event('e', ABC).id}/marks", said)
    assert status == 422
    assert told in answer["error"]
    assert night.ask("api/marks")[1] == ""


def test_a_station_is_muted_until_a_time_by_somebody_for_a_reason(night: Page) -> None:
    until_text = format_ns(time.time_ns() + 3600 * NS)
    asked = {"until": until_text, "by": "kim", "why": "road works"}
    assert night.ask(f"api/mutes/{DEF}", asked, "PUT")[0] == 200
    muted = until(lambda: night.ask("api/state")[1]["stations"][DEF]["muted"])
    assert (muted["until"], muted["by"], muted["why"]) == (until_text, "kim", "road works")
    told = {one["kind"]: one["muted"] for one in night.ask("api/alerts")[1]}
    assert told == {"detection": True, "event": False}  # another station saw the event too
    assert night.ask(f"api/mutes/{DEF}", method="DELETE", headers={"Content-Type": "application/json"})[0] == 200
    until(lambda: night.ask("api/state")[1]["stations"][DEF]["muted"] is None)


@pytest.mark.parametrize(
    ("station_", "changes", "status"),
    [("FDSN:none", {}, 404), (DEF, {"until": format_ns(NOW_NS)}, 422), (DEF, {"why": ""}, 422), (DEF, {"by": ""}, 422)],
)
def test_a_mute_that_is_none_is_refused(night: Page, station_: str, changes: dict[str, str], status: int) -> None:
    asked = {"until": format_ns(time.time_ns() + 3600 * NS), "by": "kim", "why": "x", **changes}
    assert night.ask(f"api/mutes/{station_}", asked, "PUT")[0] == status


def test_a_mute_ends() -> None:
    mute = {"until": format_ns(NOW_NS), "by": "kim", "why": "x", "since": format_ns(0)}
    stored = {"a": json.dumps(mute), "b": "no mute"}
    assert list(read_mutes(stored, NOW_NS - 1)) == ["a"]
    assert not read_mutes(stored, NOW_NS)


# -- who may ask ------------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(valkey: Valkey, keys: Keys) -> Iterator[Page]:
    with page(valkey.url, keys, TOKEN) as made:
        yield made


@pytest.mark.parametrize(
    "path", ["api/state", "api/alerts", "api/alerts/x", "api/marks", "api/events", "api/helicorder/x"]
)
def test_without_the_token_nothing_is_told(guarded: Page, path: str) -> None:
    assert guarded.ask(path)[0] == 401
    for wrong in (f"Basic {TOKEN}", "Bearer wrong", f"Bearer {TOKEN}x", "Bearer \udcff"):
        assert guarded.ask(path, headers={"Authorization": wrong.encode("utf-8", "replace").decode()})[0] == 401
    assert guarded.ask(path, headers={"Cookie": f"{COOKIE}={TOKEN}"})[0] == 401


def test_the_token_or_signing_in_opens(guarded: Page) -> None:
    assert guarded.ask("api/state", headers={"Authorization": f"Bearer {TOKEN}"})[0] == 200
    assert guarded.ask("api/sign-in", {"token": "wrong"})[0] == 403
    status, _, headers = guarded.ask("api/sign-in", {"token": TOKEN})
    cookie = headers["Set-Cookie"]
    assert status == 200
    assert TOKEN not in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert guarded.ask("api/state", headers={"Cookie": cookie.partition(";")[0]})[0] == 200
    again = guarded.ask("api/alerts", headers={"Cookie": cookie.partition(";")[0]})[2]
    assert again["Set-Cookie"].partition(";")[0] == cookie.partition(";")[0]
    assert "Max-Age=2592000" in again["Set-Cookie"]
    for open_to_all in ("", "healthz"):
        assert guarded.ask(open_to_all)[0] == 200


def test_without_a_token_foreign_names_are_refused(night: Page) -> None:
    """A page of elsewhere whose name points here would read along otherwise."""
    for name, status in (("evil.example", 421), ("evil.example:9109", 421), ("localhost:1", 200), ("[::1]:1", 200)):
        assert night.ask("api/state", headers={"Host": name})[0] == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_what_changes_something_comes_from_the_page_itself(night: Page, headers: dict[str, str], status: int) -> None:
    assert night.ask(f"api/alerts/{event('e', ABC).id}/marks", SAID, headers=headers)[0] == status
    assert night.ask(f"api/mutes/{DEF}", method="DELETE", headers=headers)[0] == status


def test_a_long_body_is_refused(night: Page) -> None:
    assert night.ask(f"api/alerts/{event('e', ABC).id}/marks", SAID | {"comment": "x" * 20_000})[0] == 413


def test_a_browser_is_told_to_load_nothing_else(night: Page) -> None:
    for path in ("", "api/state", "api/nothing", "nothing"):
        policy = night.ask(path)[2]["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
    assert night.ask("api/state")[2]["Cache-Control"] == "no-store"
    assert night.ask("../../pyproject.toml")[0] == 404


# -- the program ------------------------------------------------------------------------------------------------------


def dashboard(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streamer", *arguments]
    told = os.environ | environment
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=told)


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (["--host", "0.0.0.0"], {}, "set QUAKE_DASHBOARD_TOKEN"),
        ([], {"QUAKE_DASHBOARD_TOKEN": "short"}, "QUAKE_DASHBOARD_TOKEN: at least 16 characters"),
        ([], {"QUAKE_DASHBOARD_TOKEN_FILE": "/none"}, "QUAKE_DASHBOARD_TOKEN_FILE: /none: No such file"),
        (["--redis", "http://x"], {}, "--redis: "),
        (["--port", "99999"], {}, "--port: 127.0.0.1:99999"),
        (["--certificate", "x.pem"], {}, "--certificate and --key go together"),
        (["--certificate", "x.pem", "--key", "x.key"], {}, "--certificate: x.pem, x.key"),
    ],
)
def test_what_cannot_start_says_why(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    environment: dict[str, str],
    told: str,
) -> None:
    from streamer.cli import main

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["dashboard", *arguments]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--redis", "redis://127.0.0.1:1"], ["--out", "/none/marks"]])
def test_marks_that_cannot_be_had_are_one_line(
    capsys: pytest.CaptureFixture[str], valkey: Valkey, arguments: list[str]
) -> None:
    from streamer.cli import main

    assert main(["marks", "--redis", valkey.url, *arguments]) == 1
    told = capsys.readouterr()
    assert (len(told.err.splitlines()), told.out) == (1, "")


def test_without_the_extra_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from streamer.cli import main

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["dashboard"]) == 2
    assert "pip install 'quake[dashboard]'" in capsys.readouterr().err


def test_the_program_serves_under_tls_and_ends_when_it_is_asked(tmp_path: Path, valkey: Valkey) -> None:
    certificate, key = make(tmp_path, "one")
    command = [sys.executable, "-m", "streamer", "dashboard", "--port", "0", "--redis", valkey.url]
    command += ["--certificate", str(certificate), "--key", str(key)]
    trusted = ssl.create_default_context(cafile=str(certificate))
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            address = line.rpartition("page at ")[2].strip()
            assert address.startswith("https://127.0.0.1:"), line
            until(lambda: urllib.request.urlopen(f"{address}healthz", context=trusted, timeout=10).status == 200)
            for old, new in zip((certificate, key), make(tmp_path, "two"), strict=True):
                new.replace(old)
            renewed = ssl.create_default_context(cafile=str(certificate))
            with urllib.request.urlopen(f"{address}api/events", context=renewed, timeout=10) as stream:
                assert messages(stream, 1)[0][0] == "state"
                process.send_signal(signal.SIGTERM)
                begun_s = time.monotonic()
                assert process.wait(10) == 0
                assert time.monotonic() - begun_s < 5
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()
