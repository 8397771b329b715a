"""resume.py and progress.py: nothing lost, nothing twice, held against a model of both kinds of servers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.server import Numbering, Record
from streamer.server.ring import Ring, spans
from streamer.server.selection import Request, StationRequest
from streamer.source.listing import Channel, ListedStation, Listing
from streamer.source.progress import Progress
from streamer.source.resume import (
    V3_NUMBERS,
    V4_NUMBERS,
    Begin,
    Had,
    Known,
    Plan,
    ResumePoint,
    Start,
    absolute,
    action_v3,
    action_v4,
    following,
    is_newer,
    plan,
)
from streamer.stages import NS, Cursor, Packet

T0_NS = 1_274_977_443 * NS
NOW_NS = T0_NS + 86_400 * NS
STEP_NS = 4 * NS
"""A record of the model holds four seconds."""


def decide(known: dict[str, Known], listing: Listing | None, shared: bool = False, numbers: int = V3_NUMBERS) -> Plan:
    return plan(known, listing, shared=shared, numbers=numbers, now_ns=NOW_NS, max_wait_ns=10 * NS)


def station(name: str, begin: int, end: int, newest_ns: int | None = None) -> ListedStation:
    return ListedStation(*name.split("_"), frozenset({Channel("", "S", "H", "Z")}), begin, end, newest_ns)


@given(st.integers(0, V3_NUMBERS - 1), st.integers(1, V3_NUMBERS // 2 - 1))
def test_numbers_lie_on_a_circle(sequence: int, ahead: int) -> None:
    later = (sequence + ahead) % V3_NUMBERS
    assert is_newer(later, sequence, V3_NUMBERS)
    assert not is_newer(sequence, later, V3_NUMBERS)
    assert not is_newer(sequence, sequence, V3_NUMBERS)


def test_commands() -> None:
    time_ns = T0_NS + 999_999_999
    assert following(0xFFFFFF, V3_NUMBERS) == 0
    assert action_v3(Begin(Start.SEQUENCE, 0xFFFFFF)) == "DATA 000000"
    assert action_v3(Begin(Start.SEQUENCE, 0x19, time_ns)) == "DATA 00001A 2010,5,27,16,24,3"
    assert action_v3(Begin(Start.TIME, time_ns=time_ns)) == "TIME 2010,5,27,16,24,3"
    assert action_v3(Begin(Start.NOW)) == action_v4(Begin(Start.NOW)) == "DATA"
    assert action_v4(Begin(Start.SEQUENCE, 0xFFFFFF, time_ns)) == "DATA 16777216"
    assert action_v4(Begin(Start.TIME, time_ns=time_ns)) == "DATA ALL 2010-05-27T16:24:03Z"
    assert action_v3(Begin(Start.TIME, time_ns=-5)) == "TIME 1970,1,1,0,0,0"


POINT = ResumePoint(100, T0_NS, T0_NS - STEP_NS)


@pytest.mark.parametrize(
    ("here", "elsewhere_ns", "begin", "end", "expected"),
    [
        (None, None, 1, 200, Begin(Start.NOW)),
        (POINT, None, 50, 200, Begin(Start.SEQUENCE, 100, T0_NS - STEP_NS)),
        (POINT, None, 101, 101, Begin(Start.SEQUENCE, 100, T0_NS - STEP_NS)),
        (POINT, None, 0xFFFF00, 200, Begin(Start.SEQUENCE, 100, T0_NS - STEP_NS)),
        (POINT, None, 102, 200, Begin(Start.TIME, time_ns=T0_NS - 10 * NS)),
        (POINT, None, 1, 20, Begin(Start.TIME, time_ns=T0_NS - 10 * NS)),
        (None, T0_NS, 1, 200, Begin(Start.TIME, time_ns=T0_NS - 10 * NS)),
        (None, NOW_NS + 60 * NS, 1, 200, Begin(Start.TIME, time_ns=NOW_NS)),
        (ResumePoint(500, None), None, 3, 20, Begin(Start.SEQUENCE, 2)),
        (ResumePoint(None, T0_NS), None, 3, 20, Begin(Start.TIME, time_ns=T0_NS - 10 * NS)),
        (ResumePoint(2**40, T0_NS), None, 3, 20, Begin(Start.TIME, time_ns=T0_NS - 10 * NS)),
    ],
)
def test_one_station(here: ResumePoint, elsewhere_ns: int, begin: int, end: int, expected: Begin) -> None:
    listing = Listing(False, (station("BW_UH1", begin, end),))
    assert decide({"BW_UH1": Known(here, elsewhere_ns)}, listing) == Plan({"BW_UH1": expected}, {})


def test_ring_that_has_the_number_but_older_data_is_another_ring() -> None:
    listing = Listing(False, (station("BW_UH1", 1, 200, newest_ns=T0_NS - 3600 * NS),))
    assert decide({"BW_UH1": Known(POINT)}, listing).begins["BW_UH1"].start is Start.TIME


def test_without_listing_the_server_is_believed() -> None:
    assert decide({"BW_UH1": Known(POINT)}, None).begins["BW_UH1"].sequence == 100
    two = {"BW_UH1": Known(POINT), "BW_UH2": Known(ResumePoint(90, None, 5)), "BW_UH3": Known(None)}
    begins = decide(two, None, shared=True).begins
    assert begins["BW_UH1"] == begins["BW_UH2"] == Begin(Start.SEQUENCE, 90, 5)
    assert begins["BW_UH3"].start is Start.NOW
    two["BW_UH3"] = Known(None, T0_NS)
    assert set(decide(two, None, shared=True).begins.values()) == {Begin(Start.TIME, time_ns=5)}


def test_dead_station_holds_nobody_back_on_a_server_with_one_row() -> None:
    listing = Listing(True, (station("BW_UH1", 10, 5_000), station("BW_UH2", 5, 21)))
    known = {"BW_UH1": Known(ResumePoint(4_990, 1, 2)), "BW_UH2": Known(ResumePoint(20, 3, 4))}
    assert set(decide(known, listing, shared=True).begins.values()) == {Begin(Start.SEQUENCE, 4_990, 2)}


def test_numbers_from_before_the_wrap_cannot_be_asked_for_in_one_row() -> None:
    listing = Listing(True, (station("BW_UH1", 2**24 - 50, 2**24 + 50),))
    assert absolute(0xFFFFF0, listing, V3_NUMBERS) == 0xFFFFF0
    assert absolute(5, listing, V3_NUMBERS) == 2**24 + 5
    assert absolute(60, listing, V3_NUMBERS) is None
    before = decide({"BW_UH1": Known(ResumePoint(0xFFFFF0, 1, T0_NS))}, listing, shared=True)
    assert before == Plan({"BW_UH1": Begin(Start.TIME, time_ns=T0_NS)}, {"BW_UH1": Had(0xFFFFF0, T0_NS + 1)})
    last = decide({"BW_UH1": Known(ResumePoint(0xFFFFFF, 1, T0_NS))}, listing, shared=True)
    assert last.begins["BW_UH1"] == Begin(Start.SEQUENCE, 0xFFFFFF, T0_NS)
    in_v4 = decide({"BW_UH1": Known(ResumePoint(0xFFFFF0, 1, T0_NS))}, listing, shared=True, numbers=V4_NUMBERS)
    assert in_v4.begins["BW_UH1"].start is Start.SEQUENCE


# -- the whole way, against the replay server's rings


def record(name: str, number: int) -> Record:
    start_ns = T0_NS + number * STEP_NS
    return Record("BW", name, "", "SHZ", start_ns, start_ns + STEP_NS - 1, Fraction(100), 400, b"")


def listing_of(ring: Ring) -> Listing:
    held = spans(ring, lambda one: one.station_id)
    shared = ring.numbering is Numbering.SERVER
    return Listing(shared, tuple(station(n, s.first.sequence, s.last.sequence + 1) for n, s in held.items()))


def served(ring: Ring, decided: Plan) -> list[tuple[str, int]]:
    """What the ring sends for this plan, and the source lets through, as (station, time)."""
    requests = [_request(name, begin) for name, begin in decided.begins.items()]
    positions = ring.positions(Request(tuple(requests)))
    sent = []
    for held in ring:
        name = held.record.station_id
        wanted = [at for at, request in zip(positions, requests, strict=True) if request.station == name]
        had = decided.had.get(name)
        if (
            wanted
            and held.index >= wanted[0]
            and (had is None or not had.covers(held.sequence, held.record.start_ns, V3_NUMBERS))
        ):
            sent.append((name, held.record.start_ns))
    return sent


def _request(name: str, begin: Begin) -> StationRequest:
    if begin.start is Start.SEQUENCE and begin.sequence is not None:
        number = following(begin.sequence, V3_NUMBERS)
        return StationRequest(name, sequence=number, last_start_ns=begin.time_ns, begin_ns=begin.time_ns)
    return StationRequest(name, begin_ns=begin.time_ns if begin.start is Start.TIME else None)


STATIONS = ("UH1", "UH2", "UH3")


@pytest.mark.parametrize("numbering", list(Numbering))
@given(
    order=st.lists(st.sampled_from(STATIONS), min_size=5, max_size=60),
    decided=st.tuples(*[st.integers(0, 20)] * 3),
    timed=st.booleans(),
)
def test_resume_is_exact(numbering: Numbering, order: list[str], decided: tuple[int, ...], timed: bool) -> None:
    """Each station was decided up to another packet; what follows comes once, whatever the server's way of counting."""
    ring = Ring(1_000, begin=7, numbering=numbering)
    sent = [ring.append(record(name, number)) for number, name in enumerate(order)]
    known, wanted = {}, []
    for name, count in zip(STATIONS, decided, strict=True):
        own = [held for held in sent if held.record.station == name]
        if not own:
            continue
        last = own[min(count, len(own) - 1)]
        known[f"BW_{name}"] = Known(
            ResumePoint(last.sequence, last.record.end_ns, last.record.start_ns if timed else None)
        )
        wanted += [(f"BW_{name}", held.record.start_ns) for held in own if held.index > last.index]
    got = served(ring, decide(known, listing_of(ring), shared=numbering is Numbering.SERVER))
    assert sorted(got) == sorted(wanted)


