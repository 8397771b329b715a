"""The server side on a bad day, through the whole daemon: both transports at once, each behind a relay of its own.

A server that closes, refuses, falls silent, says nothing, sends garbage, dies within a record, loses its ring; stations
that come and go; a second server. Data flow again within 5 s of the server's return, and the alerts are the undisturbed ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from daemon_harness import Place, wait_for
from drill_report import Row, tell
from drill_servers import Difference, Relay, Scene, broken, configured, garbage, half, hurry, lose_ring

from quake.alerts import Alert
from quake.times import parse_ns
from streamer.composition import load_scorer
from streamer.config import load
from streamer.scan import scan
from streamer.server import Numbering, Record, ReplayServer
from streamer.source import decode

TRANSPORTS = ("", "?transport=seedlink-client")
"""ObsPy's client, and the other one."""
SILENCE_S = 2.0
MOST_S = 5.0
"""Data flow again within this of the server's return."""
PROMISE = "data flow again within 5 s, no alert lost or doubled"


@contextmanager
def daemons(
    folder: Path,
    redis: str,
    servers: Callable[[], Sequence[Relay]],
    transports: Sequence[str] = TRANSPORTS,
    **source: float,
) -> Iterator[list[Scene]]:
    """A daemon for each transport, behind relays of its own."""
    with ExitStack() as stack:
        scenes = []
        for number, transport in enumerate(transports):
            relays = [stack.enter_context(relay) for relay in servers()]
            place = Place(folder / str(number), redis)
            place.folder.mkdir()
            config = configured(place, [relay.address + transport for relay in relays], **source)
            scenes.append(Scene(place, relays, stack.enter_context(place.start(config))))
        yield scenes


AWAY = "streamer/source/source.py: backoff_s of 6 s and more"
UNREAD = "streamer/source/transport.py: may_follow is always true"
FORGOTTEN = "streamer/source/progress.py: known tells nothing, so every station begins at now"
SABOTAGES = (
    ("garbage", UNREAD),
    ("loses its ring", FORGOTTEN),
    ("wrap", FORGOTTEN),
    ("a station", "streamer/source/supervisor.py: _refresh finds nothing new"),
    ("fail", "streamer/source/rotation.py: moved is always false"),
    ("", AWAY),
)
"""Part of a fault's name -> what was broken to see the drill fail."""


def told(faults: dict[str, float], results: Sequence[Difference], promised: str) -> None:
    """A row for each fault, failures included; then the verdict."""
    lost, repeated = (sum(r.lost.total() for r in results), sum(r.repeated.total() for r in results))
    missing = sum(r.missing for r in results)
    for fault, flow_s in faults.items():
        sabotage = next(line for part, line in SABOTAGES if part in fault)
        tell(Row("server", fault, promised, lost, repeated, flow_s, f"{missing:g} samples missing", sabotage))
    slow = {fault: flow_s for fault, flow_s in faults.items() if flow_s > MOST_S}
    assert (lost, repeated, missing, slow) == (0, 0, 0, {}), results


def spoilt(scenes: Sequence[Scene], how: Callable[..., None]) -> None:
    """A record of UH4: FLOAT32, which carries no check of its own, so that any bytes are samples."""
    for done in [scene.relay.spoil(how, b"UH4") for scene in scenes]:
        assert done.wait(60.0)


def for_all(scenes: Sequence[Scene], method: Callable[[Relay], None]) -> None:
    for scene in scenes:
        method(scene.relay)


def silent(scenes: Sequence[Scene]) -> float:
    """Back at once, but the daemon must find out: the promise counts from `silence_s` on."""
    for_all(scenes, Relay.stall)
    return time.monotonic() + SILENCE_S


def mute(scenes: Sequence[Scene], seconds: float) -> None:
    for_all(scenes, Relay.mute)
    time.sleep(seconds)  # the fault's length
    for_all(scenes, Relay.speak)


