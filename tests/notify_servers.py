"""Real servers for the notifier's tests: HTTP, SMTP (aiosmtpd) and MQTT (mosquitto), with and without TLS."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import paho.mqtt.client
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult
from paho.mqtt.enums import CallbackAPIVersion


def until(look: Callable[[], object], timeout_s: float = 20.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not look():
        assert time.monotonic() < end_s, "it did not happen in time"
        time.sleep(0.01)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def certificate(folder: Path) -> tuple[Path, Path]:
    """Of 127.0.0.1, signed by itself: PEM and key."""
    pem, key = folder / "server.pem", folder / "server.key"
    made = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -addext subjectAltName=IP:127.0.0.1,DNS:localhost"
    subprocess.run(["openssl", *made.split(), "-out", pem, "-keyout", key], check=True, capture_output=True)
    return pem, key


def server_context(files: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    return context


class Hooked(ThreadingHTTPServer):
    """Keeps what is posted. Answers 200, or what ``answers`` holds, in turn."""

    daemon_threads = True

    def __init__(self, files: tuple[Path, Path] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        if files:
            self.socket = server_context(files).wrap_socket(self.socket, server_side=True)
        self.scheme = "https" if files else "http"
        self.posts: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.gate = threading.Event()
        """An answer waits for it."""
        self.gate.set()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}/hook"

    @property
    def keys(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.posts]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is killed is what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: Hooked

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posts.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.server.gate.wait(60)
        status, headers = self.server.answers.pop(0) if self.server.answers else (200, {})
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Not in the tests' output."""


@contextmanager
def hooked(files: tuple[Path, Path] | None = None) -> Iterator[Hooked]:
    with Hooked(files) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.gate.set()
            server.shutdown()
            thread.join()


@dataclass
class Mailbox:
    """What came, and what recipients are answered: in turn, then 250."""

    mails: list[tuple[list[str], EmailMessage]] = field(default_factory=list)
    answers: dict[str, list[str]] = field(default_factory=dict)
    data: list[str] = field(default_factory=list)
    """What messages are answered, in turn, then 250."""
    port: int = 0
    thinks_s: float = 0.0
    """Over a message."""
    parts: bool = True
    """With a word; or it is gone once it has the message."""

    async def handle_QUIT(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        if not self.parts:
            server.transport.abort()
        return "221 Bye"

    async def handle_RCPT(  # noqa: N802
        self, server: Any, session: Any, envelope: Any, address: str, options: Sequence[str]
    ) -> str:
        answer = self.answers[address].pop(0) if self.answers.get(address) else "250 OK"
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        await asyncio.sleep(self.thinks_s)
        answer = self.data.pop(0) if self.data else "250 OK"
        if answer.startswith("250"):
            mail = message_from_bytes(envelope.content, policy=policy.default)
            assert isinstance(mail, EmailMessage)
            self.mails.append((list(envelope.rcpt_tos), mail))
        return answer


class _Controller(Controller):
    options: dict[str, Any] = {}  # noqa: RUF012

    def factory(self) -> SMTP:
        return SMTP(self.handler, **self.options)


@contextmanager
def mailbox(files: tuple[Path, Path] | None = None, password: str = "") -> Iterator[Mailbox]:
    """With a certificate it demands STARTTLS, and then, where one is given, a password."""
    box = Mailbox(port=free_port())
    made = _Controller(box, hostname="127.0.0.1", port=box.port)
    if files:

        def is_right(server: Any, session: Any, envelope: Any, mechanism: str, given: Any) -> AuthResult:
            right = given.login == b"watch" and given.password == password.encode()
            return AuthResult(success=right, handled=False)

        made.options = {
            "tls_context": server_context(files),
            "require_starttls": True,
            "auth_required": bool(password),
            "authenticator": is_right,
        }
    made.start()
    try:
        yield box
    finally:
        made.stop()


@contextmanager
def broker(folder: Path, files: tuple[Path, Path] | None = None, password: str = "") -> Iterator[int]:
    """mosquitto on a port of its own."""
    program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        assert not os.environ.get("CI"), "mosquitto is missing"
        pytest.skip("no MQTT broker here:  apt-get install mosquitto")
    port = free_port()
    lines = [f"listener {port} 127.0.0.1", "user root", f"allow_anonymous {'false' if password else 'true'}"]
    if files:
        lines += [f"certfile {files[0]}", f"keyfile {files[1]}"]
    if password:
        (folder / "users").write_text(f"watch:{password}\n")
        subprocess.run([program.replace("/sbin/", "/bin/") + "_passwd", "-U", folder / "users"], check=True)
        lines.append(f"password_file {folder / 'users'}")
    (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
    with subprocess.Popen([program, "-c", folder / "mosquitto.conf"], stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: _answers(port))
            yield port
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


@contextmanager
def listening(port: int, topic: str) -> Iterator[list[Any]]:
    """What is published there, as it comes."""
    heard: list[Any] = []
    subscribed = threading.Event()
    client = paho.mqtt.client.Client(CallbackAPIVersion.VERSION2)
    client.on_connect = lambda *_: client.subscribe(topic, 1)
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda _client, _data, message: heard.append(message)
    client.connect("127.0.0.1", port)
    client.loop_start()
    assert subscribed.wait(20)
    try:
        yield heard
    finally:
        client.disconnect()
        client.loop_stop()