@pytest.mark.parametrize("numbering", list(Numbering))
@given(
    order=st.lists(st.sampled_from(STATIONS), min_size=12, max_size=60),
    cut=st.integers(3, 11),
    begin=st.integers(1, 99),
)
def test_ring_that_began_again_loses_nothing(numbering: Numbering, order: list[str], cut: int, begin: int) -> None:
    ring = Ring(1_000, begin=7, numbering=numbering)
    had = [ring.append(record(name, number)) for number, name in enumerate(order[:cut])]
    ends = {held.record.station_id: held for held in had}
    known = {
        name: Known(ResumePoint(held.sequence, held.record.end_ns + 1, held.record.start_ns))
        for name, held in ends.items()
    }
    ring.renumber(begin)
    after = [ring.append(record(name, cut + number)) for number, name in enumerate(order[cut:])]
    got = served(ring, decide(known, listing_of(ring), shared=numbering is Numbering.SERVER))
    missed = {(h.record.station_id, h.record.start_ns) for h in after if h.record.station_id in known} - set(got)
    assert not missed


# -- progress


def packet(channel: str, start_s: int, seconds: int = 4) -> Packet:
    samples = np.zeros(100 * seconds, np.int32)
    return Packet(channel, T0_NS + start_s * NS, Fraction(100), samples, None, 0, 520)


