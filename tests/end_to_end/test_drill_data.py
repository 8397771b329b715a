"""Bad data: every fault as a station of its own in one run of the real daemon; and three late stations of 300."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from daemon_harness import Life, Place, revisions, wait_for
from drill_data import FAULTS, Fault, station
from drill_report import Row, tell
from made_scorer import SERVERS, Loud, loud_scorer

from quake.alerts import Alert, Kind
from streamer.composition import compose, load_scorer
from streamer.config import Config, load, resolve
from streamer.demo import EARTHQUAKES
from streamer.grid import Grid
from streamer.hooks import Hooks
from streamer.inventory import Stations
from streamer.outbox import Outbox, Saved
from streamer.scan import scan
from streamer.server import Record, ReplayServer
from streamer.source import decode
from streamer.stages import NS, Packet, Refused, Score, Subscribed
from streamer.trigger import Thresholds

WINDOWS = """\
[trigger]
on = 0.9
in_a_row = 1
most_a_minute = 0
[windows]
hop_s = 2.0
"""
"""Half as many windows as the shipped hop, for twenty stations on two cores; a threshold that clear earthquakes stand well
above, since a fault may cost some hundredths, and one window of it: the recording ends seconds after its second earthquake.
None of the alerts is held back."""
NEAR_NS = 8 * NS
"""An onset this near to an earthquake is its own."""
COUNTED = ("gap", "overlap", "late", "future", "clock", "flat")
"""Reasons that this day must count, of samples or of windows."""


@dataclass(frozen=True)
class Day:
    """What one run of the daemon gave, and a scan of the same records."""

    published: Sequence[Alert]
    expected: Sequence[Alert]
    unused: Mapping[str, float]
    """Reason -> samples and windows not used."""

    def of(self, alerts: Sequence[Alert], fault: Fault) -> list[Alert]:
        """Detections of one station."""
        return [a for a in alerts if a.kind is Kind.DETECTION and f"_{fault.station}_" in a.stations[0].source_id]


def seen(alerts: Sequence[Alert]) -> Counter[tuple[object, ...]]:
    """What a station's alerts say, but for whose they are."""
    return Counter((a.status, a.onset, a.on_time, a.off_time, round(a.probability, 4)) for a in alerts)


def unused(life: Life) -> dict[str, float]:
    names = ("quake_samples_unused_total", "quake_windows_unused_total")
    found = [life.metric(name) for name in names]
    return {reason: sum(one[f'reason="{reason}"'] for one in found) for reason in COUNTED}


def bad_day(place: Place) -> Day:
    records = in_order([record for fault in FAULTS for record in station(fault)])
    with ReplayServer(records, speed=0.0) as server:
        config = place.configure(server.address)
        config.write_text(config.read_text().replace("[windows]\n", WINDOWS))
        with place.start(config) as life:
            expected = scanned(config, records)
            wait_for("all records are taken", lambda: taken(life) >= len(records), 240.0)
            assert life.get("/healthz")[0] == 200
            counted = unused(life)
            assert life.stop() == 0
    return Day(place.published(), expected, counted)


def taken(life: Life) -> float:
    return sum(life.metric("quake_packets_total").values())


def scanned(path: Path, records: Sequence[Record]) -> list[Alert]:
    config, now_ns = load(path), time.time_ns()
    return scan(config, load_scorer(config), [decode(r.data, None, now_ns) for r in in_order(records)])


def in_order(records: Sequence[Record]) -> list[Record]:
    """As a server releases them."""
    return sorted(records, key=lambda r: r.end_ns)


def heard(alerts: Sequence[Alert], shift_s: float) -> bool:
    """Whether both earthquakes were seen, each when the station's clock says that it was."""
    first, second = (known.time_ns for known in EARTHQUAKES if known.wanted)
    times = (first, second + round(shift_s * NS))
    return all(any(abs(alert.onset - time_ns) < NEAR_NS for alert in alerts) for time_ns in times)


def verdict(day: Day, fault: Fault) -> tuple[Row, bool]:
    """The row of one fault, and whether its promise was kept."""
    published, expected, new = (
        day.of(day.published, fault),
        day.of(day.expected, fault),
        day.of(day.published, FAULTS[0]),
    )
    had, wanted = revisions(published), revisions(expected)
    lost, repeated = (wanted - had).total(), (had - wanted).total()
    same = (seen(published) & seen(new)).total()
    measured = f"{len(published)} alerts, {same} of them as of the unharmed station's {len(new)}"
    row = Row("data", fault.name, fault.promised, lost, repeated, None, measured, fault.sabotage)
    kept = not fault.silent or not published
    kept = kept and (fault.deaf or heard(published, fault.shift_s))
    kept = kept and (not fault.like_new or seen(published) == seen(new))
    return row, kept and not lost and not repeated


@pytest.mark.timeout(480)
def test_every_fault_of_the_data_at_once(place: Place) -> None:
    day = bad_day(place)
    assert len(day.of(day.published, FAULTS[0])) >= 4, "a station without alerts proves nothing"
    verdicts = {fault.station: verdict(day, fault) for fault in FAULTS}
    for row, _ in verdicts.values():
        tell(row)
    alone = scanned(place.folder / "quake.toml", station(FAULTS[0]))
    broken = [name for name, (_, kept) in verdicts.items() if not kept]
    if seen(day.of(alone, FAULTS[0])) != seen(day.of(day.published, FAULTS[0])):
        broken.append("the unharmed station, by the others' faults")
    # Detections alone: a clock that runs hours ahead leaves all others behind what events are waited for.
    had, wanted = (revisions([a for a in part if a.kind is Kind.DETECTION]) for part in (day.published, day.expected))
    elsewhere = had - wanted, wanted - had
    uncounted = [reason for reason, count in day.unused.items() if not count]
    assert (broken, elsewhere, uncounted) == ([], (Counter(), Counter()), [])


