"""The life of ``quake-streamer dashboard``, and ``quake-streamer marks``."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import redis

from quake.alerts import Keys, Mode
from streamer.config import ConfigError
from streamer.process import end_with_input, signals
from streamer.secret import SecretError, with_files

LEAST_TOKEN = 16
LOOPBACK = ("127.0.0.1", "localhost", "::1")
BACKLOG = 128
STOP_S = 1
"""Longest time that a stop waits for browsers."""

log = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    redis_options(parser)
    parser.add_argument(
        "--host", default="127.0.0.1", help="another than this machine's own needs QUAKE_DASHBOARD_TOKEN"
    )
    parser.add_argument("--port", type=int, default=9109, help="0: any free port, written to the log")
    parser.add_argument("--certificate", type=Path, help="PEM, for https; read again when it is renewed")
    parser.add_argument("--key", type=Path, help="of the certificate, PEM, without a password")
    parser.add_argument(
        "--beside",
        action="store_true",
        help="how a daemon starts it: it ends when its standard input does",
    )


def redis_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--redis", help="URL; if not given that of QUAKE_REDIS_URL, or of the file QUAKE_REDIS_URL_FILE names"
    )
    parser.add_argument("--mode", default="live", choices=[str(mode) for mode in Mode])
    parser.add_argument("--prefix", default="{quake}", help="of the keys on Redis")


def run(arguments: argparse.Namespace) -> int:
    if arguments.beside:
        end_with_input()
    try:
        import uvicorn

        from streamer.dashboard.app import application
        from streamer.dashboard.guard import Token
        from streamer.dashboard.hub import Hub
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed: pip install 'quake[dashboard]'") from error
    token, context = read_token(arguments.host), _context(arguments.certificate, arguments.key)
    hub = _made(Hub, arguments)
    sock = _listen(arguments.host, arguments.port)

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            # Streams end, or the server would wait for them; not from here, where a lock may be held by what was interrupted.
            threading.Thread(target=hub.stop, daemon=True).start()
            super().handle_exit(sig, frame)

    app = application(hub, Token(token), arguments.host, is_tls=context is not None, clock_ns=time.time_ns)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        timeout_graceful_shutdown=STOP_S,
        ssl_context_factory=(lambda *_: context) if context else None,
    )
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(lambda record: "without completing" not in record.getMessage())
    log.info("page at %s", address(sock, is_tls=context is not None))
    hub.start()
    try:
        with signals():  # uvicorn raises what it heard once more
            Server(config).run(sockets=[sock])
    finally:
        hub.close()
    return 0


def write_marks(arguments: argparse.Namespace) -> int:
    """``quake-streamer marks``."""
    from quake.connecting import connect
    from streamer.dashboard.marks import lines, read_all

    try:
        with _made(lambda url, _: connect(url, 5.0), arguments) as client:
            said, _ = read_all(client, Keys.of(Mode(arguments.mode), arguments.prefix))
        text = "".join(f"{line}\n" for line in lines(said))
        if arguments.out is None:
            sys.stdout.write(text)
        else:
            arguments.out.write_text(text, encoding="utf-8")
    except (redis.RedisError, OSError) as error:
        sys.stderr.write(f"quake-streamer: {error}\n")
        return 1
    return 0


def _made(make: Callable[[str, Keys], Any], arguments: argparse.Namespace) -> Any:
    from streamer.config import redis_url

    try:
        url = arguments.redis or redis_url() or "redis://127.0.0.1:6379/0"
        return make(url, Keys.of(Mode(arguments.mode), arguments.prefix))
    except ValueError as error:
        raise ConfigError(f"--redis: {error}") from error


def read_token(host: str) -> str | None:
    """Raises `ConfigError` where others could reach the page there without one."""
    try:
        token = with_files(os.environ).get("quake_dashboard_token")
    except SecretError as error:
        raise ConfigError(str(error)) from error
    if token is not None and len(token) < LEAST_TOKEN:
        raise ConfigError(f"QUAKE_DASHBOARD_TOKEN: at least {LEAST_TOKEN} characters")
    if token is None and host not in LOOPBACK:
        raise ConfigError(f"--host {host}: others reach the page there; set QUAKE_DASHBOARD_TOKEN, or ..._TOKEN_FILE")
    return token


def _context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Whose every handshake is with the newest files that can be used."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ConfigError("--certificate and --key go together")
    from streamer.http import Certificate

    try:
        newest = Certificate(certificate, key)
    except OSError as error:
        raise ConfigError(f"--certificate: {certificate}, {key}: {error}") from error

    def take_newest(connection: ssl.SSLObject, _name: str, _before: ssl.SSLContext) -> None:
        connection.context = newest.context()

    context = newest.context()
    context.sni_callback = take_newest
    return context


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        sock.close()
        raise ConfigError(f"--port: {host}:{port}: {getattr(error, 'strerror', None) or error}") from error
    return sock


def address(sock: socket.socket, *, is_tls: bool) -> str:
    host, port = sock.getsockname()[:2]
    return f"{'https' if is_tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}/"
