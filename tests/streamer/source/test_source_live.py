"""The whole source over loopback, with both transports, against the replay server."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable

import pytest

from streamer.server import Faults, Numbering, Record, ReplayServer
from streamer.source import EventKind, ResumePoint, SeedLinkSource, SourceSettings
from streamer.source.records import decode
from streamer.stages import Packet, Refused, Subscribed

SCHEMES = ("seedlink", "seedlink4")
NAMES = ("BW_UH1", "BW_UH2", "BW_UH3", "BW_UH4")
Start = Callable[..., SeedLinkSource]
Items = list[Packet | Refused]


def keys(items: Items) -> Counter[tuple[str, int, bytes]]:
    """What a packet is, down to its samples' bytes."""
    packets = [item for item in items if isinstance(item, Packet)]
    assert len(packets) == len(items)
    return Counter((packet.channel, packet.start_ns, packet.samples.tobytes()) for packet in packets)


def of(records: list[Record]) -> Counter[tuple[str, int, bytes]]:
    return keys([decode(record.data, None, 0) for record in records])


def url(scheme: str, server: ReplayServer) -> str:
    return f"{scheme}://127.0.0.1:{server.port}"


def from_start(address: str) -> dict[tuple[str, str], ResumePoint]:
    return {(address, name): ResumePoint(None, 0) for name in NAMES}


def records_of(source: SeedLinkSource, seconds: float) -> Items:
    return [item for item in source.take(500, seconds) if not isinstance(item, Subscribed)]


def collect(source: SeedLinkSource, count: int, seconds: float = 10.0) -> Items:
    """`count` items, and a moment more in which no other may come."""
    items: Items = []
    end_s = time.monotonic() + seconds
    while len(items) < count and time.monotonic() < end_s:
        items += records_of(source, 0.2)
    return items + records_of(source, 0.3)