# -- three of 300 stations late by minutes: in this process, with a model that only measures loudness

STATIONS, LATE, LATE_BY_S = 300, 3, 120
RECORD_S, SECONDS, HOP_S = 4, 200, 5.0
RATE = 20
"""Hertz."""
SHAKES_S = 100
"""Seconds into the data: all stations are loud for a record."""
EPOCH_S = 1_700_000_000
HELD = "streamer/pipeline.py: _cut takes no window a minute ahead of the station that is furthest behind"
NOTICEABLE_S = 0.05
"""Windows of one moment are scored in batches, and one that is not full waits for 10 ms."""


@dataclass
class Arrivals:
    """Packets as they arrive; the clock goes from one arrival to the next."""

    packets: Sequence[Packet]
    now_ns: int = EPOCH_S * NS
    done: int = 0
    queued: int = 0

    def __call__(self) -> int:
        return self.now_ns

    def take(self, limit: int, timeout_s: float) -> list[Packet | Refused | Subscribed]:
        first, until_ns = self.done, self.now_ns + round(timeout_s * NS)
        if not self.over:
            until_ns = min(until_ns, self.packets[first].received_ns)
        self.now_ns = max(self.now_ns, until_ns)
        while self.done < min(first + limit, len(self.packets)) and self.packets[self.done].received_ns <= self.now_ns:
            self.done += 1
        return list(self.packets[first : self.done])

    def expected(self) -> Mapping[str, frozenset[str]]:
        return {packet.subject: frozenset("Z") for packet in self.packets[:STATIONS]}

    @property
    def over(self) -> bool:
        return self.done == len(self.packets)


@dataclass
class Latencies(Hooks):
    clock: Arrivals
    grid: Grid
    windows: dict[tuple[str, int], float] = field(default_factory=dict)
    """(subject, window) -> seconds from its end to its score."""
    alerts: list[Alert] = field(default_factory=list)

    def scored(self, scores: list[Score]) -> None:
        for score in scores:
            late_ns = self.clock.now_ns - self.grid.end_ns(score.window.k)
            self.windows[score.window.subject, score.window.k] = late_ns / NS

    def committed(self, alerts: list[Alert]) -> None:
        self.alerts += alerts


def arrivals(late: int) -> list[Packet]:
    """A record of each station every four seconds; the first ``late`` stations' come two minutes later."""
    made = [
        packet(number, n, LATE_BY_S if number < late else 0)
        for n in range(SECONDS // RECORD_S)
        for number in range(STATIONS)
    ]
    return sorted(made, key=lambda p: p.received_ns)


def packet(number: int, n: int, late_s: int) -> Packet:
    samples = np.random.default_rng(number * 1_000 + n).integers(-100, 100, RECORD_S * RATE, dtype=np.int32)
    begin_s = n * RECORD_S
    if SHAKES_S <= begin_s < SHAKES_S + 4:
        samples *= 100
    start_ns = (EPOCH_S + begin_s) * NS
    received_ns = start_ns + (RECORD_S + late_s) * NS
    return Packet(f"FDSN:XX_S{number:03}__B_H_Z", start_ns, Fraction(RATE), samples, None, received_ns, 512)


def watched(config: Config, late: int) -> Latencies:
    feed = Arrivals(arrivals(late))
    limits = Thresholds(on=0.9, off=0.5, in_a_row=1, release=2, dead_k=3, longest_k=60)
    grid = Grid.of(Loud.spec.sampling_rate_hz, Loud.spec.window_samples, HOP_S)
    scorer = loud_scorer(1_000, 3.0, limits, grid)
    told = Latencies(feed, grid)
    with Outbox(":memory:") as outbox:
        made = compose(
            config, scorer, Stations({}, {}), feed, outbox, Saved({}, None, {}), told, lambda: None, may_drop=False
        )
        made.clock_ns = made.tick_ns = feed
        made.run(lambda: feed.over)
    return told


def test_three_late_stations_of_300_keep_nobody_waiting(tmp_path: Path) -> None:
    config = resolve({**SERVERS, "trigger": {"most_a_minute": 0}}, tmp_path / "x")
    even, uneven = watched(config, 0), watched(config, LATE)
    late = {f"FDSN:XX_S{number:03}__B_H" for number in range(LATE)}
    punctual = [{key: s for key, s in run.windows.items() if key[0] not in late} for run in (even, uneven)]
    behind = [s for (subject, _), s in uneven.windows.items() if subject in late]
    before, after = (max(each.values()) for each in punctual)
    opened = [alert.id for alert in uneven.alerts if alert.kind is Kind.DETECTION and alert.revision == 0]
    measured = (
        f"297 stations: {before:.2f} s at most without late ones, {after:.2f} s with; in this process, tiny model"
    )
    name, promise = (
        "three stations of 300 late by two minutes",
        "the other 297 keep their latency; no detection is lost",
    )
    detections = [[a for a in run.alerts if a.kind is Kind.DETECTION] for run in (even, uneven)]
    had, wanted = revisions(detections[1]), revisions(detections[0])
    tell(Row("data", name, promise, (wanted - had).total(), (had - wanted).total(), None, measured, HELD))
    assert len(punctual[0]) > 8_000
    assert punctual[0].keys() == punctual[1].keys()
    assert max(abs(punctual[0][key] - punctual[1][key]) for key in punctual[0]) < NOTICEABLE_S
    assert min(behind) > LATE_BY_S - 10
    assert len(opened) == STATIONS
    assert had == wanted
