"""What strangers may cost: connections, their rate, bytes, listings, and time without asking for data."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from seedlink_peers import Raw, eventually, raw

from streamer.server import Record, ReplayServer, client, server
from streamer.server.limits import Bucket
from streamer.server.ring import Ring
from streamer.server.selection import Request, StationRequest


def test_a_bucket_lets_a_burst_through_and_then_a_rate() -> None:
    bucket = Bucket(a_second=2.0, at_once=4.0)
    assert [bucket.take(1, 10.0) for _ in range(6)] == [0, 0, 0, 0, 0.5, 1.0]
    assert bucket.take(1, 11.0) == 0.5
    assert bucket.take(1, 100.0) == 0.0
    assert bucket.take(4, 100.0) == 0.5, "it never holds more than at once"


def test_a_bucket_that_is_asked_first_counts_only_what_passed() -> None:
    bucket = Bucket(a_second=1.0, at_once=2.0)
    assert [bucket.may(5.0) for _ in range(4)] == [True, True, False, False]
    assert [bucket.may(6.0), bucket.may(6.0)] == [True, False]


def test_connections_that_come_too_fast_are_closed(uh_records: list[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ARRIVALS_AT_ONCE", 3.0)
    monkeypatch.setattr(server, "ARRIVALS_A_SECOND", 0.001)
    with ReplayServer(uh_records) as replay:
        for _ in range(3):
            with raw(replay.port) as peer:
                peer.ask("HELLO")
                assert peer.line().startswith("SeedLink")
        with raw(replay.port) as peer:
            assert peer.rest() == b""
        assert replay.counters.rejected == 1
        assert replay.counters.connections == 3


def test_who_asks_for_no_data_is_closed_and_who_does_is_not(
    uh_records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ASKING_S", 0.3)
    with ReplayServer(uh_records, speed=0, max_clients=2) as replay, raw(replay.port) as idle, raw(replay.port) as busy:
        busy.ask("DATA")
        idle.ask("HELLO")
        with suppress(ConnectionError):
            assert idle.rest().startswith(b"SeedLink")
        assert eventually(lambda: replay.counters.given_up == 1)
        assert len(busy.packets(len(uh_records))) == len(uh_records)
        with raw(replay.port) as later:
            later.ask("INFO ID")
            assert later.exactly(520).startswith(b"SLINFO"), "its place is free again"


def test_listings_are_answered_late_when_asked_for_too_fast(
    uh_records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "LISTINGS_AT_ONCE", 2.0)
    monkeypatch.setattr(client, "LISTINGS_A_SECOND", 5.0)
    with ReplayServer(uh_records) as replay, raw(replay.port) as peer, raw(replay.port) as other:
        began_s = time.monotonic()
        peer.ask(*["CAT"] * 5)
        other.ask("INFO ID")
        assert other.exactly(520).startswith(b"SLINFO")
        answered = [peer.line() for _ in range(5 * 5)]
        assert answered.count("END\r\n") == 5
        assert time.monotonic() - began_s >= 0.55, "three of the five were above the rate"


def test_a_flood_of_bytes_is_read_slowly_and_others_are_served(
    uh_records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "BYTES_AT_ONCE", 10_000.0)
    monkeypatch.setattr(client, "BYTES_A_SECOND", 1_000.0)
    with ReplayServer(uh_records) as replay, raw(replay.port) as flood, raw(replay.port) as other:
        flood.socket.sendall(b"X\r\n" * 10_000)
        other.ask("HELLO")
        assert other.line().startswith("SeedLink")
        assert 2_000 < until_quiet(flood).count(b"ERROR") <= 5_000, "a third of what came"


def until_quiet(peer: Raw) -> bytes:
    """What comes, until nothing has for half a second."""
    peer.socket.settimeout(0.5)
    got = b""
    with suppress(TimeoutError):
        while True:
            got += peer.socket.recv(65_536)
    return got


def test_thousands_of_stations_by_time_cost_one_look_through_the_ring(uh_records: list[Record]) -> None:
    ring = Ring(100_000)
    for _ in range(20):
        for record in uh_records:
            ring.append(record)
    begin_ns = uh_records[-1].end_ns + 1
    names = [f"BW_S{n}" for n in range(5_000)]
    stations = [StationRequest(name, begin_ns=begin_ns) for name in [*names, "BW_UH3"]]
    early = StationRequest("BW_UH1", begin_ns=uh_records[200].end_ns)
    began_s = time.monotonic()
    *late, first = ring.positions(Request((*stations, early)))
    assert time.monotonic() - began_s < 5.0
    assert set(late) == {ring.next_index}
    found = ring.get(first)
    assert found is not None
    assert found.record == next(r for r in uh_records[200:] if r.station == "UH1")