def test_progress_takes_over_from_what_was_stored() -> None:
    stored = {("a", "BW_UH1"): ResumePoint(5, 100, 50), ("b", "BW_UH1"): ResumePoint(9, 300, 250)}
    progress = Progress(("a", "b"), lambda server, name: stored.get((server, name)))
    assert progress.known("a", "BW_UH1") == Known(None, elsewhere_ns=300), "b has gone further"
    assert progress.known("b", "BW_UH1") == Known(ResumePoint(9, 300, 250), elsewhere_ns=300)
    assert progress.known("a", "BW_UH2") == Known(None)
    first = packet("FDSN:BW_UH1__S_H_Z", 0)
    progress.received(Cursor("a", "BW_UH1", 77), first)
    assert progress.known("a", "BW_UH1") == Known(ResumePoint(77, first.end_ns, first.start_ns))
    assert progress.known("b", "BW_UH1") == Known(None, elsewhere_ns=first.end_ns)
    progress.received(Cursor("a", "BW_UH1", 78), None)
    assert progress.known("a", "BW_UH1") == Known(ResumePoint(78, first.end_ns, None))


def test_progress_goes_back_to_the_component_that_is_behind_but_not_to_a_dead_one() -> None:
    progress = Progress(("a",), lambda *_: None)
    for number, (component, start_s) in enumerate([("E", 0), ("N", 700), ("Z", 710)]):
        progress.received(Cursor("a", "BW_UH3", number), packet(f"FDSN:BW_UH3__S_H_{component}", start_s))
    assert progress.known("b", "BW_UH3").elsewhere_ns == packet("", 700).end_ns


def test_one_row_moves_all_stations_on() -> None:
    progress = Progress(("a",), lambda *_: None)
    progress.received(Cursor("a", "BW_UH1", 10), packet("FDSN:BW_UH1__S_H_Z", 0))
    progress.received(Cursor("a", "BW_UH2", 12), packet("FDSN:BW_UH2__S_H_Z", 4))
    progress.passed(["BW_UH1", "BW_UH2", "BW_UH3"], Cursor("a", "BW_UH2", 12), T0_NS)
    points = [progress.known("a", name).here for name in ("BW_UH1", "BW_UH2", "BW_UH3")]
    assert [point.sequence for point in points if point] == [12, 12, 12]
