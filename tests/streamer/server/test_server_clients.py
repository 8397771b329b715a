"""Real clients over TCP: everything once and unchanged, resuming, windows, selectors, wildcards, INFO."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter

import pytest
from seedlink_client import SeedLink
from seedlink_peers import Got, ObsPy, earthscope, eventually, fetched, raw

from streamer.server import Numbering, Record, ReplayServer

STATIONS = ("UH1", "UH2", "UH3", "UH4")
LEVELS = ("ID", "CAPABILITIES", "STATIONS", "STREAMS", "GAPS", "CONNECTIONS", "ALL")
SECOND_NS = 1_000_000_000


def of(records: list[Record], *stations: str, channels: str = "ENZ") -> list[bytes]:
    return [r.data for r in records if r.station in (stations or STATIONS) and r.channel[-1] in channels]


def data(packets: list[Got]) -> list[bytes]:
    return [packet.data for packet in packets]


def test_obspy_gets_everything_once(uh_records: list[Record]) -> None:
    with ReplayServer(uh_records, speed=0) as server:
        client = ObsPy(server.port)
        for station in STATIONS:
            client.connection.add_stream("BW", station, "???", -1, None)
        got = client.take(lambda packets: len(packets) == len(uh_records))
        assert server.wait_sent(10)
    assert data(got) == of(uh_records)


def test_seedlink_client_gets_everything_once(uh_records: list[Record]) -> None:
    with ReplayServer(uh_records, speed=0) as server:
        got = earthscope(server.port, {"BW_*": None}, len(uh_records))
        assert server.wait_sent(10)
        assert server.counters.packets == len(uh_records)
        assert server.counters.sent_bytes == len(uh_records) * 520
    assert data(got) == of(uh_records)


def test_two_clients_each_get_their_part(uh_records: list[Record]) -> None:
    with ReplayServer(uh_records, speed=0, wait_clients=2, capacity=5) as server, raw(server.port) as slow:
        slow.ask("DATA")
        with raw(server.port) as quick:
            quick.ask("SELECT SHZ", "DATA")
            assert quick.line() == "OK\r\n"
            mine = of([r for r in uh_records if r.channel == "SHZ"])
            everything = slow.packets(len(uh_records))
            assert data(quick.packets(len(mine))) == mine
        assert data(everything) == of(uh_records)
        assert server.counters.overrun == 0


@pytest.mark.parametrize("numbering", list(Numbering))
def test_the_number_after_the_last_one_resumes_exactly(uh_records: list[Record], numbering: Numbering) -> None:
    """After packet n a client sends n + 1."""
    with ReplayServer(uh_records, speed=0, wait_clients=0, numbering=numbering) as server:
        assert server.wait_sent(10)
        first = fetched(server.port, "STATION UH3 BW", "FETCH 1", "END")
        assert data(first) == of(uh_records, "UH3")
        again = fetched(server.port, "STATION UH3 BW", f"FETCH {first[49].sequence + 1:06X}", "END")
        assert data(again) == data(first)[50:]
        assert fetched(server.port, "STATION UH3 BW", f"FETCH {first[-1].sequence + 1:06X}", "END") == []


def test_obspy_resumes_where_it_was_cut(uh_records: list[Record]) -> None:
    with ReplayServer(uh_records, speed=0) as server:
        client = ObsPy(server.port)
        client.connection.add_stream("BW", "UH3", "???", -1, None)
        got = client.take(lambda packets: len(packets) == 40)
        last = client.connection.streams[0]
        again = ObsPy(server.port)
        again.connection.add_stream("BW", "UH3", "???", last.seqnum, last.btime)
        wanted = len(of(uh_records, "UH3")) - 40
        got += again.take(lambda packets: len(packets) == wanted)
    assert data(got) == of(uh_records, "UH3")


def test_seedlink_client_resumes_where_it_was_cut(uh_records: list[Record]) -> None:
    with ReplayServer(uh_records, speed=0) as server:
        got = earthscope(server.port, {"BW_UH3": None}, 40)
        wanted = len(of(uh_records, "UH3")) - 40
        got += earthscope(server.port, {"BW_UH3": None}, wanted, resume=got[-1].sequence)
    assert data(got) == of(uh_records, "UH3")


def test_without_a_number_only_what_is_new_comes(full: ReplayServer) -> None:
    with raw(full.port) as peer:
        peer.ask("DATA")
        assert peer.quiet()


def test_by_time_from_the_first_packet_that_ends_later(full: ReplayServer, uh_records: list[Record]) -> None:
    begin_ns = 1274977500 * SECOND_NS
    wanted = [r.data for r in uh_records if r.station == "UH3" and r.end_ns >= begin_ns]
    with raw(full.port) as peer:
        peer.ask("STATION UH3 BW", "TIME 2010,05,27,16,25,00", "END")
        assert [peer.line(), peer.line()] == ["OK\r\n"] * 2
        assert data(peer.packets(len(wanted))) == wanted
        assert peer.quiet()


def test_a_window_ends_when_all_its_streams_have_passed_its_end(full: ReplayServer, uh_records: list[Record]) -> None:
    begin_ns, end_ns = 1274977500 * SECOND_NS, 1274977510 * SECOND_NS
    uh3 = [record for record in uh_records if record.station == "UH3"]
    wanted = [record.data for record in uh3 if record.end_ns >= begin_ns and record.start_ns <= end_ns]
    got = fetched(full.port, "STATION UH3 BW", "TIME 2010,05,27,16,25,00 2010,05,27,16,25,10", "END")
    assert data(got) == wanted


@pytest.mark.parametrize(
    ("lines", "stations", "channels"),
    [
        (["STATION * BW", "FETCH 1", "END"], STATIONS, "ENZ"),
        (["STATION UH* B?", "FETCH 1", "END"], STATIONS, "ENZ"),
        (["STATION UH2 BW", "FETCH 1", "STATION UH1 BW", "SELECT SH?", "FETCH 1", "END"], ("UH1", "UH2"), "Z"),
        (["STATION UH2 BW", "FETCH 1", "STATION UH3 BW", "SELECT EH?", "FETCH 1", "END"], ("UH2",), "Z"),
        (["STATION UH3 BW", "SELECT SH?", "SELECT !SHE", "FETCH 1", "END"], ("UH3",), "NZ"),
        (["STATION UH3 BW", "SELECT --SHN", "FETCH 1", "END"], ("UH3",), "N"),
        (["STATION UH3 BW", "SELECT 00SHN", "FETCH 1", "END"], ("UH3",), ""),
        (["STATION UH9 BW", "FETCH 1", "END"], ("UH9",), ""),
    ],
)
def test_stations_and_selectors(
    full: ReplayServer, uh_records: list[Record], lines: list[str], stations: tuple[str, ...], channels: str
) -> None:
    assert data(fetched(full.port, *lines)) == of(uh_records, *stations, channels=channels)


def test_the_wildcards_of_seedlink_client(uh_records: list[Record]) -> None:
    with ReplayServer(uh_records, speed=0) as server:
        wanted = of(uh_records, channels="Z")
        assert data(earthscope(server.port, {"BW_UH?": "??Z"}, len(wanted))) == wanted


@pytest.mark.parametrize("level", LEVELS)
def test_info_parses_in_both_clients(full: ReplayServer, level: str) -> None:
    assert eventually(lambda: not full.server.clients)  # CONNECTIONS names who is there
    theirs = ET.fromstring(ObsPy(full.port).info(level))
    assert eventually(lambda: not full.server.clients)
    with SeedLink("127.0.0.1", full.port) as client:
        root = ET.fromstring(client.info(level))
    with SeedLink("127.0.0.1", full.port) as client:
        assert client.info_dict(level)
    assert [element.tag for element in theirs.iter()] == [element.tag for element in root.iter()]
    assert root.attrib["software"].startswith("SeedLink v3.1")
    tags = Counter(element.tag for element in root.iter())
    expected = {"STATIONS": (4, 0), "STREAMS": (4, 6), "GAPS": (4, 6), "ALL": (5, 6), "CONNECTIONS": (1, 0)}
    assert (tags["station"], tags["stream"]) == expected.get(level, (0, 0))


def test_streams_are_listed_before_their_first_packet(uh_records: list[Record]) -> None:
    with ReplayServer(uh_records) as server, SeedLink("127.0.0.1", server.port) as client:
        root = ET.fromstring(client.info("STREAMS"))
    stations = root.findall("station")
    assert [station.attrib["name"] for station in stations] == list(STATIONS)
    assert {(s.attrib["begin_seq"], s.attrib["end_seq"]) for s in stations} == {("1", "1")}


def test_gaps_are_named(uh_records: list[Record]) -> None:
    uh2 = [record for record in uh_records if record.station == "UH2"]
    with ReplayServer(uh2[:5] + uh2[6:], speed=0, wait_clients=0) as server:
        assert server.wait_sent(10)
        with SeedLink("127.0.0.1", server.port) as client:
            root = ET.fromstring(client.info("GAPS"))
    (gap,) = root.iter("gap")
    assert gap.attrib["begin_time"] < gap.attrib["end_time"]


def test_info_is_answered_between_packets(uh_records: list[Record]) -> None:
    with ReplayServer(uh_records, speed=0) as server, raw(server.port) as peer:
        peer.ask("DATA", "INFO ID")
        pieces = [peer.exactly(520) for _ in range(len(uh_records) + 1)]
    assert [piece[8:] for piece in pieces if not piece.startswith(b"SLINFO")] == of(uh_records)
    assert [piece[:8] for piece in pieces if piece.startswith(b"SLINFO")] == [b"SLINFO  "]


def test_more_clients_than_allowed_are_closed_at_once(uh_records: list[Record]) -> None:
    with ReplayServer(uh_records, max_clients=1) as server, raw(server.port) as first:
        first.ask("HELLO")
        assert first.line().startswith("SeedLink v3.1")
        with raw(server.port) as second:
            assert second.rest() == b""
        assert server.counters.rejected == 1


def test_a_line_that_never_ends_is_cut_off(full: ReplayServer) -> None:
    with raw(full.port) as peer:
        peer.socket.sendall(b"X" * 5000)
        assert peer.rest() == b"ERROR\r\n"
