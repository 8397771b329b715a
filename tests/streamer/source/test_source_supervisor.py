"""rotation.py, buffer.py, supervisor.py: who is visited when, without sockets and without waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping

import pytest

from streamer.server import Record
from streamer.source import Cause, EventKind, ResumePoint, SeedLinkSource, SourceSettings
from streamer.source.address import Address
from streamer.source.buffer import Buffer
from streamer.source.listing import Channel, ListedStation, Listing, ListingError
from streamer.source.progress import Progress
from streamer.source.resume import V3_NUMBERS, Begin, Start
from streamer.source.rotation import Rotation
from streamer.source.selection import parse_pattern
from streamer.source.session import Choice, Visits
from streamer.source.supervisor import OLD_NS, Rules, Supervisor
from streamer.source.transport import Interrupted, Limits, RawPacket, Request, TransportError
from streamer.stages import Packet, Refused, Subscribed

# -- rotation


def rotation(addresses: int, random: float = 0.5) -> Rotation:
    return Rotation(addresses, (1.0, 30.0), lambda: random)


def test_pauses_double_up_to_the_longest() -> None:
    one = rotation(1)
    assert [one.lost(Cause.CONNECT, steady=False) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert one.lost(Cause.CLOSED, steady=True) == 1
    assert rotation(1, random=0.0).lost(Cause.CONNECT, steady=False) == 1.0
    assert rotation(1, random=0.99).lost(Cause.CONNECT, steady=False) == pytest.approx(1.49)
    for _ in range(2_000):
        assert one.lost(Cause.CONNECT, steady=False) <= 30.0


def test_a_server_that_is_away_is_asked_often_and_one_that_says_no_seldom() -> None:
    """Whoever comes back after an hour is found within the longest pause."""
    settings = SourceSettings(("seedlink://x",), ("BW.UH*",))
    away, no = (Rotation(1, settings.backoff_s, lambda: 0.99) for _ in range(2))
    assert max(away.lost(Cause.CONNECT, steady=False) for _ in range(99)) <= 2.0
    assert max(no.lost(Cause.AUTH, steady=False) for _ in range(99)) == 30.0


def test_every_address_is_tried_before_a_pause() -> None:
    two = rotation(2)
    visited = []
    for _ in range(4):
        pause = two.lost(Cause.CONNECT, steady=False)
        visited.append((two.index, pause))
    assert visited == [(1, 0.0), (0, 1.0), (1, 0.0), (0, 2.0)]


def test_a_close_is_no_reason_to_leave_a_server_that_comes_back() -> None:
    two = rotation(2)
    assert two.lost(Cause.CLOSED, steady=True) == 1.0
    assert two.index == 0
    two.lost(Cause.CONNECT, steady=False)
    assert two.index == 1
    two.first()
    assert two.index == 0
    two.lost(Cause.SILENT, steady=True)
    assert two.index == 1


# -- buffer


def test_a_full_buffer_holds_the_sender_and_loses_nothing() -> None:
    buffer: Buffer[int] = Buffer(3)
    sent = threading.Thread(target=lambda: [buffer.put(number) for number in range(50)])
    sent.start()
    time.sleep(0.05)
    assert len(buffer) == 3
    got: list[int] = []
    while len(got) < 50:
        got += buffer.take(2, 1.0)
    sent.join()
    assert got == list(range(50))
    assert buffer.take(1, 0.01) == []


def test_closing_wakes_both_sides_and_keeps_what_is_in() -> None:
    buffer: Buffer[int] = Buffer(1)
    buffer.put(1)
    refused: list[bool] = []
    sender = threading.Thread(target=lambda: refused.append(buffer.put(2)))
    sender.start()
    buffer.close()
    sender.join(1)
    assert refused == [False]
    assert buffer.take(9, 1.0) == [1]
    assert buffer.take(9, 60.0) == []


# -- supervisor, with a transport that is a script


class Server:
    """What all fake connections of one address share."""

    def __init__(self, records: list[Record], stations: tuple[str, ...] = ("UH1", "UH2", "UH3", "UH4")) -> None:
        self.records = records
        self.stations = stations
        self.faults: list[Exception] = []
        """Raised by the next connections, in this order."""
        self.cut: list[Exception] = []
        """Raised by the next ones instead of their first packet."""
        self.torn: list[int] = []
        """The next packets of these numbers come with garbage in their middle, and then nothing that is a packet."""
        self.newest_ns: int | None = None
        self.lists = True
        self.begins: list[dict[str, Begin]] = []
        self.open = 0
        self.lock = threading.Lock()

    def listing(self) -> Listing:
        channels = {
            name: {Channel("", *r.channel) for r in self.records if r.station == name} for name in self.stations
        }
        end = len(self.records)
        return Listing(
            False, tuple(ListedStation("BW", n, frozenset(c), 0, end, self.newest_ns) for n, c in channels.items())
        )


class FakeConnection:
    numbers = V3_NUMBERS

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stop = threading.Event()
        self._wanted: dict[str, Begin] = {}

    def open(self) -> str:
        with self._server.lock:
            self._server.open += 1
            if self._server.faults:
                raise self._server.faults.pop(0)
        return "SeedLink v3.1 (fake)"

    def listing(self) -> Listing:
        if not self._server.lists:
            raise ListingError("no")
        return self._server.listing()

    def begin(self, requests: tuple[Request, ...], begins: Mapping[str, Begin]) -> None:
        self._wanted = dict(begins)
        self._server.begins.append(self._wanted)

    def packets(self) -> Iterator[RawPacket]:
        """All records of the stations asked for, numbered as they lie, then silence."""
        if self._server.cut:
            raise self._server.cut.pop(0)
        for number, record in enumerate(self._server.records):
            begin = self._wanted.get(record.station_id)
            if begin is None or (begin.start is Start.SEQUENCE and number <= (begin.sequence or 0)):
                continue
            if self._stop.is_set():
                raise Interrupted
            if self._server.torn[:1] == [number]:
                self._server.torn.pop(0)
                yield RawPacket(number, None, record.data[:100] + 412 * b"\xff", 0, 520)
                raise TransportError(Cause.PROTOCOL, "no packet where one must begin")
            yield RawPacket(number, None, record.data, 0, 520)
        self._stop.wait()
        raise Interrupted

    def close(self) -> None:
        with self._server.lock:
            self._server.open -= 1

    def interrupt(self) -> None:
        self._stop.set()


class House:
    """One supervisor over fake servers; the pauses it makes are noted, not waited for."""

    def __init__(self, *servers: Server, refresh_s: float = 3600.0, failback_s: float = 3600.0) -> None:
        addresses = tuple(Address(f"server{number}", 1, "obspy") for number in range(len(servers)))  # type: ignore[arg-type]
        self.names = [address.server for address in addresses]
        by_host = {address.host: server for address, server in zip(addresses, servers, strict=True)}
        self.pauses: list[float] = []
        self.events: list[tuple[EventKind, str, str]] = []
        self.got: list[Packet | Refused] = []
        self.subscribed: list[Subscribed] = []
        self.supervisor = Supervisor(
            Rules(addresses, Choice((parse_pattern("BW.UH*..*"),), lambda _: True), refresh_s, failback_s, 0.0),
            rotation=Rotation(len(servers), (1.0, 30.0), lambda: 0.5),
            progress=Progress(tuple(self.names), lambda *_: None),
            deliver=self._deliver,
            on_event=lambda *event: self.events.append(event),
            visits=Visits(lambda address, _: FakeConnection(by_host[address.host]), Limits()),
            probes=Visits(lambda address, _: FakeConnection(by_host[address.host]), Limits()),
            pause=self._pause,
        )

    def _deliver(self, item: Packet | Refused | Subscribed) -> bool:
        if isinstance(item, Subscribed):
            self.subscribed.append(item)
        else:
            self.got.append(item)
        return True

    def _pause(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        return False


Houses = Callable[..., House]


@pytest.fixture
def house() -> Iterator[Houses]:
    made: list[House] = []

    def make(*servers: Server, **rules: float) -> House:
        made.append(House(*servers, **rules))
        made[-1].supervisor.start()
        return made[-1]

    yield make
    for one in made:
        one.supervisor.stop()
        assert one.supervisor.join(time.monotonic() + 2.0)


def eventually(condition: Callable[[], object], seconds: float = 5.0) -> None:
    end_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end_s, "it did not happen in time"
        time.sleep(0.005)


def refused() -> TransportError:
    return TransportError(Cause.CONNECT, "refused")


def test_it_backs_off_and_comes_back(records: list[Record], house: Houses) -> None:
    server = Server(records)
    server.faults = [refused(), refused(), refused(), ValueError("a fault of ours")]
    one = house(server)
    eventually(lambda: len(one.got) == len(records))
    assert one.pauses == [1, 2, 4, 8]
    name = one.names[0]
    assert one.events == [(EventKind.LOST, name, c) for c in ("connect", "connect", "connect", "internal")] + [
        (EventKind.CONNECTED, name, "")
    ]
    status = one.supervisor.status()
    assert (status.connected, status.last_error) == (name, "internal: ValueError('a fault of ours')")
    assert status.stations == ("BW_UH1", "BW_UH2", "BW_UH3", "BW_UH4")
    assert one.supervisor.expected()["FDSN:BW_UH3__S_H"] == frozenset("ZNE")


def test_from_now_on_is_said_once_and_never_asked_again(records: list[Record], house: Houses) -> None:
    """A connection that is lost before a station's first packet must not begin once more at "now"."""
    server = Server(records)
    server.cut = [TransportError(Cause.CLOSED, "before the first packet")]
    one = house(server)
    eventually(lambda: len(server.begins) == 2)
    assert [item.station for item in one.subscribed] == ["BW_UH1", "BW_UH2", "BW_UH3", "BW_UH4"]
    starts = [{begin.start for begin in begins.values()} for begins in server.begins]
    assert starts == [{Start.NOW}, {Start.SEQUENCE}]


