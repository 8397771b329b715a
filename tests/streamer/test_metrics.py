from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from made_alerts import alert
from made_packets import noise, packet, score

from quake.alerts import Status
from streamer.http import HealthServer
from streamer.metrics import FLOWING_S, HUNG_S, OVERLOAD_S, Metrics
from streamer.stages import Unscored, Unused


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(max_stations=1)


@pytest.fixture
def server(metrics: Metrics) -> Iterator[HealthServer]:
    made = HealthServer("127.0.0.1", 0, metrics, lambda: True)
    yield made
    made.stop()


def get(server: HealthServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(server.address + path, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_servers_are_counted_while_they_are_connected(metrics: Metrics) -> None:
    metrics.source("lost", "a", "connect")
    metrics.source("connected", "b", "")
    metrics.source("lost", "a", "connect")
    assert value(metrics, "quake_connected_servers") == 1
    assert value(metrics, "quake_reconnects_total", cause="connect") == 2
    metrics.source("restarted", "b", "stations")
    assert value(metrics, "quake_connected_servers") == 0


def test_the_way_to_an_alert_is_measured_where_a_packet_decided_it(metrics: Metrics) -> None:
    metrics.published(alert("a"), "sent")
    metrics.published(alert("a", 1, status=Status.UPDATE), "sent")
    metrics.published(alert("a", 2, status=Status.CLOSED), "sent")
    assert value(metrics, "quake_alert_latency_seconds_count") == 1
    assert value(metrics, "quake_published_total", outcome="sent") == 3


def test_stations_beyond_the_bound_share_one_label(metrics: Metrics) -> None:
    first = packet("Z", 0, noise(100))
    metrics.packet(first)
    metrics.state("FDSN:XX_OTHER__H_H", 1, 1, 0.5)
    assert value(metrics, "quake_packets_total", station="XX_ABC__H_H") == 1
    assert value(metrics, "quake_samples_total", station="XX_ABC__H_H") == 100
    assert value(metrics, "quake_ring_fill_ratio", station="other") == 0.5


def test_unused_windows_are_counted_by_reason(metrics: Metrics) -> None:
    metrics.windows_unused(Unscored("S", 5, 14, Unused.GAP))
    assert value(metrics, "quake_windows_unused_total", reason="gap") == 10
    assert value(metrics, "quake_windows_total") == 10
    assert value(metrics, "quake_windows_unused_total", reason="overload") == 0


def test_ready_once_windows_are_scored_and_redis_answers(metrics: Metrics, server: HealthServer) -> None:
    status, body = get(server, "/readyz")
    assert status == 503
    assert json.loads(body)["faults"].keys() == {"data", "redis"}
    metrics.scored([score(1, 0.1)])
    metrics.redis_reachable(1)
    assert get(server, "/readyz")[0] == 200
    metrics.commit_failed("full")
    assert json.loads(get(server, "/readyz")[1])["faults"].keys() == {"outbox"}
    metrics.committed([])
    metrics.overload(True)
    assert json.loads(get(server, "/readyz")[1])["faults"].keys() == {"load"}
    assert value(metrics, "quake_overloaded") == 1
    metrics.overload(False)
    assert json.loads(get(server, "/readyz")[1])["faults"].keys() == {"load"}, "the next drop is seconds away"
    metrics.dropped_s -= OVERLOAD_S
    assert get(server, "/readyz")[0] == 200
    assert value(metrics, "quake_overloaded") == 0
    metrics.last_score_s = time.monotonic() - FLOWING_S - 1
    assert json.loads(get(server, "/readyz")[1])["faults"].keys() == {"data"}


def test_a_pipeline_that_hangs_is_not_alive(metrics: Metrics, server: HealthServer) -> None:
    assert get(server, "/healthz")[0] == 200
    metrics.tick()
    assert get(server, "/healthz")[0] == 200
    metrics.last_tick_s -= HUNG_S + 1
    assert get(server, "/healthz")[0] == 503


def test_a_component_that_is_dead_shows(metrics: Metrics) -> None:
    metrics.scored([score(1, 0.1), score(2, 0.1, components="Z")])
    assert value(metrics, "quake_windows_incomplete_total", station="XX_ABC__H_H") == 1
