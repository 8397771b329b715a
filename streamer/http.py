"""Whether the daemon is well, over HTTP: ``/metrics``, ``/healthz`` and ``/readyz`` on one port, plain or under TLS.

Whoever asks gets one request of `MAX_REQUEST` bytes and `CONNECTION_S` seconds, handshake and answer included; of
more than `MAX_CONNECTIONS` at a time the oldest is cut, so that clients who hold on cannot keep a probe out. With a
token, metrics and the reasons of ``/readyz`` are for those who bring it; yes or no is for everybody, as probes carry
no secrets. Nothing that a client sends is logged.
"""

from __future__ import annotations

import hmac
import io
import json
import logging
import socket
import socketserver
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from streamer.config import ConfigError, ServerConfig

MAX_REQUEST = 8_192
"""Bytes of a request line and its headers: Prometheus and probes send some hundred."""
MAX_CONNECTIONS = 32
"""A few scrapers and probes; each connection is a thread."""
CONNECTION_S = 10.0
"""Prometheus gives a scrape up by default after ten seconds, too."""
ACCEPT_PAUSE_S = 0.1
"""After a connection could not be taken, as without file handles: the loop would spin."""

log = logging.getLogger(__name__)


class Health(Protocol):
    """What a program tells of itself."""

    @property
    def registry(self) -> CollectorRegistry: ...

    def alive(self) -> bool: ...

    def faults(self, ready: bool) -> dict[str, str]:
        """Why it is not ready: empty when it is."""


def serve(config: ServerConfig, health: Health, ready: Callable[[], bool]) -> HealthServer:
    """As the configuration's table ``metrics`` says. Raises `ConfigError`."""
    token = config.token.get_secret_value() if config.token else None
    try:
        certificate = Certificate(config.certificate, config.key) if config.certificate and config.key else None
    except OSError as error:
        raise ConfigError(f"metrics.certificate: {config.certificate}, {config.key}: {error}") from error
    try:
        server = HealthServer(config.host, config.port, health, ready, token=token, certificate=certificate)
    except OSError as error:
        raise ConfigError(f"metrics.port: {config.host}:{config.port}: {error.strerror}") from error
    log.info("metrics at %s/metrics, health at /healthz and /readyz", server.address)
    return server


