"""What is held, under which numbers, and where a request begins."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.server import Numbering, Record
from streamer.server.ring import Ring, spans
from streamer.server.selection import Request, StationRequest

NS = 1_000_000_000


def filled(
    records: list[Record], capacity: int = 10_000, begin: int = 1, numbering: Numbering = Numbering.STATION
) -> Ring:
    ring = Ring(capacity, begin, numbering)
    for record in records:
        ring.append(record)
    return ring


def sequences(ring: Ring, station: str) -> list[int]:
    return [held.sequence for held in ring if held.record.station_id == station]


def begins(ring: Ring, **request: object) -> int:
    wanted = StationRequest("BW_UH3")
    for name, value in request.items():
        setattr(wanted, name, value)
    (position,) = ring.positions(Request((wanted,)))
    return position


def test_each_station_counts_for_itself(uh_records: list[Record]) -> None:
    ring = filled(uh_records)
    for station in ("BW_UH1", "BW_UH2", "BW_UH3", "BW_UH4"):
        found = sequences(ring, station)
        assert found == list(range(1, len(found) + 1))


def test_or_the_server_counts_them_all(uh_records: list[Record]) -> None:
    assert [held.sequence for held in filled(uh_records, numbering=Numbering.SERVER)] == list(range(1, 369))


def test_numbers_wrap(uh_records: list[Record]) -> None:
    ring = filled(uh_records, begin=0xFFFFFE)
    assert sequences(ring, "BW_UH1")[:4] == [0xFFFFFE, 0xFFFFFF, 0, 1]
    record = next(h for h in ring if h.record.station_id == "BW_UH3" and h.sequence == 0)
    assert begins(ring, sequence=0) == record.index


def test_only_the_newest_are_held(uh_records: list[Record]) -> None:
    ring = filled(uh_records, capacity=10)
    assert [held.record for held in ring] == uh_records[-10:]
    assert ring.get(0) is None
    assert begins(ring, sequence=1) == ring.next_index


def test_a_number_that_is_not_held_falls_back_on_the_time(uh_records: list[Record]) -> None:
    ring = filled(uh_records)
    middle = next(held for held in ring if held.index > 150 and held.record.station == "UH3")
    assert begins(ring, sequence=0xABCDEF, begin_ns=middle.record.end_ns) == middle.index
    assert begins(ring, sequence=0xABCDEF) == ring.next_index


def test_a_number_whose_packet_starts_otherwise_is_not_trusted(uh_records: list[Record]) -> None:
    ring = filled(uh_records)
    uh3 = [held for held in ring if held.record.station == "UH3"]
    last, following = uh3[40], uh3[41]
    good_ns, bad_ns = last.record.start_ns, last.record.start_ns + 60 * NS
    assert begins(ring, sequence=following.sequence, last_start_ns=good_ns, begin_ns=good_ns) == following.index
    found = ring.get(begins(ring, sequence=following.sequence, last_start_ns=bad_ns, begin_ns=bad_ns))
    assert found is not None
    assert found.record.end_ns >= bad_ns


def test_on_one_numbering_for_all_the_newest_number_decides(uh_records: list[Record]) -> None:
    """As ringserver does: UH1, which is behind, loses what lies between."""
    ring = filled(uh_records, numbering=Numbering.SERVER)
    both = Request((StationRequest("BW_UH1", sequence=2), StationRequest("BW_UH4", sequence=100)))
    assert ring.positions(both) == [99, 99]


def test_a_ring_that_began_again_knows_no_old_number(uh_records: list[Record]) -> None:
    ring = filled(uh_records)
    ring.renumber(1)
    assert (len(ring), ring.first_index) == (0, ring.next_index)
    assert ring.append(uh_records[0]).sequence == 1


def test_spans_are_first_and_last(uh_records: list[Record]) -> None:
    found = spans(filled(uh_records), lambda record: record.stream_id)
    assert list(found) == sorted({record.stream_id for record in uh_records})
    assert all(span.first.index <= span.last.index for span in found.values())


@given(st.integers(1, 40), st.lists(st.integers(0, 3), max_size=120), st.integers(0, (1 << 24) - 1))
def test_every_packet_held_is_found_by_its_number(capacity: int, stations: list[int], begin: int) -> None:
    ring = Ring(capacity, begin)
    for number in stations:
        ring.append(replace(BLANK, station=f"S{number}"))
    assert len(ring) == min(capacity, len(stations))
    for held in ring:
        wanted = StationRequest(held.record.station_id, sequence=held.sequence)
        assert ring.positions(Request((wanted,))) == [held.index]


def test_a_ring_holds_at_least_one() -> None:
    with pytest.raises(ValueError, match="holds nothing"):
        Ring(0)


BLANK = Record("XX", "S", "", "SHZ", 0, 0, 1, 1, b"")  # type: ignore[arg-type]
