"""The page's real server in a thread of the test, and what a daemon would have written for it."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import anyio._backends._asyncio  # noqa: F401  pytest rewrites it (a plugin's), which Python 3.11 survives in the main thread alone
import redis
import uvicorn

from quake.alerts import Alert, Keys
from streamer.dashboard import program
from streamer.dashboard.app import application
from streamer.dashboard.guard import Token
from streamer.dashboard.hub import Hub


def until(look: Callable[[], Any], timeout_s: float = 10.0) -> Any:
    end_s = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < end_s, "not in time"
        time.sleep(0.01)
    return found


@dataclass
class Page:
    address: str
    hub: Hub

    def ask(
        self, path: str, content: Any = None, method: str | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Status, body (JSON where it is), headers."""
        data = None if content is None else json.dumps(content).encode()
        told = {"Content-Type": "application/json", **(headers or {})} if data is not None else dict(headers or {})
        request = urllib.request.Request(self.address + path, data, told, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, _read(answer), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _read(error), error.headers


def _read(answer: Any) -> Any:
    text = answer.read().decode()
    return json.loads(text) if answer.headers.get_content_type() == "application/json" else text


@contextmanager
def page(url: str, keys: Keys, token: str | None = None) -> Iterator[Page]:
    hub, sock = Hub(url, keys), program._listen("127.0.0.1", 0)
    app = application(hub, Token(token), "127.0.0.1", is_tls=False, clock_ns=time.time_ns)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=3))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    hub.start()
    thread.start()
    try:
        yield Page(program.address(sock, is_tls=False), hub)
    finally:
        hub.stop()
        server.should_exit = True
        thread.join()
        sock.close()
        hub.close()


def publish(client: redis.Redis, keys: Keys, *alerts: Alert) -> None:
    """As the daemon's script does."""
    for alert in alerts:
        client.xadd(
            keys.stream(alert.kind), {"id": alert.id, "revision": alert.revision, "alert": alert.model_dump_json()}
        )


def station(**changes: Any) -> dict[str, Any]:
    """One that flows, live, as the daemon writes it."""
    now_s = time.time()
    well = {"newest_s": now_s - 1, "decided_s": now_s - 2, "quiet_s": 0.5, "fill": 1.0, "connected": True}
    model = {"probability": 0.1, "scored_s": now_s - 2, "unused": {}, "latitude": 48.0, "longitude": 11.0}
    return {**well, **model, **changes}


def beat(client: redis.Redis, keys: Keys, stations: Mapping[str, Any], daemon: str = "here", **changes: Any) -> None:
    state = {
        "daemon": daemon,
        "mode": "live",
        "written_s": time.time(),
        "model": {"name": "quake", "version": "1.0.0", "sha256": "0" * 64, "device": "cpu"},
        "on": 0.8,
        "off": 0.5,
        "in_a_row": 5,
        "hop_s": 1.0,
        "window_s": 20.8,
        "health": {"behind_s": 0.4, "outbox_depth": 0, "packets_waiting": 0, "windows_waiting": 0},
        "servers": 1,
        "stations": stations,
    }
    client.set(keys.live_state(daemon), json.dumps(state | changes), ex=300)
    client.hset(keys.heartbeat, daemon, str(time.time_ns()))
