"""The health server against strangers: real sockets, real TLS."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from streamer import http
from streamer.http import MAX_CONNECTIONS, MAX_REQUEST, Certificate, HealthServer
from streamer.metrics import Metrics

TOKEN = "a-token-of-enough-length"
GET = b"GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n"


@contextmanager
def served(**options: object) -> Iterator[HealthServer]:
    server = HealthServer("127.0.0.1", 0, Metrics(max_stations=1), lambda: True, **options)  # type: ignore[arg-type]
    try:
        yield server
    finally:
        server.stop()


def port(server: HealthServer) -> int:
    return int(server.address.rpartition(":")[2])


def dial(server: HealthServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port(server)), timeout=30)


def all_of(sock: socket.socket) -> bytes:
    """Until the other side closes, or resets."""
    parts = []
    try:
        while part := sock.recv(65_536):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


def ask(server: HealthServer, path: str = "/metrics", header: str = "") -> tuple[int, bytes]:
    with dial(server) as sock:
        sock.sendall(GET % (path.encode(), header.encode()))
        head, _, body = all_of(sock).partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def until(look: Callable[[], object]) -> None:
    end_s = time.monotonic() + 20
    while not look():
        assert time.monotonic() < end_s, "it did not happen in time"
        time.sleep(0.01)


def threads() -> int:
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


class TestToken:
    @pytest.mark.parametrize("header", ["", "Authorization: Bearer no\r\n", f"Authorization: Basic {TOKEN}\r\n"])
    def test_metrics_and_reasons_are_for_those_who_bring_it(self, header: str) -> None:
        with served(token=TOKEN) as server:
            assert ask(server, header=header)[0] == 401
            assert ask(server, "/nothing", header)[0] == 401
            assert ask(server, "/readyz", header) == (503, b'{"ready": false}')
            assert ask(server, "/healthz", header) == (200, b'{"alive": true}')

    def test_with_it_all_is_told(self) -> None:
        header = f"authorization: bearer {TOKEN}\r\n"
        with served(token=TOKEN) as server:
            assert b"quake_windows_total" in ask(server, header=header)[1]
            assert b"faults" in ask(server, "/readyz", header)[1]
            assert ask(server, "/nothing", header)[0] == 404

    def test_without_one_set_all_is_told_to_everybody(self) -> None:
        with served() as server:
            assert ask(server)[0] == 200
            assert ask(server, "/metrics?name[]=up")[0] == 200

    def test_it_is_compared_in_constant_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[bytes] = []
        monkeypatch.setattr(http.hmac, "compare_digest", lambda a, b: asked.extend((a, b)))
        with served(token=TOKEN) as server:
            ask(server, header="Authorization: Bearer guess\r\n")
        assert asked == [b"guess", TOKEN.encode()]


class TestLimits:
    @pytest.mark.parametrize(
        "request_",
        [
            b"GET /" + b"a" * 2 * MAX_REQUEST,
            b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * MAX_REQUEST,
            b"GET /metrics HTTP/1.1\r\na: " + b"b" * 2 * MAX_REQUEST,
        ],
    )
    def test_a_request_without_end_ends_at_the_limit(self, request_: bytes) -> None:
        with served() as server, dial(server) as sock:
            begin_s = time.monotonic()
            with suppress(ConnectionError):
                sock.sendall(request_)
            assert b" 200 " not in all_of(sock)[:100]
            assert time.monotonic() - begin_s < http.CONNECTION_S / 2
            assert ask(server)[0] == 200

    def test_a_client_that_dribbles_is_cut(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each byte within the time of a read: only the whole connection's time ends it."""
        monkeypatch.setattr(http, "CONNECTION_S", 0.5)
        with served() as server, dial(server) as sock:
            begin_s = time.monotonic()
            with pytest.raises(ConnectionError):  # noqa: PT012  which byte is the last depends on the system's buffers
                while time.monotonic() - begin_s < 20:
                    sock.sendall(b"G")
                    time.sleep(0.05)
            assert time.monotonic() - begin_s < 10

    def test_a_client_that_does_not_read_is_cut(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(http, "CONNECTION_S", 0.5)
        monkeypatch.setattr(http, "generate_latest", lambda registry: bytes(50_000_000))
        with served() as server, dial(server) as sock:
            sock.sendall(GET % (b"/metrics", b""))
            until(lambda: threads() == 1)
            until(lambda: threads() == 0)

    def test_many_silent_ones_keep_no_probe_out(self) -> None:
        with served() as server, ExitStack() as stack:
            begin_s = time.monotonic()
            silent = [stack.enter_context(dial(server)) for _ in range(2 * MAX_CONNECTIONS)]
            assert ask(server, "/healthz")[0] == 200
            assert time.monotonic() - begin_s < http.CONNECTION_S  # well before their time is up
            assert threads() <= MAX_CONNECTIONS
            assert silent[0].recv(1) == b""

    def test_no_client_leaves_a_thread_or_a_file_handle(self) -> None:
        with served() as server:
            ask(server)
            until(lambda: threads() == 0)
            before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
            for sent in (b"", b"\0", b"GET / HTTP/9\r\n\r\n", b"PUT / HTTP/1.1\r\n\r\n", b"\xff" * 99) * 10:
                with dial(server) as sock:
                    sock.sendall(sent)
            until(lambda: threads() == 0)
            until(lambda: len(os.listdir("/proc/self/fd")) <= before)  # noqa: PTH208
            assert ask(server)[0] == 200

    def test_a_connection_that_cannot_be_taken_costs_no_processor(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Out of file handles, the waiting connection stays, and the loop comes round at once."""
        tries: list[float] = []

        def fail(_: object) -> None:
            tries.append(time.monotonic())
            raise OSError(24, "Too many open files")

        with served() as server:
            with monkeypatch.context() as patch:
                patch.setattr(http.socketserver.TCPServer, "get_request", fail)
                with dial(server):
                    until(lambda: len(tries) >= 4)
            assert tries[3] - tries[0] > 2 * http.ACCEPT_PAUSE_S
            assert ask(server)[0] == 200


def make(folder: Path, name: str, *options: str) -> tuple[Path, Path]:
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "2", "-subj", f"/CN={name}"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-out", str(certificate), "-keyout", str(key)),
            *(options or ("-nodes",)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


def name_of(server: HealthServer) -> str:
    """Of the certificate that it shows."""
    shown = ssl.get_server_certificate(("127.0.0.1", port(server)), timeout=30)
    done = subprocess.run(
        ["openssl", "x509", "-noout", "-subject"], input=shown.encode(), capture_output=True, check=True
    )
    return done.stdout.decode().strip().rpartition("CN")[2].lstrip(" =")


class TestTls:
    def test_answers_under_the_certificate_and_not_without(self, tmp_path: Path) -> None:
        files = make(tmp_path, "one")
        with served(certificate=Certificate(*files), token=TOKEN) as server:
            assert server.address.startswith("https://127.0.0.1:")
            trusting = ssl.create_default_context(cafile=str(files[0]))
            with dial(server) as plain, trusting.wrap_socket(plain, server_hostname="127.0.0.1") as sock:
                sock.sendall(GET % (b"/metrics", f"Authorization: Bearer {TOKEN}\r\n".encode()))
                assert all_of(sock).startswith(b"HTTP/1.0 200 ")
            with dial(server) as sock:
                sock.sendall(GET % (b"/metrics", b""))
                assert b"quake" not in all_of(sock)

    def test_a_silent_client_holds_nobody_up(self, tmp_path: Path) -> None:
        with served(certificate=Certificate(*make(tmp_path, "one"))) as server, dial(server), dial(server):
            begin_s = time.monotonic()
            assert name_of(server) == "one"
            assert time.monotonic() - begin_s < http.CONNECTION_S / 2

    def test_a_handshake_that_does_not_end_is_cut(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(http, "CONNECTION_S", 0.3)
        with served(certificate=Certificate(*make(tmp_path, "one"))) as server, dial(server) as sock:
            assert sock.recv(1) == b""

    def test_a_renewed_certificate_is_taken_up_and_a_broken_one_is_not(self, tmp_path: Path) -> None:
        files = make(tmp_path, "one")
        with served(certificate=Certificate(*files)) as server:
            assert name_of(server) == "one"
            files[0].write_text("half writ")
            assert name_of(server) == "one"
            for old, new in zip(files, make(tmp_path, "two"), strict=True):
                new.replace(old)
            assert name_of(server) == "two"

    def test_a_key_that_is_not_the_certificates_or_is_locked_is_refused(self, tmp_path: Path) -> None:
        one, two = make(tmp_path, "one"), make(tmp_path, "two")
        with pytest.raises(OSError, match="KEY_VALUES_MISMATCH"):
            Certificate(one[0], two[1])
        locked = make(tmp_path, "locked", "-passout", "pass:secret")
        with pytest.raises(ssl.SSLError):
            Certificate(*locked)
        with pytest.raises(FileNotFoundError):
            Certificate(tmp_path / "none", one[1])