class HealthServer:
    """Serves until `stop`, from threads of its own. Raises OSError where it cannot listen or read the certificate."""

    def __init__(
        self,
        host: str,
        port: int,
        metrics: Health,
        ready: Callable[[], bool],
        *,
        token: str | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        self._server = _Server((host, port), handler(Face(metrics, ready, token)), certificate)
        scheme = "http" if certificate is None else "https"
        shown = f"[{host}]" if ":" in host else host
        self.address = f"{scheme}://{shown}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Certificate:
    """A certificate and its key on disk. Renewed ones are taken up by themselves: they live shorter than the daemon."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self._read = self._state()
        self._context = self._load()

    def context(self) -> ssl.SSLContext:
        """Of the newest files that can be used."""
        with suppress(OSError):
            state = self._state()
            if state != self._read:
                self._read = state
                self._renew()
        return self._context

    def _renew(self) -> None:
        try:
            self._context = self._load()
        except OSError as error:  # half written, or not yet the right key: they change once more
            log.warning("%s: %s; the certificate read before stays in use", self._files[0], error)

    def _state(self) -> list[tuple[int, int, int]]:
        found = [file.stat() for file in self._files]
        return [(stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in found]

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate, key = self._files
        context.load_cert_chain(certificate, key, password="")  # without one it would be asked for on the terminal
        return context


class _Server(socketserver.ThreadingTCPServer):
    """Takes connections in; each has a thread, and the number of threads is bounded."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(
        self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], certificate: Certificate | None
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._certificate = certificate
        self._room = threading.Semaphore(MAX_CONNECTIONS)
        self._lock = threading.Lock()
        self._open: OrderedDict[int, Any] = OrderedDict()
        """Connections, oldest first."""
        super().__init__(address, handler)

    def get_request(self) -> tuple[Any, Any]:
        try:
            return super().get_request()
        except OSError:
            time.sleep(ACCEPT_PAUSE_S)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """In the accepting thread: nothing here waits for the client."""
        request.settimeout(CONNECTION_S)
        if self._certificate is not None:  # the handshake is the connection's own thread's
            context = self._certificate.context()
            request = context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        if not self._room.acquire(blocking=False):
            self._cut_oldest()
            if not self._room.acquire(timeout=CONNECTION_S):
                super().shutdown_request(request)
                return
        with self._lock:
            self._open[id(request)] = request
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread to be had
            self.shutdown_request(request)
            raise

    def _cut_oldest(self) -> None:
        with self._lock:
            for oldest in self._open.values():
                with suppress(OSError):
                    socket.socket.shutdown(oldest, socket.SHUT_RDWR)  # under TLS too: no goodbye
                return

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            known = self._open.pop(id(request), None)
        super().shutdown_request(request)
        if known is not None:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Strangers who go away, or speak no TLS, are nothing to read at night; a fault of ours is."""
        log.debug("connection of %s", client_address, exc_info=True)


class _Bounded(io.RawIOBase):
    """A connection of which so many bytes are read, and which ends at a time, however slowly the client goes about."""

    def __init__(self, connection: Any, end_s: float) -> None:
        self._connection, self._end_s, self._left = connection, end_s, MAX_REQUEST

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._left <= 0:
            raise ConnectionAbortedError("the request is too long")
        self._wait_at_most()
        count: int = self._connection.recv_into(memoryview(buffer)[: self._left])
        self._left -= count
        return count

    def write(self, data: Any) -> int:
        """All of it."""
        rest = memoryview(data)
        while rest:
            self._wait_at_most()
            rest = rest[self._connection.send(rest) :]
        return len(data)

    def _wait_at_most(self) -> None:
        left_s = self._end_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._connection.settimeout(left_s)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    kind: str = "text/plain"

    @staticmethod
    def of(well: bool, content: dict[str, object]) -> Answer:
        return Answer(200 if well else 503, json.dumps(content).encode(), "application/json")


@dataclass(frozen=True, slots=True)
class Face:
    """What is said to whom. Knows no sockets."""

    metrics: Health
    ready: Callable[[], bool]
    token: str | None = None

    def answer(self, target: str, authorisation: str) -> Answer:
        path, trusted = target.partition("?")[0], self._trusts(authorisation)
        if path == "/healthz":
            alive = self.metrics.alive()
            return Answer.of(alive, {"alive": alive})
        if path == "/readyz":
            faults = self.metrics.faults(self.ready())
            return Answer.of(not faults, {"ready": not faults} | ({"faults": faults} if trusted else {}))
        if not trusted:
            return Answer(401, b"a bearer token is needed\n")
        if path == "/metrics":
            return Answer(200, generate_latest(self.metrics.registry), CONTENT_TYPE_LATEST)
        return Answer(404, b"there are /metrics, /healthz and /readyz\n")

    def _trusts(self, authorisation: str) -> bool:
        if self.token is None:
            return True
        scheme, _, given = authorisation.partition(" ")
        same = hmac.compare_digest(given.strip().encode(errors="replace"), self.token.encode())
        return same and scheme.lower() == "bearer"


class Handler(BaseHTTPRequestHandler):
    """One connection, one request. Subclasses have a face."""

    server_version, sys_version = "quake", ""
    face: Face

    def setup(self) -> None:
        self.connection = self.request
        bounded = _Bounded(self.connection, time.monotonic() + CONNECTION_S)
        self.rfile, self.wfile = io.BufferedReader(bounded, MAX_REQUEST), bounded  # type: ignore[assignment]

    def handle(self) -> None:
        with suppress(OSError):  # gone, too slow, or no TLS: OSError all three
            if isinstance(self.connection, ssl.SSLSocket):
                self.connection.do_handshake()
            super().handle()

    def do_GET(self) -> None:
        answer = self.face.answer(self.path, self.headers.get("Authorization", ""))
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        if answer.status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        """A scrape every few seconds is nothing to read at night."""


def handler(face: Face) -> type[Handler]:
    return type("FacedHandler", (Handler,), {"face": face})
