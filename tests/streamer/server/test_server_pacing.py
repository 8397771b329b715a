"""Records leave by their own time, on an absolute schedule, and the server ends when it is told to."""

from __future__ import annotations

import itertools
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seedlink_peers import eventually, raw

from streamer.server import Record, ReplayServer, Sent
from streamer.server.faults import Release, plan
from streamer.server.pacing import Schedule

SPEED = 200.0
"""230 s of data in 1.15 s."""
LATE_S = 0.25
"""On a busy machine with two cores; the schedule's own error is a hundredth of that."""


class Log:
    def __init__(self) -> None:
        self.sent: list[Sent] = []

    def __call__(self, sent: Sent) -> None:
        self.sent.append(sent)


def test_packets_leave_on_an_absolute_schedule(uh_records: list[Record]) -> None:
    log = Log()
    with ReplayServer(uh_records, speed=SPEED, on_sent=log) as server, raw(server.port) as peer:
        peer.ask("DATA")
        peer.packets(len(uh_records))
        assert server.wait_sent(10)
    began_ns, first_ns = log.sent[0].sent_ns, uh_records[0].end_ns
    late_s = [(s.sent_ns - began_ns - (s.record.end_ns - first_ns) / SPEED) / 1e9 for s in log.sent]
    assert min(late_s) > -0.05
    assert max(late_s) < LATE_S
    assert abs(late_s[-1]) < LATE_S  # being late does not add up


def test_nothing_leaves_before_as_many_clients_as_wanted_have_asked(uh_records: list[Record]) -> None:
    with ReplayServer(uh_records, speed=0, wait_clients=2) as server, raw(server.port) as first:
        first.ask("DATA")
        assert first.quiet()
        with raw(server.port) as second:
            second.ask("HELLO")
            second.line(), second.line()
            assert first.quiet()
            second.ask("DATA")
            assert first.packet() == second.packet()


def test_unpaced_packets_wait_for_a_client_that_reads_slowly(uh_records: list[Record]) -> None:
    records = uh_records * 10
    with ReplayServer(records, speed=0, capacity=8) as server, raw(server.port) as peer:
        peer.ask("DATA")
        got = [peer.packet().data for _ in range(100)]
        assert not server.finished.is_set()
        got += [peer.packet().data for _ in range(len(records) - 100)]
        assert server.wait_sent(10)
        assert server.counters.overrun == 0
    assert got == [release.record.data for release in plan(records)]


def test_unpaced_packets_wait_while_nobody_is_there(uh_records: list[Record]) -> None:
    with ReplayServer(uh_records, speed=0, capacity=8) as server:
        with raw(server.port) as peer:
            peer.ask("SELECT EHZ", "DATA")
            peer.line()
            last = peer.packet()
        assert eventually(lambda: not server.server.clients)
        with raw(server.port) as peer:
            peer.ask("INFO ID")
            peer.exactly(520)
        assert last.sequence == 1


def test_paced_packets_wait_for_nobody(uh_records: list[Record]) -> None:
    with ReplayServer(uh_records, speed=1e6, wait_clients=0, capacity=10) as server:
        assert server.wait_sent(10)
        with raw(server.port) as peer:
            peer.ask("TIME 2010,01,01")
            newest = [peer.packet().data for _ in range(10)]
    assert newest == [record.data for record in uh_records[-10:]]


def test_it_ends_so_long_after_the_last_packet(uh_records: list[Record]) -> None:
    with ReplayServer(uh_records, speed=0, linger_s=0.05) as server:
        with raw(server.port) as peer:
            peer.ask("DATA")
            peer.packets(len(uh_records))
            assert peer.rest() == b""
        assert server.join(10)


def test_it_stops_with_clients_connected_and_leaves_no_thread(uh_records: list[Record]) -> None:
    server = ReplayServer(uh_records)
    with raw(server.port) as peer:
        peer.ask("DATA")
        peer.packet()
        server.stop()
        server.stop()
    assert "replay-server" not in {thread.name for thread in threading.enumerate()}


def test_a_port_that_is_taken_is_an_error(uh_records: list[Record]) -> None:
    with ReplayServer(uh_records) as server, pytest.raises(OSError, match=str(server.port)):
        ReplayServer(uh_records, port=server.port)


def test_what_fails_inside_is_not_hidden(uh_records: list[Record]) -> None:
    def fail(sent: Sent) -> None:
        raise ZeroDivisionError(sent.sequence)

    server = ReplayServer(uh_records, speed=0, on_sent=fail)
    with raw(server.port) as peer:
        peer.ask("DATA")
        assert server.join(10)
    with pytest.raises(ZeroDivisionError):
        server.stop()


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=50), st.floats(0.01, 1e6), st.floats(0, 1e6))
def test_the_schedule_is_absolute(at_ns: list[int], speed: float, began_s: float) -> None:
    releases = [Release(at, None) for at in sorted(at_ns)]  # type: ignore[arg-type]
    schedule = Schedule(releases, speed)
    assert schedule.due_s() is None
    schedule.begin(began_s)
    schedule.begin(began_s + 1)
    dues = []
    while (due_s := schedule.due_s()) is not None:
        dues.append(due_s)
        schedule.take()
    assert len(dues) == len(releases)
    assert dues[0] == began_s
    assert all(a <= b for a, b in itertools.pairwise(dues))
    expected_s = began_s + (releases[-1].at_ns - releases[0].at_ns) / 1e9 / speed
    assert dues[-1] == pytest.approx(expected_s)


def test_speed_is_not_negative(uh_records: list[Record]) -> None:
    with pytest.raises(ValueError, match="speed"):
        Schedule(plan(uh_records), -1.0)
