"""Packets that trickle in are read some at a time, and nothing else waits."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from source_peers import HELLO_4, Script, ScriptedServer, listing_4, packet_4

from streamer.server import Record, ReplayServer
from streamer.source import SeedLinkSource, transport
from streamer.source.transport import BUSY, MANY, READ_S, Life, Limits
from streamer.stages import NS, Packet


class Clock:
    def __init__(self) -> None:
        self.now_s, self.slept = 100.0, list[float]()

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(transport, "time", made)
    return made


def read(life: Life, packets: int) -> None:
    life.before_read()
    for _ in range(packets):
        life.listens()


def busy(clock: Clock, packets: int = round(2 * BUSY)) -> Life:
    """A second in which so many came, and a read that brought none."""
    life = Life(Limits())
    read(life, packets)
    clock.now_s += 1.0
    read(life, 0)
    assert clock.slept == []
    return life


def test_a_read_that_brought_few_packets_is_followed_after_a_while(clock: Clock) -> None:
    life = busy(clock)
    read(life, 1)
    clock.now_s += 0.005
    read(life, MANY - 1)
    assert clock.slept == [pytest.approx(READ_S - 0.005)]
    read(life, 1)
    assert clock.slept[1:] == [pytest.approx(READ_S)]


def test_many_packets_a_part_of_one_or_silence_are_not_waited_for(clock: Clock) -> None:
    life = busy(clock)
    read(life, MANY)
    read(life, 0)  # of a listing, or half a packet
    read(life, 1)
    clock.now_s += READ_S
    read(life, 1)
    assert clock.slept == []


def test_few_stations_are_read_as_their_packets_come(clock: Clock) -> None:
    life = busy(clock, round(BUSY) - 2)
    for _ in range(3):
        read(life, 1)
    clock.now_s += 10.0
    read(life, 1)
    read(life, 1)
    assert clock.slept == []


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses of real connections."""
    found: list[float] = []

    def sleep(seconds: float) -> None:
        found.append(seconds)
        time.sleep(seconds)

    monkeypatch.setattr(transport, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    return found


@pytest.mark.parametrize("asked", ["", "?transport=seedlink-client"])
def test_both_transports_read_some_packets_at_a_time(
    asked: str, records: list[Record], start: Callable[..., SeedLinkSource], slept: list[float]
) -> None:
    """Two hundred a second, after a first that is not waited for: all of them, in order."""
    ends_ns = [record.end_ns for record in records]
    got: list[Packet] = []
    with ReplayServer(records, speed=200 * (max(ends_ns) - min(ends_ns)) / NS / len(records)) as server:
        source = start(server.address + asked)
        end_s = time.monotonic() + 20.0
        while len(got) < len(records) and time.monotonic() < end_s:
            got += [item for item in source.take(100, 0.2) if isinstance(item, Packet)]
    assert len(got) == len(records)
    for channel in {packet.channel for packet in got}:
        starts = [packet.start_ns for packet in got if packet.channel == channel]
        assert starts == sorted(set(starts))
    assert len(slept) > len(records) / MANY


def test_what_waits_under_tls_is_fetched_at_once(
    records: list[Record], start: Callable[..., SeedLinkSource], tls: ssl.SSLContext, slept: list[float]
) -> None:
    """A read brings one TLS record there, which is one packet, however many wait."""
    ours = [record.data for record in records if record.station == "UH3"]
    channels = ["_S_H_Z", "_S_H_N", "_S_H_E"]
    packets = tuple(packet_4(raw, number, "BW_UH3") for number, raw in enumerate(ours))
    listing = listing_4({"BW_UH3": (channels, 0, len(ours))})
    got: list[Packet] = []
    with ScriptedServer(Script(HELLO_4, packets=packets, listing=listing), tls) as server:
        source = start(f"seedlinks://127.0.0.1:{server.port}?verify=no")
        end_s = time.monotonic() + 20.0
        while len(got) < len(ours) and time.monotonic() < end_s:
            got += [item for item in source.take(100, 0.2) if isinstance(item, Packet)]
    assert len(got) == len(ours) >= 100
    assert len(slept) < len(ours) / MANY
