"""The promise: the same recording gives the same alerts, however it is packed, ordered, repeated or paced."""

from __future__ import annotations

import pytest
from daemon_harness import Place, revisions, while_more_may_come

from quake.alerts import Alert
from streamer.composition import load_scorer
from streamer.config import load
from streamer.demo import recordings
from streamer.scan import scan
from streamer.server import Faults, Record, ReplayServer
from streamer.server.records import read
from streamer.source import decode
from streamer.stages import Packet

UNTIL_NS = 1274977508_000_000_000
"""16:25:08 UTC, half a minute after the first earthquake, and between two revisions: what is run at real speed ends here."""
NONE = Faults()
ROUGH = Faults(shuffle_s=5.0, duplicate=0.2, seed=7)


def ends(records: list[Record]) -> dict[str, int]:
    """Station as the metrics name it -> time of its last sample."""
    out: dict[str, int] = {}
    for r in records:
        name = f"{r.network}_{r.station}_{r.location}_{r.channel[0]}_{r.channel[1]}"
        out[name] = max(out.get(name, 0), r.end_ns)
    return out


def live(
    place: Place, records: list[Record], speed: float, faults: Faults = NONE, timeout_s: float = 120.0
) -> list[Alert]:
    with (
        ReplayServer(records, speed=speed, faults=faults) as server,
        place.start(place.configure(server.address)) as life,
    ):
        life.wait_newest(ends(records), timeout_s)
        assert server.wait_sent(timeout_s)
        packets = server.counters.packets
        assert life.stop() == 0
    assert packets >= len(records)
    return place.published()


@pytest.mark.parametrize(
    ("fill", "speed", "faults"),
    [
        pytest.param(1.0, 20.0, NONE, id="full", marks=pytest.mark.drill),
        pytest.param(0.25, 20.0, NONE, id="quarter", marks=pytest.mark.drill),
        pytest.param(1.0, 20.0, ROUGH, id="full-shuffled-repeated", marks=pytest.mark.drill),
        pytest.param(0.25, 0.0, ROUGH, id="quarter-shuffled-repeated-fast"),
    ],
)
def test_same_alerts_live_as_scanned(
    place: Place, undisturbed: list[Alert], fill: float, speed: float, faults: Faults
) -> None:
    assert revisions(live(place, read(recordings(), fill), speed, faults)) == revisions(undisturbed)


@pytest.mark.drill
def test_same_alerts_at_real_speed(place: Place) -> None:
    records = [r for r in read(recordings(), 0.25) if r.end_ns < UNTIL_NS]
    config = load(place.configure("seedlink://nowhere:1"))
    packets = [decode(r.data, None, UNTIL_NS) for r in records]
    assert all(isinstance(p, Packet) for p in packets)
    expected = scan(config, load_scorer(config), packets)
    assert len(expected) > 4
    assert revisions(live(place, records, 1.0)) == revisions(
        while_more_may_come(expected, max(r.end_ns for r in records))
    )
