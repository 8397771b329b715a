"""A large earthquake at 300 stations at once, through the real daemon: events stay few, single stations are held to a rate."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest
from daemon_harness import Place, wait_for
from drill_report import judge
from made_network import network
from soak import MADE_DAEMON, START_NS

from quake.alerts import Alert, Kind, Status
from streamer.server import Record, ReplayServer
from streamer.storm import MINUTE_NS

STATIONS, SECONDS, EVENT_S = 300, 240, 100
"""The last station hears it 30 s after the first."""
MOST = 60
STALLED_S = 60.0


def played(place: Place, records: list[Record], most_a_minute: int) -> tuple[list[Alert], int, float]:
    """What was published, how many openings were held, and how long the daemon took behind the last record that was sent."""
    with ReplayServer(records, speed=0.0) as server:
        config = place.configure(server.address)
        text = config.read_text().replace("window_s = 5.0", "window_s = 40.0")
        config.write_text(f"{text}hop_s = 2.0\n[trigger]\nmost_a_minute = {most_a_minute}\n")
        with place.start(config, MADE_DAEMON) as life:
            wait_for("all records are sent", lambda: server.wait_sent(0.5) or life.process.poll() is not None, 300.0)
            sent_s = time.monotonic()
            ends_ns: dict[str, int] = {}
            for record in records:
                ends_ns[f"{record.network}_{record.station}__H_H"] = record.end_ns
            life.wait_newest(ends_ns, 300.0)
            behind_s = time.monotonic() - sent_s
            wait_for("all is published", lambda: not sum(life.metric("quake_outbox_depth").values()), 60.0)
            held = int(sum(life.metric("quake_detections_held_total").values()))
            assert life.stop() == 0, life.text()[-2000:]
    return place.published(), held, behind_s


@pytest.mark.drill
@pytest.mark.timeout(900)
def test_three_hundred_stations_hear_one_earthquake(place: Place, tmp_path: Path) -> None:
    records = network(STATIONS, START_NS, SECONDS, (EVENT_S,))
    other = Place(tmp_path / "other", place.redis_url)
    other.folder.mkdir()
    wanted, none_held, _ = played(other, records, 0)
    alerts, held, behind_s = played(place, records, MOST)
    opened = [a for a in alerts if a.kind is Kind.DETECTION and a.status is Status.OPEN]
    events, wanted_events = ([a for a in found if a.kind is Kind.EVENT] for found in (alerts, wanted))
    stations = {s.source_id for a in events for s in a.stations}
    busiest = max(Counter(a.on_time // MINUTE_NS for a in opened).values())
    judge(
        "storm",
        f"one earthquake at {STATIONS} stations within 30 s (made detector)",
        f"{MOST} openings of single stations a minute at most are told, the others counted; events are those that are told without "
        "a limit; nothing stalls",
        events,
        wanted_events,
        measured=f"{len(opened)} openings told, {held} held; {len({a.id for a in events})} event with {len(stations)} stations; "
        f"{behind_s:.1f} s behind the last record, unpaced",
        sabotage="storm.py: allows returns True",
    )
    assert none_held == 0
    assert len({a.id for a in wanted if a.kind is Kind.DETECTION}) == STATIONS
    assert len(opened) + held == STATIONS
    assert busiest <= MOST
    assert len({a.id for a in events}) == 1
    assert len(stations) == STATIONS
    assert behind_s < STALLED_S