def refused(scenes: Sequence[Scene], seconds: float) -> None:
    for_all(scenes, Relay.refuse)
    time.sleep(seconds)  # the fault's length
    for_all(scenes, Relay.open)


@pytest.mark.timeout(240)
def test_a_server_breaks_in_every_way_in_turn(
    tmp_path: Path, valkey_url: str, demo_records: list[Record], undisturbed: list[Alert]
) -> None:
    """The numbers begin just below FFFFFF, so that each station's wrap on the way."""
    with (
        ReplayServer(demo_records, speed=2.0, wait_clients=2, begin=0xFFFFF8) as server,
        daemons(tmp_path, valkey_url, lambda: [Relay(server.port)], silence_s=SILENCE_S) as scenes,
    ):
        ring = server.server.ring
        flow_s = {
            "closes cleanly": broken(scenes, "closed", lambda: for_all(scenes, Relay.close_all)),
            "sends garbage in the middle of a record": broken(scenes, "protocol", lambda: spoilt(scenes, garbage)),
            "sends half a record, then closes": broken(scenes, "closed", lambda: spoilt(scenes, half)),
            "stops answering, the socket stays open": broken(scenes, "silent", lambda: silent(scenes)),
            "accepts and says nothing for 3 s": broken(scenes, "closed", lambda: mute(scenes, 3.0)),
            "loses its ring, counts from 1 again": broken(scenes, "closed", lambda: lose_ring(server, lambda: 1, 2)),
            "loses its ring, counts from numbers that the daemon has had": broken(
                scenes, "closed", lambda: lose_ring(server, lambda: ring.next_sequence("BW_UH4") - 3, 2)
            ),
            "refuses for 3 s": broken(scenes, "closed", lambda: refused(scenes, 3.0)),
        }
        hurry(server)
        wrapped = {name: ring.next_sequence(name) for name in ("BW_UH1", "BW_UH4")}
        results = [scene.finish(demo_records, undisturbed) for scene in scenes]
    assert all(number < 0xFFFFF8 for number in wrapped.values()), "a number that never wrapped"
    flow_s["sequence numbers wrap at FFFFFF"] = max(flow_s.values())
    told(flow_s, results, PROMISE)


@pytest.mark.drill
@pytest.mark.timeout(400)
@pytest.mark.parametrize("numbering", list(Numbering))
def test_a_server_is_away_for_a_minute(
    tmp_path: Path, valkey_url: str, demo_records: list[Record], undisturbed: list[Alert], numbering: Numbering
) -> None:
    with (
        ReplayServer(demo_records, speed=2.0, wait_clients=2, begin=0xFFFFC0, numbering=numbering) as server,
        daemons(tmp_path, valkey_url, lambda: [Relay(server.port)], silence_s=SILENCE_S) as scenes,
    ):
        flow_s = broken(scenes, "closed", lambda: refused(scenes, 60.0))
        hurry(server)
        results = [scene.finish(demo_records, undisturbed) for scene in scenes]
    told({f"refuses for 60 s (numbers of each {numbering})": flow_s}, results, PROMISE)


# -- stations and servers that come and go

ADDED_NS = parse_ns("2010-05-27T16:25:10Z")
"""UH4 is there from here on, and UH2 is not ..."""
BACK_NS = parse_ns("2010-05-27T16:26:45Z")
"""... until here."""
REFRESH_S = 1.0


EACH = pytest.mark.parametrize(
    "transport", [TRANSPORTS[0], pytest.param(TRANSPORTS[1], marks=pytest.mark.drill)], ids=["obspy", "seedlink-client"]
)


