"""The source against what a real ringserver 4.5.3 answered: its listing, its data, its refusals, by both transports."""

from __future__ import annotations

import hashlib
import io
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache

import numpy as np
import obspy
import pytest
from golden_peer import MARKS, RECORDER, Book, Dialogue, RecordedServer, Unrecorded

from streamer.source import EventKind, ResumePoint, SeedLinkSource, parse_address
from streamer.source.listing import Channel, ListingError, counts_for_all, parse_xml
from streamer.source.resume import Begin, row
from streamer.source.resume import Start as Where
from streamer.source.session import connect
from streamer.source.transport import Cause, Connection, Limits, RawPacket, Request, TransportError
from streamer.stages import NS, Packet, Refused, Subscribed

Start = Callable[..., SeedLinkSource]
NAMES = ("BW_UH1", "BW_UH2", "BW_UH3", "BW_UH4")
LIMITS = Limits(connect_s=2.0, silence_s=1.0)
BEFORE_NS = round(datetime(2010, 5, 27, 16, 24, tzinfo=UTC).timestamp()) * NS
ALL_BUT_THE_FIRST = range(2, 47)
"""ringserver gives the oldest packet of its ring to nobody."""
SELECTS = {"BW_UH1": "--SHZ", "BW_UH2": "--SHZ", "BW_UH3": "--SH?", "BW_UH4": "--EHZ"}


@pytest.fixture(scope="module")
def book() -> Book:
    return Book()