class Events:
    """Notes what happened when."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, EventKind, str, str]] = []

    def __call__(self, kind: EventKind, server: str, cause: str) -> None:
        self.seen.append((time.monotonic(), kind, server, cause))

    def wait(self, kind: EventKind, cause: str = "", seconds: float = 5.0, count: int = 1) -> float:
        """When it happened for the `count`-th time."""
        end_s = time.monotonic() + seconds
        while True:
            found = [at_s for at_s, *event in list(self.seen) if event[0] is kind and event[2] == cause]
            if len(found) >= count:
                return found[count - 1]
            assert time.monotonic() < end_s, f"no {kind} {cause} in {self.seen}"
            time.sleep(0.005)


@pytest.fixture(params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_everything_once_and_byte_for_byte(scheme: str, records: list[Record], start: Start) -> None:
    with ReplayServer(records, speed=0) as server:
        source = start(url(scheme, server), from_start(url(scheme, server)))
        got = collect(source, len(records))
        assert keys(got) == of(records)
        assert source.expected()["FDSN:BW_UH3__S_H"] == frozenset("ZNE")
        cursors = [item.cursor for item in got if item.cursor]
        assert {cursor.server for cursor in cursors} == {url(scheme, server)}
        assert {cursor.station for cursor in cursors} == set(NAMES)
        assert {item.size for item in got} == {520}
        status = source.status()[0]
        assert status.connected == url(scheme, server)
        assert abs((status.last_packet_ns or 0) - time.time_ns()) < 10**10


def test_a_burst_meets_a_slow_reader_and_nothing_is_lost(scheme: str, records: list[Record], start: Start) -> None:
    many = records * 10
    with ReplayServer(many, speed=0) as server:
        source = start(url(scheme, server), from_start(url(scheme, server)), queue_packets=50)
        time.sleep(0.5)
        assert source.queued == 50
        got = collect(source, len(many))
    assert keys(got) == of(many)


def test_close_is_seen_at_once_and_resumed_exactly(scheme: str, records: list[Record], start: Start) -> None:
    events = Events()
    with ReplayServer(records, speed=0, faults=Faults(close_after=60, times=3)) as server:
        source = start(url(scheme, server), from_start(url(scheme, server)), on_event=events)
        got = collect(source, len(records))
        assert keys(got) == of(records), "0 lost, 0 twice"
        events.wait(EventKind.LOST, "closed", count=3)
        before_s = time.monotonic()
        server.disconnect()
        assert events.wait(EventKind.LOST, "closed", count=4) - before_s < 2.0


def test_half_a_packet_at_the_end_does_no_harm(scheme: str, records: list[Record], start: Start) -> None:
    with ReplayServer(records, speed=0, faults=Faults(truncate_after=33, times=2)) as server:
        source = start(url(scheme, server), from_start(url(scheme, server)))
        assert keys(collect(source, len(records))) == of(records)


def test_silence_is_noticed_and_resumed_exactly(scheme: str, records: list[Record], start: Start) -> None:
    events = Events()
    with ReplayServer(records, speed=0, faults=Faults(stall_after=50)) as server:
        source = start(url(scheme, server), from_start(url(scheme, server)), on_event=events, silence_s=1.0)
        got = collect(source, len(records))
        waited_s = events.wait(EventKind.LOST, "silent") - events.wait(EventKind.CONNECTED)
    assert 1.0 <= waited_s < 3.0
    assert keys(got) == of(records)


def test_quiet_server_that_answers_is_not_silent_but_stalled(scheme: str, records: list[Record], start: Start) -> None:
    events = Events()
    with ReplayServer(records[:20], speed=0) as server:
        start(url(scheme, server), on_event=events, silence_s=1.0, stall_s=2.0)
        waited_s = events.wait(EventKind.LOST, "stalled", seconds=8.0) - events.wait(EventKind.CONNECTED)
    assert waited_s >= 2.0
    assert not [event for event in events.seen if event[3] == "silent"]


def test_refused_connection_is_tried_again(scheme: str, records: list[Record], start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    address, events = f"{scheme}://127.0.0.1:{port}", Events()
    source = start(address, from_start(address), on_event=events)
    events.wait(EventKind.LOST, "connect", count=2)
    assert "refused" in str(source.status()[0].last_error)
    with ReplayServer(records, port=port, speed=0):
        assert keys(collect(source, len(records))) == of(records)


@pytest.mark.parametrize("capacity", [10, 4096])
def test_stop_in_the_middle_of_a_burst(scheme: str, records: list[Record], start: Start, capacity: int) -> None:
    """With a full queue the thread waits for room, with a large one it is reading."""
    with ReplayServer(records * 20, speed=0) as server:
        source = start(url(scheme, server), from_start(url(scheme, server)), queue_packets=capacity)
        assert source.take(5, 5.0)
        before_s = time.monotonic()
        source.stop()
        assert time.monotonic() - before_s < 1.0


def test_stop_while_nobody_answers(scheme: str, start: Start) -> None:
    """A listener that never accepts: the greeting does not come."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        source = start(f"{scheme}://127.0.0.1:{mute.getsockname()[1]}")
        time.sleep(0.3)
        before_s = time.monotonic()
        source.stop()
        assert time.monotonic() - before_s < 1.5


@pytest.mark.parametrize("begin", [1, 0xFFFFF0])
def test_next_life_resumes_from_what_was_decided(
    scheme: str, records: list[Record], start: Start, numbering: Numbering, begin: int
) -> None:
    """Each station was decided up to another packet, by each server's way of counting, and across the wrap."""
    with ReplayServer(records, speed=0, numbering=numbering, begin=begin) as server:
        address = url(scheme, server)
        first = start(address, from_start(address))
        got = [item for item in collect(first, len(records)) if isinstance(item, Packet)]
        first.stop()
        points, wanted = {}, Counter[tuple[str, int, bytes]]()
        for number, name in enumerate(NAMES):
            own = [item for item in got if item.cursor and item.cursor.station == name]
            last = own[-1 - 9 * number]
            assert last.cursor is not None
            points[address, name] = ResumePoint(last.cursor.sequence, last.end_ns, last.start_ns)
            wanted += keys(list(own[len(own) - 9 * number :]))
        assert keys(collect(start(address, points), sum(wanted.values()))) == wanted


