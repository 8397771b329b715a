"""What the web page costs the daemon: its pipeline's thread, and the thread that writes. Needs no Redis.

python -m benchmarks.live
"""

from __future__ import annotations

import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from quake.alerts import Keys, ModelIdentity
from streamer.grid import Grid
from streamer.hooks import Hooks
from streamer.inventory import Stations
from streamer.live.envelope import Envelope
from streamer.live.feed import About, Feed
from streamer.live.view import View
from streamer.stages import NS, Packet, Score, Window
from streamer.trigger import Thresholds

STATIONS, ROUNDS = 300, 10
GRID = Grid(100, 2080, 100)
START_NS = 1_700_000_000 * NS


def packets(number: int) -> list[Packet]:
    """Four seconds of each channel: what a record of 512 bytes holds."""
    samples = np.random.default_rng(number).integers(-9_999, 9_999, 400, dtype=np.int32)
    start_ns = START_NS + 4 * number * NS
    names = [f"FDSN:XX_S{s:03d}__H_H_{c}" for s in range(STATIONS) for c in "ZNE"]
    return [Packet(name, start_ns, Fraction(100), samples, None, start_ns, 512) for name in names]


def scores(k: int) -> list[Score]:
    samples = np.zeros((3, 4), np.float32)
    return [Score(Window(f"FDSN:XX_S{s:03d}__H_H", k, samples, "ZNE", True, 0), 0.1) for s in range(16)]


def each_us(what: str, count: int, call: Callable[[], Any]) -> None:
    begun_s = time.perf_counter()
    call()
    print(f"{what:<70} {1e6 * (time.perf_counter() - begun_s) / count:7.2f} us")


def push(envelopes: list[Envelope], verticals: list[Packet]) -> None:
    for number, packet in enumerate(verticals):
        envelopes[number % STATIONS].push(packet)


def main() -> None:
    about = About(
        "x", "live", ModelIdentity(name="x", version="1", sha256=""), "cpu", Thresholds(1, 1, 1, 1, 1, 1), 1, 1
    )
    view = View(GRID, Stations({}, {}))
    feed = Feed(None, Keys(), about, view, Hooks())  # type: ignore[arg-type]
    came = [packets(number) for number in range(ROUNDS)]
    scored = [scores(1_700_000_000 + k) for k in range(500)]
    for round_ in came[:1]:  # filters and tables are made
        list(map(feed.packet, round_))
        feed._take()
    flat = [packet for round_ in came[1:] for packet in round_][:8_000]
    each_us("pipeline's thread, a packet", len(flat), lambda: [feed.packet(packet) for packet in flat])
    each_us("feed's thread, a packet of 400 samples", len(flat), feed._take)
    each_us("pipeline's thread, a window (batches of 16)", 16 * 500, lambda: [feed.scored(batch) for batch in scored])
    each_us("feed's thread, a window", 16 * 500, feed._take)
    envelopes = [Envelope() for _ in range(STATIONS)]
    verticals = [packet for packet in flat if packet.component == "Z"]
    each_us("feed's thread, a vertical's packet for the helicorder", len(verticals), lambda: push(envelopes, verticals))
    what = f"feed's thread, the helicorders of {STATIONS} stations, every half a minute"
    each_us(what, 1, lambda: [list(envelope.take()) for envelope in envelopes])
    each_us(f"feed's thread, the states of {STATIONS} stations, every two seconds", 1, feed._state)


if __name__ == "__main__":
    main()