def test_from_now_on_is_not_said_anew_to_the_second_server(records: list[Record], house: Houses) -> None:
    """What came between the two would be lost, though the second server has it."""
    first, second = Server(records), Server(records)
    first.newest_ns = second.newest_ns = records[0].start_ns
    first.cut = [TransportError(Cause.SILENT, "before the first packet")]
    house(first, second)
    eventually(lambda: second.begins)
    assert [{begin.start for begin in server.begins[0].values()} for server in (first, second)] == [
        {Start.NOW},
        {Start.TIME},
    ]


@pytest.mark.parametrize(("torn", "refused_"), [([30], 0), ([30, 30], 1)], ids=["once", "again"])
def test_a_record_torn_on_the_wire_is_asked_for_once_more(
    records: list[Record], house: Houses, torn: list[int], refused_: int
) -> None:
    """What cannot be read twice is the server's own: it is refused, and the rest goes on."""
    server = Server(records)
    server.torn = torn
    one = house(server)
    eventually(lambda: len(one.got) == len(records))
    assert sum(isinstance(item, Refused) for item in one.got) == refused_
    assert one.events.count((EventKind.LOST, one.names[0], "protocol")) == refused_ + 1


def test_fail_over_goes_on_by_time_and_fail_back_by_number(records: list[Record], house: Houses) -> None:
    first, second = Server(records[:80]), Server(records)
    first.faults = [refused()]
    one = house(first, second, failback_s=0.2)
    eventually(lambda: one.supervisor.status().connected == one.names[1])
    assert one.pauses == []
    eventually(lambda: one.supervisor.status().connected == one.names[0])
    assert (EventKind.RESTARTED, one.names[1], "failback") in one.events
    assert {begin.start for begin in first.begins[-1].values()} == {Start.TIME}


