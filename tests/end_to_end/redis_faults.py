"""What stands between the daemon and Redis in the drills: a proxy that halts, delays, encrypts or leads elsewhere; keys made for
the day; and the order in which alerts lie in outbox and streams."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
import redis
from daemon_harness import Place, revisions, wait_for

from quake.alerts import Alert, AlertSubscriber, Kind

Revision = tuple[str, int]
SIZE = 1 << 20


class Proxy:
    """Passes on request by request; ``hold_after`` N more alerts stops those that follow, until ``go_on``.

    A halt at a counted alert puts the fault into the midst of the earthquake, however fast this machine is.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.target, self.tls, self.delay_s = port, tls, 0.0
        self.held = threading.Event()
        self._go, self._closed = threading.Event(), threading.Event()
        self._go.set()
        self._left = -1
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def hold_after(self, alerts: int) -> None:
        self.held.clear()
        self._left = alerts

    def go_on(self) -> None:
        self._go.set()

    def hold_no_more(self) -> None:
        """Also where the alerts counted for the next halt have not come yet."""
        self._left = -1
        self._go.set()

    def cut(self) -> None:
        """End the connections that stand; new ones are taken."""
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._go.set()
        for sock in (self._listener, *self._sockets):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(10.0)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError):
            self._sockets.append(client)
            if self.tls is not None:
                client.settimeout(10.0)
                client = self.tls.wrap_socket(client, server_side=True)
                client.settimeout(None)
                self._sockets.append(client)
            with socket.create_connection(("127.0.0.1", self.target)) as server:
                self._sockets.append(server)
                back = threading.Thread(target=self._replies, args=(server, client), daemon=True)
                back.start()
                self._requests(client, server)
                server.shutdown(socket.SHUT_RDWR)
                back.join()
        client.close()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while request := client.recv(SIZE):
                if b"EVALSHA" in request:
                    self._count()
                server.sendall(request)

    def _count(self) -> None:
        if self._left == 0:
            self._go.clear()
            self.held.set()
        self._left -= 1
        self._go.wait()

    def _replies(self, server: socket.socket, client: socket.socket) -> None:
        """redis-py sends one command, or one pipeline, and waits: what is here is one reply."""
        with suppress(OSError):
            while reply := server.recv(SIZE):
                self._closed.wait(self.delay_s)
                client.sendall(reply)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


class Listener:
    """A subscriber in a thread, from before the fault until after it; keeps all that it was handed out."""

    def __init__(self, url: str, place: Place, heartbeat_s: float | None = None, last_id: str = "$") -> None:
        kinds = (Kind.EVENT, Kind.DETECTION)
        self.heard: list[Alert] = []
        self.fault: Exception | None = None
        self._subscriber = AlertSubscriber(url, keys=place.keys, kinds=kinds, last_id=last_id, heartbeat_s=heartbeat_s)
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def _listen(self) -> None:
        try:
            for alert in self._subscriber:
                self.heard.append(alert)
        except Exception as error:
            self.fault = error

    def __enter__(self) -> Self:
        self._thread.start()
        wait_for("the subscriber has begun", lambda: "$" not in self._subscriber.last_ids.values(), 20.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._subscriber.stop()
        self._thread.join(20.0)
        self._subscriber.close()

    def expect(self, wanted: list[Alert]) -> None:
        """Each of them once, in whatever order the two streams were read."""
        wait_for("the subscriber has all of them", lambda: self.fault or len(self.heard) >= len(wanted), 30.0)
        assert self.fault is None, self.fault
        assert revisions(self.heard) == revisions(wanted)


class Beats:
    """When daemons beat, as the channel tells it."""

    def __init__(self, port: int, place: Place) -> None:
        self._times_s: list[float] = []
        self._client = redis.Redis(port=port)
        self._channel = self._client.pubsub(ignore_subscribe_messages=True)
        self._channel.subscribe(**{place.keys.heartbeat: lambda _: self._times_s.append(time.monotonic())})

    def __enter__(self) -> Self:
        self._thread = self._channel.run_in_thread(
            0.1, daemon=True, exception_handler=lambda error, channel, thread: thread.stop()
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.stop()
        self._thread.join(10.0)
        self._channel.close()
        self._client.close()

    def wait_next(self) -> None:
        before = len(self._times_s)
        wait_for("a daemon beats", lambda: len(self._times_s) > before, 30.0)

    def longest_s(self) -> float:
        """Between two of them, until now."""
        return max(b - a for a, b in pairwise([*self._times_s, time.monotonic()]))


def on_stream(url: str, place: Place) -> dict[Kind, list[Revision]]:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return {
            kind: [(f["id"], int(f["revision"])) for _, f in client.xrange(place.keys.stream(kind))]  # type: ignore[union-attr]
            for kind in Kind
        }


def in_outbox(place: Place) -> dict[Kind, list[Revision]]:
    found: dict[Kind, list[Revision]] = {kind: [] for kind in Kind}
    with sqlite3.connect(place.folder / "state" / "outbox.sqlite") as db:
        for (body,) in db.execute("SELECT body FROM alert ORDER BY sequence"):
            alert = Alert.model_validate_json(body)
            found[alert.kind].append((alert.id, alert.revision))
    db.close()
    return found


def seconds_until(what: str, look: Callable[[], object], timeout_s: float = 60.0) -> float:
    start_s = time.monotonic()
    wait_for(what, look, timeout_s)
    return time.monotonic() - start_s


def made_keys(folder: Path) -> Path:
    """An authority ``ca.pem`` of our own, with ``server.pem`` for 127.0.0.1 and ``client.pem``; a ``.key`` beside each."""
    openssl = shutil.which("openssl")
    if openssl is None:
        assert not os.environ.get("CI"), "openssl is missing"
        pytest.skip("no openssl to make a certificate with:  apt-get install openssl")
    folder.mkdir()
    made = (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -addext subjectAltName=IP:127.0.0.1"
    )
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key"]
    for name in ("ca", "server", "client"):
        files = ["-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        by = [] if name == "ca" else [*signed, "-addext", "basicConstraints=critical,CA:FALSE"]
        command = [openssl, *made.split(), *files, *by]
        subprocess.run(command, check=True, capture_output=True, cwd=folder)
    return folder


def server_side(keys: Path) -> ssl.SSLContext:
    """Asks the client for a certificate of the same authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys / "server.pem", keys / "server.key")
    context.load_verify_locations(keys / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context
