"""Ten times more packets than the daemon can score, for a while: it drops what is oldest, counts it, and comes back.

In mode live, at real speed, with data of now: only there windows are dropped. The detector is made and as slow as it is
told; the queue is short, so that ten minutes show what hours would.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from daemon_harness import Life, Place, wait_for
from drill_report import Row, tell
from made_network import network
from soak import MADE_DAEMON

from quake.alerts import Alert, Keys, Kind, Mode
from streamer.metrics import OVERLOAD_S
from streamer.server import ReplayServer
from streamer.stages import NS

STATIONS = 20
SLOW_S = 0.5
"""A window: two a second, of twenty that come."""
FILL = 0.06
"""Records of two seconds."""
QUIET_S, AFTER_S = 45, 60
"""Before the load, so that the model warms up and a first event is over; and after it."""
MOST_GROWTH_MB = 30.0


@dataclass(slots=True)
class Watched:
    """What was seen once a second while it was too slow."""

    resident_mb: list[float] = field(default_factory=list)
    lag_s: list[float] = field(default_factory=list)
    dropped: list[float] = field(default_factory=list)
    told: int = 0
    """Looks at /readyz that named the load."""


def resident_mb(life: Life) -> float:
    status = Path(f"/proc/{life.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def lag_s(life: Life) -> float:
    """Of the station that is furthest behind this machine's clock."""
    return time.time() - min(life.metric("quake_decided_timestamp_seconds").values(), default=0.0)


def dropped(life: Life) -> float:
    return life.metric("quake_windows_unused_total").get('reason="overload"', 0.0)


def look(life: Life, seen: Watched) -> None:
    seen.resident_mb.append(resident_mb(life))
    seen.lag_s.append(lag_s(life))
    seen.dropped.append(dropped(life))
    seen.told += "load" in json.loads(life.get("/readyz")[1])["faults"]


def events(place: Place) -> list[Alert]:
    import redis

    with redis.Redis.from_url(place.redis_url, decode_responses=True) as client:
        entries = client.xrange(Keys.of(Mode.LIVE, place.prefix).events)
    alerts = [Alert.model_validate_json(fields["alert"]) for _, fields in entries]  # type: ignore[union-attr]
    return [alert for alert in alerts if alert.kind is Kind.EVENT]


@pytest.mark.drill
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("load_s", [600], ids=lambda s: f"{s}s")
def test_ten_times_more_than_it_can_score(place: Place, load_s: int) -> None:
    first_s, last_s = 25, QUIET_S + load_s + 35
    slow = place.folder / "slow"
    start_ns = int(time.time()) * NS
    records = network(STATIONS, start_ns, QUIET_S + load_s + AFTER_S, (first_s, last_s), FILL)
    seen = Watched()
    arguments = ("--slow-s", str(SLOW_S), "--while", str(slow), "--queue", "256")
    with ReplayServer(records, speed=1.0) as server:
        config = place.configure(server.address)
        text = config.read_text().replace('mode = "replay"', 'mode = "live"').replace("hold_s = 30.0", "hold_s = 3.0")
        config.write_text(f"{text}hop_s = 1.0\n[worker]\nbatch_size = 4\nmax_behind_s = 25.0\n")
        with place.start(config, MADE_DAEMON, arguments) as life:
            wait_for("the first event is told", lambda: len(events(place)) > 0, 120.0)
            before_mb, usual_s = resident_mb(life), lag_s(life)
            slow.touch()
            end_s = time.monotonic() + load_s
            while time.monotonic() < end_s:
                look(life, seen)
                time.sleep(1.0)
            slow.unlink()
            begun_s = time.monotonic()
            wait_for("it is back at real time", lambda: lag_s(life) < usual_s + 5.0, 60.0)
            back_s = time.monotonic() - begun_s
            count = dropped(life)
            wait_for(
                "the last event is told",
                lambda: max(a.onset for a in events(place)) > start_ns + (last_s - 5) * NS,
                90.0,
            )
            wait_for("it is ready", lambda: life.get("/readyz")[0] == 200, OVERLOAD_S + 10.0)
            assert dropped(life) == count, "it goes on dropping"
            assert life.stop() == 0
            assert "cannot keep up, dropping the oldest windows" in life.text()
    growth_mb = max(seen.resident_mb) - before_mb
    tell(
        Row(
            "load",
            f"ten times more than it can score for {load_s} s (made detector, 20 stations, a queue of 256 packets)",
            "memory bounded; the oldest windows are dropped and counted; /readyz says load; back to real time by itself",
            flow_s=back_s,
            measured=f"{count:.0f} windows dropped, at most {max(seen.lag_s):.0f} s behind ({usual_s:.0f} s before), "
            f"{growth_mb:+.1f} MB, /readyz told it in {seen.told} of {len(seen.lag_s)} looks; the event after it was told",
            sabotage="overload.py: update returns False",
        )
    )
    assert count > 0
    assert seen.told >= sum(dropped > 0 for dropped in seen.dropped) - 1, "a look between two drops heard nothing"
    assert growth_mb < MOST_GROWTH_MB
    assert max(seen.lag_s) < usual_s + 90.0