def test_a_first_server_that_answers_and_has_nothing_new_is_not_gone_back_to(
    records: list[Record], house: Houses, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    first, second = Server(records), Server(records)
    first.newest_ns = records[0].start_ns - OLD_NS
    first.cut = [TransportError(Cause.STALLED, "no data")]
    one = house(first, second, failback_s=0.05)
    eventually(lambda: caplog.text.count("has nothing new") > 1)
    assert one.supervisor.status().connected == one.names[1]
    assert len(first.begins) == 1
    first.newest_ns = records[-1].end_ns  # its feed is mended
    eventually(lambda: one.supervisor.status().connected == one.names[0])


def test_a_first_server_that_does_not_say_how_old_its_data_are_is_tried_ever_less(
    records: list[Record], house: Houses
) -> None:
    first, second = Server(records), Server(records)
    first.cut = [TransportError(Cause.STALLED, "no data")] * 4
    one = house(first, second, failback_s=0.05)
    began_s, visits_s = time.monotonic(), list[float]()
    while len(visits_s) < 5:
        eventually(lambda: len(first.begins) > len(visits_s))
        visits_s.append(time.monotonic() - began_s)
    assert visits_s[4] - visits_s[3] >= 0.8  # 16 times as long
    eventually(lambda: one.supervisor.status().connected == one.names[0])


def test_new_station_is_added_and_the_others_resume_by_number(records: list[Record], house: Houses) -> None:
    server = Server(records, stations=("UH1", "UH2"))
    one = house(server, refresh_s=0.1)
    wanted = [record for record in records if record.station in {"UH1", "UH2"}]
    eventually(lambda: len(one.got) == len(wanted))
    time.sleep(0.25)
    assert len(server.begins) == 1, "nothing new, nothing done"
    server.stations = ("UH1", "UH3")  # UH2 has gone from the list: it is still asked for
    eventually(lambda: len(server.begins) == 2)
    assert (EventKind.RESTARTED, one.names[0], "stations") in one.events
    assert server.begins[1].keys() == {"BW_UH1", "BW_UH2", "BW_UH3"}
    assert server.begins[1]["BW_UH1"].start is Start.SEQUENCE
    assert server.begins[1]["BW_UH2"].start is Start.TIME
    assert server.begins[1]["BW_UH3"] == Begin(Start.NOW)
    wanted = [record for record in records if record.station in {"UH1", "UH2", "UH3"}]
    eventually(
        lambda: len({(item.channel, item.start_ns) for item in one.got if isinstance(item, Packet)}) == len(wanted)
    )


def test_server_without_list_needs_names(records: list[Record], house: Houses) -> None:
    server = Server(records)
    server.lists = False
    one = house(server)
    eventually(lambda: len(one.events) > 2)
    assert {cause for _, _, cause in one.events} == {"info"}
    assert "server0:1 does not list its streams" in str(one.supervisor.status().last_error)
    assert "BW.UH3..SH?" in str(one.supervisor.status().last_error)


def test_no_matching_station_is_said(house: Houses, records: list[Record]) -> None:
    one = house(Server(records, stations=()))
    eventually(lambda: one.events)
    assert one.events[0][2] == "empty"


def test_connections_are_closed(records: list[Record], house: Houses) -> None:
    server = Server(records)
    one = house(server)
    eventually(lambda: len(one.got) == len(records))
    one.supervisor.stop()
    assert one.supervisor.join(time.monotonic() + 2.0)
    assert server.open == 0


def test_settings_are_checked_before_anything_is_opened() -> None:
    with pytest.raises(ValueError, match="seedlink://HOST"):
        SeedLinkSource([SourceSettings(("localhost",), ("BW.UH*",))])
    with pytest.raises(ValueError, match=r"NET\.STA"):
        SeedLinkSource([SourceSettings(("seedlink://localhost",), ("UH1",))])


def test_resume_points_may_be_a_function() -> None:
    asked: list[tuple[str, str]] = []

    def stored(server: str, station: str) -> ResumePoint | None:
        asked.append((server, station))
        return None

    source = SeedLinkSource([SourceSettings(("seedlink://localhost",), ("BW.UH*",))], stored)
    assert asked == [], "only when a station is about to be asked for"
    source.stop()
    assert list(source.packets()) == []