@pytest.fixture(params=["seedlink", "seedlink4"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Serve = Callable[..., RecordedServer]


@pytest.fixture
def serve(scheme: str, book: Book) -> Iterator[Serve]:
    """A recorded server that speaks the version 3 that was recorded; nothing else may be asked of it."""
    made: list[RecordedServer] = []

    def make(**changes: object) -> RecordedServer:
        made.append(RecordedServer(book, version_4=scheme == "seedlink", **changes))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for server in made:
        server.__exit__()
        assert server.unrecorded == []


Open = Callable[[RecordedServer], Connection]


@pytest.fixture
def opened(scheme: str) -> Iterator[Open]:
    """Greeted, and closed whatever comes."""
    made: list[Connection] = []

    def make(server: RecordedServer) -> Connection:
        made.append(connect(parse_address(url(scheme, server)), LIMITS))
        made[-1].open()
        return made[-1]

    yield make
    for connection in made:
        connection.close()


def url(scheme: str, server: RecordedServer) -> str:
    return f"{scheme}://127.0.0.1:{server.port}"


def take(source: SeedLinkSource, count: int) -> list[Packet]:
    """So many packets, and no more."""
    items: list[Packet | Refused | Subscribed] = []
    end_s = time.monotonic() + 5.0
    while len(items) < count and time.monotonic() < end_s:
        items += source.take(100, 0.2)
    items += source.take(100, 0.1)
    packets = [item for item in items if isinstance(item, Packet)]
    assert not [item for item in items if isinstance(item, Refused)]
    return packets


def numbers(packets: list[Packet]) -> list[int]:
    return [packet.cursor.sequence for packet in packets if packet.cursor]


@cache
def trace(record: bytes) -> obspy.Trace:
    (found,) = obspy.read(io.BytesIO(record), format="MSEED")
    return found


def start_ns(book: Book, number: int) -> int:
    return int(trace(book.records[number - 1]).stats.starttime.ns)


def until(true: Callable[[], object], what: Callable[[], object]) -> None:
    end_s = time.monotonic() + 5.0
    while not true():
        assert time.monotonic() < end_s, what()
        time.sleep(0.005)


def wait_for_error(source: SeedLinkSource, text: str) -> None:
    until(lambda: text in str(source.status()[0].last_error), source.status)


# -- the transcripts as bytes


def test_bytes_are_rebuilt_as_they_were_recorded(book: Book) -> None:
    known = {hashlib.sha256(record).hexdigest(): number for number, record in enumerate(book.records, 1)}
    exchanges = [e for sessions in book.sessions.values() for one in sessions for e in one["exchanges"]]
    assert len(exchanges) > 200
    for exchange in exchanges:
        assert RECORDER.described(book.wire(exchange["reply"]), known) == exchange["reply"], exchange["send"]


def test_what_the_peer_puts_together_is_what_ringserver_sent(book: Book) -> None:
    """Every transcript with STATION, but for selectors, wildcards and windows that no client of ours sends."""
    held = 0
    for session in (one for sessions in book.sessions.values() for one in sessions):
        exchanges = session["exchanges"]
        if not exchanges[0]["send"].startswith("STATION") or exchanges[-1]["send"] != "END\r\n":
            continue
        dialogue = Dialogue(book)
        try:
            answers = [dialogue.answer(exchange["send"].strip()) for exchange in exchanges]
        except Unrecorded:
            continue
        recorded = [[part for part in exchange["reply"] if part != "END"] for exchange in exchanges]
        assert answers == list(map(book.wire, recorded)), exchanges
        held += 1
    assert held == 27


# -- (a) listings


def text_of(reply: bytes) -> str:
    """The XML in the packets of an INFO answer."""
    packets = [reply[at : at + 520] for at in range(0, len(reply), 520)]
    assert [packet[:8] for packet in packets] == [b"SLINFO *"] * (len(packets) - 1) + [b"SLINFO  "]
    return b"".join(packet[64 : 64 + int.from_bytes(packet[38:40], "big")] for packet in packets).decode()


def test_greeting_says_how_it_counts(book: Book) -> None:
    greeting = book.replies["", "HELLO"].decode()
    assert greeting == f"SeedLink v{MARKS['@version@']}\r\nGolden\r\n"
    assert counts_for_all(greeting)
    assert counts_for_all(text_of(book.replies["", "INFO ID"]))


def test_recorded_streams(book: Book) -> None:
    listing = parse_xml(text_of(book.replies["", "INFO STREAMS"]), counts_for_all(book.replies["", "HELLO"].decode()))
    assert listing.shared
    assert row(listing) == (1, 46)
    assert tuple(station.name for station in listing.stations) == NAMES
    for station in listing.stations:
        own = [number for number in range(1, 47) if book.stream(number)[0] == station.station]
        assert (station.begin, station.end) == (own[0], own[-1] + 1)
        assert station.channels == {Channel("", *book.stream(number)[1]) for number in own}
        newest_ns = max(int(trace(book.records[number - 1]).stats.endtime.ns) for number in own)
        assert abs((station.newest_ns or 0) - newest_ns) <= 1_000


def test_recorded_stations_and_id(book: Book) -> None:
    with_streams = parse_xml(text_of(book.replies["", "INFO STREAMS"]), shared=True)
    without = parse_xml(text_of(book.replies["", "INFO STATIONS"]), shared=True)
    spans = [[(one.name, one.begin, one.end) for one in listing.stations] for listing in (with_streams, without)]
    assert spans[0] == spans[1]
    assert not any(station.channels for station in without.stations)
    assert parse_xml(text_of(book.replies["", "INFO ID"]), shared=True).stations == ()


def test_numbers_are_read_as_decimal_even_where_the_greeting_is_not_known(book: Book) -> None:
    listing = parse_xml(text_of(book.replies["", "INFO STREAMS"]), shared=False)
    assert [station.end for station in listing.stations] == [45, 46, 44, 47]


def test_listing_through_the_transport(serve: Serve, opened: Open, book: Book) -> None:
    connection = opened(serve())
    assert connection.listing() == parse_xml(text_of(book.replies["", "INFO STREAMS"]), shared=True)


# -- (b) data, end to end


def test_every_recorded_packet_once_with_its_samples(scheme: str, serve: Serve, start: Start, book: Book) -> None:
    server = serve()
    source = start(url(scheme, server), {(url(scheme, server), name): ResumePoint(None, BEFORE_NS) for name in NAMES})
    got = take(source, 45)
    assert numbers(got) == list(ALL_BUT_THE_FIRST)
    for packet, number in zip(got, ALL_BUT_THE_FIRST, strict=True):
        expected = trace(book.records[number - 1])
        station, channel = book.stream(number)
        rate = {"UH1": 50, "UH2": 50, "UH3": 50, "UH4": 100}[station]
        assert packet.cursor is not None
        assert (packet.cursor.server, packet.cursor.station) == (url(scheme, server), f"BW_{station}")
        assert packet.channel == f"FDSN:BW_{station}__{'_'.join(channel)}"
        assert (packet.start_ns, packet.rate, packet.size) == (expected.stats.starttime.ns, rate, 520)
        np.testing.assert_array_equal(packet.samples, expected.data)
    assert source.expected()["FDSN:BW_UH3__S_H"] == frozenset("ZNE")
    assert server.asked() == [commands("TIME 2010,5,27,16,24,0")]


def commands(action: str, names: tuple[str, ...] = NAMES) -> list[str]:
    """Of one negotiation in which all stations begin together."""
    return [
        line for name in names for line in (f"STATION {name.removeprefix('BW_')} BW", f"SELECT {SELECTS[name]}", action)
    ]


def test_resume_is_by_one_common_number_and_nothing_comes_twice(
    scheme: str, serve: Serve, start: Start, book: Book
) -> None:
    """Each station is decided up to another packet: all are asked for from the oldest on, and each gets what it lacks."""
    server, had = serve(), {"BW_UH1": 17, "BW_UH2": 22, "BW_UH3": 2, "BW_UH4": 12}
    points = {
        (url(scheme, server), name): ResumePoint(n, start_ns(book, n), start_ns(book, n)) for name, n in had.items()
    }
    wanted = [n for n in ALL_BUT_THE_FIRST if n > had[f"BW_{book.stream(n)[0]}"]]
    assert numbers(take(start(url(scheme, server), points), len(wanted))) == wanted
    assert server.asked() == [commands("DATA 000003 2010,5,27,16,24,3")]


def test_after_a_close_it_asks_for_the_number_after_the_last(
    scheme: str, serve: Serve, start: Start, book: Book
) -> None:
    """Ten packets, 2 to 11; then packet 12 is asked for, with the time of 11, as ringserver wants it."""
    server = serve(close_after=10)
    points = {(url(scheme, server), name): ResumePoint(None, BEFORE_NS) for name in NAMES}
    assert numbers(take(start(url(scheme, server), points), 45)) == list(ALL_BUT_THE_FIRST)
    assert server.asked() == [commands("TIME 2010,5,27,16,24,0"), commands("DATA 00000C 2010,5,27,16,24,10")]


def test_number_with_another_packet_s_time_goes_by_time(scheme: str, serve: Serve, start: Start, book: Book) -> None:
    """The ring began again: the number is there, but names another packet; ringserver holds the time against it."""
    server = serve()
    told_ns = round(datetime(2010, 5, 27, 16, 24, 30, tzinfo=UTC).timestamp()) * NS
    points = {(url(scheme, server), "BW_UH3"): ResumePoint(11, told_ns, told_ns)}
    got = take(start(url(scheme, server), points, select=("BW.UH3",)), 11)
    assert numbers(got) == [24, 26, 27, 31, 33, 34, 36, 40, 41, 42, 43]
    assert server.asked() == [commands("DATA 00000C 2010,5,27,16,24,30", ("BW_UH3",))]


def test_end_is_a_close_and_the_next_number_is_asked_for(scheme: str, serve: Serve, start: Start, book: Book) -> None:
    causes: list[tuple[EventKind, str]] = []
    server = serve(end=True)
    points = {(url(scheme, server), name): ResumePoint(None, BEFORE_NS) for name in NAMES}
    source = start(url(scheme, server), points, on_event=lambda kind, _, cause: causes.append((kind, cause)))
    assert numbers(take(source, 45)) == list(ALL_BUT_THE_FIRST)
    until(lambda: len(server.asked()) == 2, server.asked)
    assert (EventKind.LOST, Cause.CLOSED) in causes
    assert server.asked()[1] == commands("DATA 00002F 2010,5,27,16,24,43")


def test_nothing_new_is_no_error_and_keep_alives_are_no_data(
    scheme: str, serve: Serve, start: Start, book: Book
) -> None:
    server = serve()
    points = {(url(scheme, server), "BW_UH4"): ResumePoint(46, start_ns(book, 46), start_ns(book, 46))}
    source = start(url(scheme, server), points, select=("BW.UH4",), silence_s=1.0)
    until(lambda: server.sessions and server.sessions[-1].count("INFO ID") >= 2, source.status)
    assert take(source, 0) == []
    assert server.asked() == [commands("DATA 00002F 2010,5,27,16,24,43", ("BW_UH4",))]
    assert source.status()[0].last_error is None


# -- (c) refusals


def request(name: str, *selectors: str) -> Request:
    return Request(name, selectors, ())


def begun(connection: Connection, *requests: Request) -> None:
    """From packet 2 on."""
    connection.begin(requests, {one.station: Begin(Where.SEQUENCE, 1) for one in requests})


@contextmanager
def limited(connection: Connection) -> Iterator[None]:
    """Whatever hangs in it ends with Interrupted."""
    timer = threading.Timer(3.0, connection.interrupt)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def received(connection: Connection, count: int) -> list[int]:
    """The next packets; that nothing else comes is seen by the silence."""
    got: list[RawPacket] = []
    with limited(connection), pytest.raises(TransportError) as caught:
        got.extend(connection.packets())  # takes what comes before it is raised, too
    assert caught.value.cause in (Cause.SILENT, Cause.CLOSED), caught.value
    assert len(got) == count
    return [raw.sequence for raw in got]


def of(book: Book, *stations: str) -> list[int]:
    return [number for number in ALL_BUT_THE_FIRST if book.stream(number)[0] in stations]


def test_station_that_is_refused_is_skipped(
    serve: Serve, opened: Open, book: Book, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(end=True)
    connection = opened(server)
    begun(connection, request("BW_UH$"), request("BW_UH1"))
    assert received(connection, 7) == of(book, "UH1")
    assert "BW_UH$ is not accepted" in caplog.text
    assert server.asked() == [["STATION UH$ BW", "STATION UH1 BW", "DATA 000002"]]


def test_reason_of_a_refusal_is_shown(
    scheme: str, serve: Serve, opened: Open, book: Book, caplog: pytest.LogCaptureFixture
) -> None:
    """seedlink-client asks for reasons (CAPABILITIES EXTREPLY): they stand between ERROR and the end of the line."""
    connection = opened(serve(end=True, instead={"STATION UH1 BW": "FOO"}))
    begun(connection, request("BW_UH1"), request("BW_UH3"))
    assert received(connection, 22) == of(book, "UH3")
    assert ("Unrecognized command: FOO" in caplog.text) is (scheme == "seedlink4")
    assert "is not accepted" in caplog.text


def test_no_station_left_is_an_error(serve: Serve, opened: Open) -> None:
    connection = opened(serve())
    with pytest.raises(TransportError, match="negotiate: none of 1 stations is accepted"):
        begun(connection, request("BW_UH$"))


def test_station_that_nobody_has_gives_nothing_and_holds_nobody(serve: Serve, opened: Open, book: Book) -> None:
    connection = opened(serve(end=True))
    begun(connection, request("XX_NONE"), request("BW_UH1"))
    assert received(connection, 7) == of(book, "UH1")


def test_selector_that_is_refused_is_said_and_as_if_not_sent(
    serve: Serve, opened: Open, book: Book, caplog: pytest.LogCaptureFixture
) -> None:
    connection = opened(serve(end=True))
    begun(connection, request("BW_UH3", "SHZZ"))
    assert received(connection, 22) == of(book, "UH3")
    assert caplog.text.count("SHZZ") == 1
    assert "is not accepted" in caplog.text


def test_listing_asked_for_while_data_flow_ends_in_time(serve: Serve, opened: Open) -> None:
    """ringserver says nothing at all to that; the source asks on a connection of its own."""
    server = serve()
    connection = opened(server)
    connection.begin((request("BW_UH1"),), {"BW_UH1": Begin(Where.NOW)})
    with limited(connection), pytest.raises((TransportError, ListingError)):
        connection.listing()


REFUSED = {"INFO STREAMS": "FOO"}
"""``ERROR``, as ringserver says to a command that it does not know."""


def test_refused_listing_names_what_to_write(scheme: str, serve: Serve, start: Start) -> None:
    server = serve(instead=REFUSED)
    source = start(url(scheme, server))
    wait_for_error(source, "info: ")
    assert "does not list its streams (INFO STREAMS)" in str(source.status()[0].last_error)


def test_refused_listing_and_a_bad_station_leave_the_good_one(
    scheme: str, serve: Serve, start: Start, book: Book
) -> None:
    server = serve(instead=REFUSED)
    points = {(url(scheme, server), "BW_UH3"): ResumePoint(11, start_ns(book, 11), start_ns(book, 11))}
    source = start(url(scheme, server), points, select=("BW.UH$..SHZ", "BW.UH3..SH?"))
    wanted = [number for number in of(book, "UH3") if number > 11]
    assert numbers(take(source, len(wanted))) == wanted
    asked = [["STATION UH$ BW"], commands("DATA 00000C 2010,5,27,16,24,10", ("BW_UH3",))]
    assert server.asked() == [asked[0] + asked[1]]


def test_level_that_the_server_does_not_know_is_no_listing(
    scheme: str, serve: Serve, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """It is answered as ID, on channel ERR."""
    caplog.set_level(logging.INFO)
    server = serve(instead={"INFO STREAMS": "INFO NONSENSE"})
    wait_for_error(start(url(scheme, server)), "empty: none of 0 stations matches the selection")
    assert "connected" not in caplog.text.replace("connected to", "")
