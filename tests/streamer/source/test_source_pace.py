"""Packets that trickle in are read some at a time, and nothing else waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from streamer.server import Record, ReplayServer
from streamer.source import SeedLinkSource, transport
from streamer.source.transport import MANY, READ_S, Life, Limits
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


def test_a_read_that_brought_few_packets_is_followed_after_a_while(clock: Clock) -> None:
    life = Life(Limits())
    read(life, 1)
    clock.now_s += 0.005
    read(life, MANY - 1)
    assert clock.slept == [pytest.approx(READ_S - 0.005)]
    read(life, 1)
    assert clock.slept[1:] == [pytest.approx(READ_S)]


def test_many_packets_a_part_of_one_or_silence_are_not_waited_for(clock: Clock) -> None:
    life = Life(Limits())
    read(life, MANY)
    read(life, 0)  # of a listing, or half a packet
    read(life, 1)
    clock.now_s += READ_S
    read(life, 1)
    assert clock.slept == []


@pytest.mark.parametrize("asked", ["", "?transport=seedlink-client"])
def test_both_transports_read_some_packets_at_a_time(
    asked: str, records: list[Record], start: Callable[..., SeedLinkSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hundred a second: all of them, in order."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        time.sleep(seconds)

    monkeypatch.setattr(transport, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
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
