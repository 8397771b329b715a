from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from made_packets import SUBJECT, noise, packet

from streamer.acknowledge import Acknowledgement
from streamer.grid import Grid
from streamer.source.resume import ResumePoint
from streamer.stages import NS, Cursor, Packet, Unscored, Window
from streamer.station import Policy, Station

SERVER, NAME = "seedlink://x:18000", "XX_ABC"
KEY = (SERVER, NAME)
GRID = Grid(20, 40, 10)
POLICY = Policy(max_wait_ns=2 * NS, ring_ns=20 * NS)


def cursor(sequence: int) -> Cursor:
    return Cursor(SERVER, NAME, sequence)


def test_the_point_is_the_end_of_the_contiguous_decided_run() -> None:
    ack = Acknowledgement(100 * NS)
    for n in range(5):
        ack.received(cursor(10 + n), SUBJECT, n * NS, (n + 1) * NS - 1)
    assert dict(ack.points(lambda _: 0)) == {KEY: ResumePoint(9, None, None)}
    assert dict(ack.points(lambda _: 3 * NS)) == {KEY: ResumePoint(12, 3 * NS, 2 * NS)}
    assert dict(ack.points(lambda _: 3 * NS)) == {}
    assert ack.waiting == 2
    assert dict(ack.points(lambda _: 99 * NS)) == {KEY: ResumePoint(14, 5 * NS - 1, 4 * NS)}


def test_an_undecided_packet_holds_back_those_after_it() -> None:
    ack = Acknowledgement(100 * NS)
    ack.received(cursor(1), "slow", 10 * NS, 11 * NS)
    ack.received(cursor(2), SUBJECT, 10 * NS, 11 * NS)
    ack.received(cursor(3), None)
    points = dict(ack.points({"slow": 5 * NS, SUBJECT: 50 * NS}.__getitem__))
    assert points == {KEY: ResumePoint(0, 10 * NS, None)}
    assert dict(ack.points(lambda _: 50 * NS)) == {KEY: ResumePoint(3, 11 * NS, None)}


def test_numbers_wrap() -> None:
    ack = Acknowledgement(100 * NS)
    ack.received(cursor(0), SUBJECT, NS, 2 * NS)
    assert dict(ack.points(lambda _: 0))[KEY].sequence == 2**24 - 1
    other = Acknowledgement(100 * NS)
    for sequence in (2**24 - 1, 0, 1):
        other.received(cursor(sequence), SUBJECT, NS, 2 * NS)
    assert dict(other.points(lambda _: 3 * NS))[KEY].sequence == 1


def test_numbers_of_the_fourth_protocol_are_not_cut_to_24_bits() -> None:
    ack = Acknowledgement(100 * NS)
    ack.received(cursor(2**40), SUBJECT, NS, 2 * NS)
    assert dict(ack.points(lambda _: 0))[KEY].sequence == 2**40 - 1


def test_memory_is_bounded_when_one_channel_dies() -> None:
    """Its last packet will never be decided; the station's other data go on for hours."""
    ack = Acknowledgement(180 * NS)
    ack.received(cursor(0), "dead", 0, NS)
    for n in range(1, 5000):
        ack.received(cursor(n), SUBJECT, n * NS, (n + 1) * NS)
        list(ack.points({"dead": 1, SUBJECT: (n - 20) * NS}.__getitem__))
        assert ack.waiting < 220


def test_a_wrong_time_stamp_gives_up_nothing() -> None:
    ack = Acknowledgement(180 * NS)
    ack.received(cursor(1), SUBJECT, 10 * NS, 11 * NS)
    ack.received(cursor(2), SUBJECT, 10_000 * NS, 10_001 * NS)
    assert dict(ack.points(lambda _: 5 * NS))[KEY].sequence == 0