def test_ring_that_began_again_is_resumed_by_time(
    scheme: str, records: list[Record], start: Start, numbering: Numbering
) -> None:
    with ReplayServer(records, speed=0, numbering=numbering) as server:
        address, port = url(scheme, server), server.port
        source = start(address, from_start(address))
        got = collect(source, len(records))
    later = [
        Record(r.network, r.station, r.location, r.channel, *moved(r), r.rate, r.samples, later_data(r))
        for r in records
    ]
    with ReplayServer(later, port=port, speed=0, wait_clients=0, numbering=numbering):
        got += collect(source, len(later))
    assert keys(got) == of(records) + of(later)


@pytest.fixture(params=list(Numbering))
def numbering(request: pytest.FixtureRequest) -> Numbering:
    """Both ways of counting; the greeting says which."""
    return Numbering(request.param)


DAY_NS = 86_400 * 10**9


def moved(record: Record) -> tuple[int, int]:
    return record.start_ns + DAY_NS, record.end_ns + DAY_NS


def later_data(record: Record) -> bytes:
    """The same record a day later: the day of the year is at byte 22 of the header."""
    day = int.from_bytes(record.data[22:24], "big") + 1
    return record.data[:22] + day.to_bytes(2, "big") + record.data[24:]


def test_fail_over_to_another_server_by_time(scheme: str, records: list[Record], start: Start) -> None:
    """The second server counts otherwise, and holds what the first had sent, too."""
    events = Events()
    with (
        ReplayServer(records[:100], speed=0) as first,
        ReplayServer(records, speed=0, wait_clients=0, begin=9_999) as second,
    ):
        urls = (url(scheme, first), url(scheme, second))
        source = start(urls, from_start(urls[0]), on_event=events, silence_s=5.0)
        got = collect(source, 100)
        first.stop()
        while True:
            more = source.take(500, 1.0)
            if not more:
                break
            got += more
        assert source.status()[0].connected == urls[1]
    assert keys(got).keys() == of(records).keys(), "nothing lost"
    repeated = sum(keys(got).values()) - len(records)
    assert repeated <= len(NAMES) * 3, "a record for each channel at the seam"


def test_two_sources_share_one_queue(records: list[Record]) -> None:
    with ReplayServer(records, speed=0) as one, ReplayServer(records, speed=0) as two:
        settings = [
            SourceSettings((url("seedlink", one),), ("BW.UH1",)),
            SourceSettings((url("seedlink4", two),), ("BW.UH3..SH?",)),
        ]
        resume = from_start(url("seedlink", one)) | from_start(url("seedlink4", two))
        source = SeedLinkSource(settings, resume, wanted=lambda name: name != "BW_UH9")
        source.start()
        wanted = [record for record in records if record.station in {"UH1", "UH3"}]
        got = collect(source, len(wanted))
        source.stop()
    assert keys(got) == of(wanted)
    assert source.expected().keys() == {"FDSN:BW_UH1__S_H", "FDSN:BW_UH3__S_H"}


def test_packets_is_an_iterator_that_ends_when_stopped(records: list[Record], start: Start) -> None:
    with ReplayServer(records, speed=0) as server:
        source = start(url("seedlink", server), from_start(url("seedlink", server)))
        got: Items = []
        for item in source.packets():
            got.append(item)
            if len(got) == len(records):
                source.stop()
    assert keys(got) == of(records)


def test_damaged_record_is_refused_and_the_rest_goes_on(scheme: str, records: list[Record], start: Start) -> None:
    broken = [*records[:10], Record(*header(records[10]), b"\xff" * 512), *records[11:40]]
    with ReplayServer(broken, speed=0) as server:
        source = start(url(scheme, server), from_start(url(scheme, server)))
        got = collect(source, 40)
    refused = [item for item in got if isinstance(item, Refused)]
    assert [(item.reason.value, item.size) for item in refused] == [("corrupt", 520)]
    assert len(got) == 40


def header(record: Record) -> tuple[object, ...]:
    r = record
    return (r.network, r.station, r.location, r.channel, r.start_ns, r.end_ns, r.rate, r.samples)