@EACH
@pytest.mark.timeout(240)
def test_stations_come_and_go(
    tmp_path: Path, valkey_url: str, demo_records: list[Record], undisturbed: list[Alert], transport: str
) -> None:
    """Three servers take one another's place: one that does not know UH4 yet, one that does and has lost UH2, one with all."""
    early = [r for r in demo_records if r.end_ns < ADDED_NS and r.station != "UH4"]
    middle = [r for r in demo_records if ADDED_NS <= r.end_ns < BACK_NS and r.station != "UH2"]
    late = [r for r in demo_records if r.end_ns >= BACK_NS]
    with ExitStack() as stack:
        servers = [stack.enter_context(ReplayServer(part, speed=0.0)) for part in (early, middle, late)]
        make = lambda: [Relay(servers[0].port)]  # noqa: E731
        scenes = stack.enter_context(daemons(tmp_path, valkey_url, make, [transport], refresh_s=REFRESH_S))
        for scene in scenes:
            scene.wait_counted(len(early))
        name = transport.rpartition("=")[2] or "obspy"
        before, since_s = [scene.station("UH4") for scene in scenes], time.monotonic()
        for_all(scenes, lambda relay: setattr(relay, "target", servers[1].port))
        added_s = came(scenes, "UH4", before, since_s + REFRESH_S)
        for scene in scenes:
            scene.wait_counted(len(early) + len(middle))
        for_all(scenes, lambda relay: setattr(relay, "target", servers[2].port))
        before, since_s = [scene.station("UH2") for scene in scenes], time.monotonic()
        for_all(scenes, Relay.close_all)
        flow_s = {
            f"a station is added, and a wildcard meets it ({name})": added_s,
            f"a station disappears and comes back ({name})": came(scenes, "UH2", before, since_s),
        }
        expected = scanned(scenes[0].place, [*early, *middle, *late])
        results = [scene.finish([*early, *middle, *late], expected, waits=False) for scene in scenes]
    assert len(expected) > len(undisturbed) / 2
    told(flow_s, results, "asked for within refresh_s and 5 s; detections and events of a scan of what the servers had")


def came(scenes: Sequence[Scene], station: str, before: Sequence[float], back_s: float) -> float:
    """Until records of the station have come to each daemon; seconds until data flowed on a new connection."""
    for scene, had in zip(scenes, before, strict=True):
        wait_for(f"data of {station}", lambda scene=scene, had=had: scene.station(station) > had, 60.0)  # type: ignore[misc]
    return max(0.0, *(scene.relay.began[-1][1] - back_s for scene in scenes))


def scanned(place: Place, records: Sequence[Record]) -> list[Alert]:
    config = load(place.folder / "quake.toml")
    now_ns = time.time_ns()
    return scan(config, load_scorer(config), [decode(record.data, None, now_ns) for record in records])


FAILBACK_S = 2.0


@EACH
@pytest.mark.timeout(240)
def test_fail_over_to_the_second_server_and_back(
    tmp_path: Path, valkey_url: str, demo_records: list[Record], undisturbed: list[Alert], transport: str
) -> None:
    """The second server numbers otherwise, and runs beside the first."""
    with ExitStack() as stack:
        first = stack.enter_context(ReplayServer(demo_records, speed=4.0))
        scenes = stack.enter_context(
            daemons(tmp_path, valkey_url, lambda: [Relay(first.port), Relay(0)], [transport], failback_s=FAILBACK_S)
        )
        scenes[0].flowing()
        other = stack.enter_context(ReplayServer(demo_records, speed=4.0, wait_clients=0, begin=0x1234))
        for scene in scenes:
            scene.relays[1].target = other.port
        name = transport.rpartition("=")[2] or "obspy"
        flow_s = {
            f"fail over to the second server ({name})": broken(scenes, "closed", lambda: for_all(scenes, Relay.refuse)),
            f"fails back to the first server ({name})": broken(scenes, "back again, leaving", lambda: returned(scenes)),
        }
        hurry(first)
        assert all(scene.relays[1].passed for scene in scenes)
        results = [scene.finish(demo_records, undisturbed) for scene in scenes]
    told(flow_s, results, "data flow within 5 s (back: of failback_s), no alert lost or doubled")


def returned(scenes: Sequence[Scene]) -> float:
    for_all(scenes, Relay.open)
    return time.monotonic() + FAILBACK_S