class Chain:
    """What the pipeline does of it, window by window; `crash` is a restart from what was committed."""

    def __init__(self) -> None:
        self.windows: dict[int, object] = {}
        self.next_k: int | None = None
        self.point: ResumePoint | None = None
        self.restart()

    def restart(self) -> None:
        self.station = Station(SUBJECT, GRID, POLICY, expected=frozenset("ZN"), next_k=self.next_k)
        self.ack = Acknowledgement(POLICY.ring_ns)

    def take(self, one: Packet, lag: int) -> None:
        refused = self.station.insert(one, lambda *_: None)
        assert one.cursor is not None
        used = all(one is not other for other in refused)
        self.ack.received(one.cursor, SUBJECT if used else None, one.start_ns, one.end_ns)
        for item in self.station.cut():
            first, last = (item.first, item.last) if isinstance(item, Unscored) else (item.k, item.k)
            for k in range(first, last + 1):
                said = item.samples.tobytes() + item.components.encode() if isinstance(item, Window) else item.reason
                self.windows.setdefault(k, said)
            self.next_k = last + 1
        del lag

    def commit(self) -> None:
        for _, point in self.ack.points(lambda _: self.undecided_from()):
            self.point = point

    def undecided_from(self) -> int:
        return 0 if self.next_k is None else GRID.start_ns(self.next_k) - self.station.reach_ns


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 110), max_size=4), st.sampled_from([10, 20, 25]))
def test_reading_again_from_the_point_supplies_what_every_undecided_window_needs(
    seed: int, crashes: list[int], rate: int
) -> None:
    chance = random.Random(seed)
    packets = []
    for number, code in enumerate("ZN"):
        at, samples = 0, noise(60 * rate, number)
        while at < 60 * rate:
            size = chance.randint(3, 2 * rate)
            if chance.random() > 0.06:
                packets.append(packet(code, at, samples[at : at + size], rate, shift_ns=chance.randint(-9, 9) * 10**6))
            at += size
    packets.sort(key=lambda p: p.start_ns + chance.randint(0, 3 * NS // 2))
    packets = [replace(p, cursor=cursor((2**24 - 40 + n) % 2**24)) for n, p in enumerate(packets)]
    place = {p.cursor.sequence: n for n, p in enumerate(packets) if p.cursor}
    whole, broken = Chain(), Chain()
    for one in packets:
        whole.take(one, 0)
    done = 0
    for crash in [*sorted(crashes), None]:  # packets received before the next kill -9
        until = len(packets) if crash is None else min(max(done, crash), len(packets))
        for one in packets[done:until]:
            broken.take(one, 0)
            broken.commit()
        if crash is not None and broken.point is not None:
            assert broken.point.sequence is not None
            done = place.get(broken.point.sequence, -1) + 1
            broken.restart()
    assert broken.windows == whole.windows
    assert len(whole.windows) > 60


def test_a_packet_that_the_station_holds_is_asked_for_again() -> None:
    """A kill while records of an outage are made good, and the first of the present waits for its second."""
    chain, samples = Chain(), noise(20)
    chain.next_k = GRID.first_at_or_after(packet("Z", 0, samples, 20).start_ns)
    chain.restart()
    for n, at in enumerate([*range(10), 600, *range(10, 60)]):
        for code in "ZN":
            one = packet(code, at * 20, samples, 20)
            chain.take(replace(one, cursor=cursor(2 * n + (code == "N") + 1), received_ns=one.end_ns), 0)
    chain.commit()
    assert chain.undecided_from() > packet("Z", 50 * 20, samples, 20).start_ns
    assert chain.point is not None
    assert chain.point.sequence == 20


def test_the_oldest_undecided_sample_goes_with_the_point() -> None:
    ack, starts = Acknowledgement(100 * NS), defaultdict(int)
    for n, start in enumerate([30, 10, 20]):
        ack.received(cursor(n + 1), SUBJECT, start * NS, (start + 5) * NS)
        starts[start] += 1
    assert dict(ack.points(lambda _: 1)) == {KEY: ResumePoint(0, 10 * NS, None)}


def test_a_station_asked_for_has_a_point_before_its_first_packet() -> None:
    acknowledgement = Acknowledgement(180 * NS)
    acknowledgement.subscribed("server", "BW_UH1", 5 * NS)
    assert dict(acknowledgement.points(lambda _: 0)) == {("server", "BW_UH1"): ResumePoint(None, 5 * NS)}
    assert dict(acknowledgement.points(lambda _: 0)) == {}


def test_asking_again_does_not_move_a_point_that_packets_made() -> None:
    acknowledgement = Acknowledgement(180 * NS)
    assert acknowledgement.received(Cursor("server", "BW_UH1", 7), None)
    assert not acknowledgement.received(Cursor("server", "BW_UH1", 8), None)
    acknowledgement.subscribed("server", "BW_UH1", 5 * NS)
    points = dict(acknowledgement.points(lambda _: 0))
    assert points["server", "BW_UH1"].sequence == 8
