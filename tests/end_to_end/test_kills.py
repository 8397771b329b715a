"""``kill -9`` or SIGTERM at any moment loses no alert and makes no second one."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from daemon_harness import Life, Place, revisions, wait_for
from drill_report import judge
from drill_servers import hurry
from test_same_alerts import ends

from quake.alerts import Alert
from streamer.server import Record, ReplayServer

FAILPOINT_DAEMON = (sys.executable, str(Path(__file__).with_name("failpoint_daemon.py")))


@pytest.fixture(autouse=True)
def _without_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies count what the publisher sends, and the web page's part of the daemon sends too."""
    monkeypatch.setenv("QUAKE_LIVE__ENABLED", "false")


def finish(place: Place, life: Life, records: list[Record]) -> list[Alert]:
    with life:
        life.wait_newest(ends(records), 120.0)
        assert life.stop() == 0
    return place.published()


def check(published: list[Alert], undisturbed: list[Alert]) -> None:
    assert max(revisions(published).values()) == 1, "an id and revision came twice"
    assert revisions(published) == revisions(undisturbed)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("kills", "speed"),
    [
        pytest.param(5, 5.0, id="five"),
        pytest.param(50, 0.5, id="fifty", marks=pytest.mark.drill),
    ],
)
def test_killed_and_stopped_at_random_moments(
    place: Place, demo_records: list[Record], undisturbed: list[Alert], kills: int, speed: float
) -> None:
    """Slow enough that they are spread over the whole recording; every fourth falls into the start of a process."""
    chance, playing, longest_s = random.Random(20), 0, 0.0
    with ReplayServer(demo_records, speed=speed) as server:
        config = place.configure(server.address)
        for kill in range(kills):
            how = (signal.SIGKILL, signal.SIGTERM)[kill // 4 % 2]
            with place.start(config) as life:
                if kill % 4:
                    wait_for("the daemon is connected", lambda life=life: "connected, 4 stations" in life.text(), 60.0)
                with suppress(subprocess.TimeoutExpired):
                    life.process.wait(chance.uniform(0.0, 2.5))
                assert life.process.poll() is None, life.text()[-2000:]
                begun_s = time.monotonic()
                life.process.send_signal(how)
                assert life.process.wait(60.0) in {-how, 0 if how is signal.SIGTERM else -how}
                longest_s = max(longest_s, time.monotonic() - begun_s)
                playing += not server.finished.is_set()
        hurry(server)
        published = finish(place, place.start(config), demo_records)
    assert playing > kills // 2, "most of the kills came after the recording's end"
    judge(
        "machine",
        f"kill -9 and SIGTERM in turn, at {kills} random moments",
        "no alert lost, none twice",
        published,
        undisturbed,
        measured=f"{kills} times, {playing} of them while data came; at most {longest_s:.1f} s until the process was gone",
        sabotage="outbox.py: _load finds no resume points",
    )


@pytest.mark.parametrize(
    ("name", "count"),
    [
        pytest.param("scored", 5, marks=pytest.mark.drill),
        ("committing", 1),
        pytest.param("committed", 2, marks=pytest.mark.drill),
        ("published", 3),
        pytest.param("marked_sent", 2, marks=pytest.mark.drill),
    ],
)
def test_kill_at_each_failpoint(
    place: Place, demo_records: list[Record], undisturbed: list[Alert], name: str, count: int
) -> None:
    """After a score, before and after the outbox commit, after Redis' reply before marking sent, after marking."""
    witness = place.folder / "witness"
    with ReplayServer(demo_records, speed=0.0) as server:
        config = place.configure(server.address)
        with place.start(config, FAILPOINT_DAEMON, (name, str(count), str(witness))) as life:
            assert life.process.wait(60.0) == -9, life.text()[-2000:]
        assert witness.read_text() == "hit"
        published = finish(place, place.start(config), demo_records)
    check(published, undisturbed)


class CutReply:
    """A Redis proxy that passes everything on, but for the reply to the N-th script: that one never comes back."""

    def __init__(self, url: str, count: int) -> None:
        target = urlsplit(url)
        self._target, self._left = (target.hostname or "", target.port or 0), count
        self.cut = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self._sockets: list[socket.socket] = [self._listener]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                thread = threading.Thread(target=self._relay, args=(client, server), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        """Request by request: redis-py sends one command and waits for its reply."""
        with suppress(OSError):
            while request := client.recv(1 << 20):
                server.sendall(request)
                reply = server.recv(1 << 20)
                # The script is known to Redis after its first failed EVALSHA: only one that ran has an outcome to lose.
                if b"EVALSHA" in request and reply.startswith((b"$", b"+")):
                    self._left -= 1
                    if self._left == 0:
                        self.cut.set()
                        return
                client.sendall(reply)

    def close(self) -> None:
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(5.0)


@pytest.fixture
def proxy(valkey_url: str) -> Iterator[CutReply]:
    made = CutReply(valkey_url, 3)
    yield made
    made.close()


def test_kill_between_the_script_and_its_reply(
    place: Place, demo_records: list[Record], undisturbed: list[Alert], proxy: CutReply
) -> None:
    with ReplayServer(demo_records, speed=0.0) as server:
        with place.start(place.configure(server.address, redis_url=proxy.url)) as life:
            assert proxy.cut.wait(60.0), life.text()[-2000:]
            life.kill()
        assert len(place.published()) == 3, "the script had not run"
        published = finish(place, place.start(place.configure(server.address)), demo_records)
    check(published, undisturbed)
