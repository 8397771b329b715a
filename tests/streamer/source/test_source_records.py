"""records.py: every record becomes what it holds, or says why not; nothing that comes off a wire raises."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pymseed
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.server import Record
from streamer.source.records import decode, exact_rate, station_of
from streamer.stages import Cursor, Packet, Refused, Unused

CURSOR = Cursor("seedlink://test:18000", "BW_UH3", 7)
START_NS = 1_274_977_443_123_456_000


def made(samples: np.ndarray | bytes, kind: str, **fields: object) -> bytes:
    """One record with these samples."""
    record = pymseed.MS3Record()
    record.sourceid, record.reclen, record.formatversion = "FDSN:BW_UH3_00_S_H_Z", 512, 2
    record.starttime, record.samprate = START_NS, 100.0
    for name, value in fields.items():
        setattr(record, name, value)
    with record.with_datasamples(samples, kind):
        return bytes(next(iter(record.generate())))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("length", [256, 512, 4096])
@pytest.mark.parametrize(
    ("encoding", "kind", "dtype"),
    [
        (1, "i", np.int32),
        (3, "i", np.int32),
        (10, "i", np.int32),
        (11, "i", np.int32),
        (4, "f", np.float32),
        (5, "d", np.float32),
    ],
)
def test_round_trip(version: int, length: int, encoding: int, kind: str, dtype: type) -> None:
    values = np.cumsum(np.random.default_rng(1).integers(-90, 90, 20))
    data = values.astype({"i": np.int32, "f": np.float32, "d": np.float64}[kind])
    raw = made(data, kind, formatversion=version, reclen=length, encoding=encoding)
    packet = decode(raw, CURSOR, 5, len(raw) + 8)
    assert isinstance(packet, Packet)
    assert (packet.channel, packet.start_ns, packet.rate) == ("FDSN:BW_UH3_00_S_H_Z", START_NS, Fraction(100))
    assert (packet.subject, packet.component, packet.size) == ("FDSN:BW_UH3_00_S_H", "Z", len(raw) + 8)
    assert packet.samples.dtype == dtype
    assert packet.samples.tolist() == data[: len(packet.samples)].tolist()
    assert packet.samples.base is None, "a view would die with libmseed's record"


def test_real_records(records: list[Record]) -> None:
    packets = [decode(record.data, CURSOR, 0) for record in records]
    assert all(isinstance(packet, Packet) for packet in packets)
    assert [p.start_ns for p in packets if isinstance(p, Packet)] == [record.start_ns for record in records]
    assert [station_of(record.data) for record in records] == [record.station_id for record in records]


@given(st.binary(max_size=600))
def test_any_bytes(payload: bytes) -> None:
    assert isinstance(decode(payload, CURSOR, 0), Refused)


@given(st.data())
def test_damaged_records(records: list[Record], data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from(records)).data)
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, 511), st.integers(0, 255)), min_size=1, max_size=8)):
        raw[at] = value
    item = decode(bytes(raw[: data.draw(st.sampled_from([512, 512, 100, 64, 20]))]), CURSOR, 0)
    assert isinstance(item, Packet | Refused)
    if isinstance(item, Packet):
        assert len(item.samples) > 0
        assert item.rate > 0
        assert item.end_ns >= item.start_ns
    station_of(bytes(raw))


def test_damaged_samples_are_not_handed_on() -> None:
    raw = bytearray(made(np.cumsum(np.arange(300, dtype=np.int32) % 50), "i", encoding=11))
    raw[200] ^= 0x55
    item = decode(bytes(raw), CURSOR, 0)
    assert isinstance(item, Refused)
    assert item.reason is Unused.CORRUPT
    assert "BW_UH" in item.detail
    assert "2010-05-27" in item.detail


def test_what_is_refused() -> None:
    text = made(b"clock locked", "t", sourceid="FDSN:BW_UH3__L_O_G", encoding=0)
    item = decode(text, CURSOR, 0)
    assert isinstance(item, Refused)
    assert (item.reason, item.cursor) == (Unused.ENCODING, CURSOR)
    assert "FDSN:BW_UH3__L_O_G 2010-05-27T16:24:03.123456" in item.detail

    whole = bytearray(made(np.arange(20, dtype=np.int32), "i", encoding=11))
    for at, value, reason in [
        (30, b"\0\0", Unused.EMPTY),
        (32, b"\0\0\0\0", Unused.RATE),
        (52, b"\x63", Unused.ENCODING),
    ]:
        changed = whole[:at] + value + whole[at + len(value) :]
        refused = decode(bytes(changed), CURSOR, 0)
        assert isinstance(refused, Refused)
        assert refused.reason is reason, refused.detail

    cut = decode(bytes(whole[:300]), None, 0)
    assert isinstance(cut, Refused)
    assert (cut.reason, cut.size) == (Unused.CORRUPT, 300)
    assert cut.detail.startswith("BW_UH3_SHZ: ")


@pytest.mark.parametrize(
    ("raw", "rate"),
    [
        (100.0, Fraction(100)),
        (99.99, Fraction(9999, 100)),
        (float(np.float32(99.99)), Fraction(9999, 100)),
        (128.0, Fraction(128)),
        (200.0003, Fraction(2_000_003, 10_000)),
        (1.0004, Fraction(2501, 2500)),
        (1 / 3, Fraction(1, 3)),
        (float(np.float32(1 / 3)), Fraction(1, 3)),
        (0.1, Fraction(1, 10)),
        (-3.0, Fraction(1, 3)),
        (0.0, None),
        (float("nan"), None),
        (float("inf"), None),
        (1e-300, None),
    ],
)
def test_rate(raw: float, rate: Fraction | None) -> None:
    assert exact_rate(raw) == rate


def test_wild_double_becomes_infinite_without_a_warning() -> None:
    packet = decode(made(np.array([1.0, 1e300]), "d", encoding=5), None, 0)
    assert isinstance(packet, Packet)
    assert packet.samples.tolist() == [1.0, float("inf")]
