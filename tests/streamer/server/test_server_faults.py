"""What is broken on purpose is broken in the way and the amount asked for, and the same each time."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import numpy as np
import obspy
import pymseed
import pytest
from seedlink_peers import eventually, fetched, raw

from streamer.server import Faults, Record, ReplayServer
from streamer.server.faults import plan

NS = 1_000_000_000


def served(records: list[Record], faults: Faults) -> list[bytes]:
    with ReplayServer(records, speed=0, wait_clients=0, faults=faults) as server:
        assert server.wait_sent(10)
        return [packet.data for packet in fetched(server.port, "STATION * *", "FETCH 1", "END")]


def test_without_faults_all_come_in_order(uh_records: list[Record]) -> None:
    assert [release.record for release in plan(uh_records)] == uh_records


def test_the_same_seed_gives_the_same_plan(uh_records: list[Record]) -> None:
    faults = Faults(seed=7, drop=0.1, duplicate=0.1, shuffle_s=5)
    assert plan(uh_records, faults) == plan(uh_records, faults)
    assert plan(uh_records, faults) != plan(uh_records, Faults(seed=8, drop=0.1, duplicate=0.1, shuffle_s=5))


def test_one_fault_does_not_change_anothers_choices(uh_records: list[Record]) -> None:
    dropped = {release.record for release in plan(uh_records, Faults(drop=0.2))}
    both = {release.record for release in plan(uh_records, Faults(drop=0.2, duplicate=0.5, shuffle_s=3))}
    assert dropped == both


def test_a_share_is_dropped(uh_records: list[Record]) -> None:
    assert len(served(uh_records, Faults(drop=0.1))) == pytest.approx(0.9 * len(uh_records), rel=0.05)


def test_a_share_comes_twice_under_new_numbers(uh_records: list[Record]) -> None:
    with ReplayServer(uh_records, speed=0, wait_clients=0, faults=Faults(duplicate=0.2)) as server:
        assert server.wait_sent(10)
        got = fetched(server.port, "STATION UH3 BW", "FETCH 1", "END")
    assert [packet.sequence for packet in got] == list(range(1, len(got) + 1))
    times = Counter(packet.data for packet in got)
    assert len(times) == sum(record.station == "UH3" for record in uh_records)
    assert 0.1 < sum(count == 2 for count in times.values()) / len(times) < 0.3


def test_disorder_stays_within_its_bound(uh_records: list[Record]) -> None:
    releases = plan(uh_records, Faults(shuffle_s=5))
    assert sorted(r.record.end_ns for r in releases) == [record.end_ns for record in uh_records]
    assert all(0 <= r.at_ns - r.record.end_ns <= 5 * NS for r in releases)
    latest, disorder = 0, 0
    for release in releases:
        disorder = max(disorder, latest - release.record.end_ns)
        latest = max(latest, release.record.end_ns)
    assert NS < disorder <= 5 * NS


def test_one_station_is_late(uh_records: list[Record]) -> None:
    releases = plan(uh_records, Faults(delay_s=60, delay_stations=("BW_UH1",)))
    delays = {(release.record.station, (release.at_ns - release.record.end_ns) // NS) for release in releases}
    assert delays == {("UH1", 60), ("UH2", 0), ("UH3", 0), ("UH4", 0)}


def test_damaged_samples_under_a_whole_header(uh_files: list[Path], uh_records: list[Record]) -> None:
    got = served(uh_records, Faults(corrupt=0.1))
    originals = {record.data for record in uh_records}
    broken = [piece for piece in got if piece not in originals]
    assert 0.05 < len(broken) / len(got) < 0.15
    assert {piece[:64] for piece in broken} <= {piece[:64] for piece in originals}
    for piece in broken:
        pymseed.MS3Record.parse(piece)


def test_a_connection_is_closed_and_resumes(uh_records: list[Record]) -> None:
    with ReplayServer(uh_records, speed=0, faults=Faults(close_after=100)) as server:
        with raw(server.port) as peer:
            peer.ask("STATION UH4 BW", "DATA", "END")
            assert [peer.line(), peer.line()] == ["OK\r\n"] * 2
            first = peer.packets(100)
            assert peer.rest() == b""
        again = fetched(server.port, "STATION UH4 BW", f"FETCH {first[-1].sequence + 1:X}", "END")
        assert server.counters.breaks == 1
    got = [packet.data for packet in [*first, *again]]
    assert got == [record.data for record in uh_records if record.station == "UH4"]


def test_every_connection_is_closed(uh_records: list[Record]) -> None:
    with ReplayServer(uh_records, speed=0, wait_clients=0, faults=Faults(close_after=3, times=0)) as server:
        assert server.wait_sent(10)
        for _ in range(3):
            with raw(server.port) as peer:
                peer.ask("DATA 1")
                assert len(peer.rest()) == 3 * 520


def test_a_packet_is_cut_within(uh_records: list[Record]) -> None:
    with ReplayServer(uh_records, speed=0, faults=Faults(truncate_after=10)) as server, raw(server.port) as peer:
        peer.ask("DATA")
        assert len(peer.rest()) == 10 * 520 + 8 + 256


def test_a_stalled_connection_stays_open_and_says_nothing(uh_records: list[Record]) -> None:
    with ReplayServer(uh_records, speed=0, faults=Faults(stall_after=10)) as server, raw(server.port) as peer:
        peer.ask("DATA")
        peer.packets(10)
        peer.ask("INFO ID")
        assert peer.quiet(0.1)
        with raw(server.port) as other:
            other.ask("INFO ID")
            assert other.exactly(520).startswith(b"SLINFO  ")


def test_nobody_is_let_in_for_a_while(uh_records: list[Record]) -> None:
    faults = Faults(close_after=1, refuse_s=0.3)
    with ReplayServer(uh_records, speed=0, faults=faults) as server:
        with raw(server.port) as peer:
            peer.ask("DATA")
            peer.packet()
            assert peer.rest() == b""
        began_s = time.monotonic()
        with pytest.raises(ConnectionRefusedError):
            raw(server.port).__enter__()
        assert eventually(lambda: connects(server.port))
        assert time.monotonic() - began_s > 0.2


def connects(port: int) -> bool:
    try:
        with raw(port):
            return True
    except ConnectionRefusedError:
        return False


def test_faults_of_the_moment(uh_records: list[Record]) -> None:
    """What a drill does by hand: cut, go silent, begin the ring again."""
    with ReplayServer(uh_records, speed=0) as server:
        with raw(server.port) as peer:
            peer.ask("DATA")
            peer.packets(len(uh_records))
            server.disconnect()
            assert peer.rest() == b""
        server.renumber(5)
        with raw(server.port) as peer:
            peer.ask("DATA 1")
            peer.ask("INFO ID")
            assert peer.exactly(520).startswith(b"SLINFO  ")
            server.stall()
            peer.ask("INFO ID")
            assert peer.quiet(0.1)


@pytest.mark.parametrize("wrong", [{"drop": 1.5}, {"duplicate": -0.1}, {"shuffle_s": -1.0}, {"times": -1}])
def test_what_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Faults(**wrong)  # type: ignore[arg-type]


def test_damage_is_noticed_by_steim(uh_records: list[Record]) -> None:
    record = next(r for r in uh_records if r.station == "UH3")
    (release,) = plan([record], Faults(corrupt=1.0))
    assert release.record.data != record.data
    good = obspy.read(_file(record.data))[0].data
    try:
        bad = pymseed.MS3Record.parse(release.record.data, unpack_data=True).np_datasamples
    except pymseed.MiniSEEDError:
        return
    assert not np.array_equal(good, bad)


def _file(data: bytes) -> object:
    from io import BytesIO

    return BytesIO(data)
