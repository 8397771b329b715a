"""Files to records: the same samples, at the same times, in 512 bytes each."""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO
from pathlib import Path

import numpy as np
import obspy
import pymseed
import pytest
from obspy import Stream, Trace, UTCDateTime

from streamer.server import Record, RecordError, read
from streamer.server.records import pack

LIBMSEED_TOLERANCE_NS = 1_000
"""miniSEED 2 states times to the microsecond."""


def decoded(records: list[Record]) -> Stream:
    stream = obspy.read(BytesIO(b"".join(record.data for record in records)))
    return stream.merge(-1).sort()


def blockettes(data: bytes) -> list[int]:
    found, at = [], int.from_bytes(data[46:48], "big")
    while at:
        found.append(int.from_bytes(data[at : at + 2], "big"))
        at = int.from_bytes(data[at + 2 : at + 4], "big")
    return found


@pytest.mark.parametrize("fill", [1.0, 0.5, 0.25, 0.001])
def test_samples_and_times_survive(uh_files: list[Path], fill: float) -> None:
    records = read(uh_files[:1] + uh_files[-1:], fill)
    assert {len(record.data) for record in records} == {512}
    for trace, file in zip(decoded(records), (uh_files[0], uh_files[-1]), strict=True):
        (original,) = obspy.read(file)
        assert abs(trace.stats.starttime.ns - original.stats.starttime.ns) < LIBMSEED_TOLERANCE_NS
        assert trace.stats.sampling_rate == original.stats.sampling_rate
        np.testing.assert_array_equal(trace.data, original.data.astype(trace.data.dtype))


def test_the_headers_say_what_the_record_says(uh_records: list[Record]) -> None:
    for record in uh_records:
        header = pymseed.MS3Record.parse(record.data)
        assert header.sourceid == f"FDSN:{record.stream_id}"
        assert abs(header.starttime - record.start_ns) < LIBMSEED_TOLERANCE_NS
        assert abs(header.endtime - record.end_ns) < LIBMSEED_TOLERANCE_NS
        assert (header.samplecnt, header.samprate) == (record.samples, float(record.rate))
        assert 1000 in blockettes(record.data)
        assert record.data[6:7] == b"D"


def test_microseconds_have_their_blockette(uh_records: list[Record]) -> None:
    uneven = [r for r in uh_records if r.stream_id == "BW_UH1__S_H_Z"]
    assert uneven[0].start_ns == 1274977443_679998000
    assert all(blockettes(record.data) == [1000, 1001] for record in uneven)


def test_integers_are_steim_two_and_floats_are_floats(uh_records: list[Record]) -> None:
    encodings = {record.station: pymseed.MS3Record.parse(record.data).encoding for record in uh_records}
    assert encodings == {
        "UH1": pymseed.DataEncoding.STEIM2,
        "UH2": pymseed.DataEncoding.STEIM2,
        "UH3": pymseed.DataEncoding.STEIM2,
        "UH4": pymseed.DataEncoding.FLOAT32,
    }


def test_they_leave_when_their_last_sample_is_taken(uh_records: list[Record]) -> None:
    ends = [record.end_ns for record in uh_records]
    assert ends == sorted(ends)


def test_a_quarter_full_record_has_a_quarter_of_the_samples(uh_files: list[Path]) -> None:
    full, quarter = read(uh_files[:1]), read(uh_files[:1], 0.25)
    assert len(quarter) == pytest.approx(4 * len(full), rel=0.1)
    assert np.median([r.samples for r in quarter]) == pytest.approx(np.median([r.samples for r in full]) / 4, rel=0.15)


def made(data: np.ndarray, rate: float = 100.0) -> Trace:
    header = {"network": "XX", "station": "A", "location": "10", "channel": "HHZ", "sampling_rate": rate}
    return Trace(data, {**header, "starttime": UTCDateTime(2020, 1, 1)})


def test_differences_that_steim_cannot_hold_stay_whole() -> None:
    data = np.array([2**31 - 1, -(2**31), 0, 5] * 300, dtype=np.int32)
    records = list(pack(made(data)))
    assert pymseed.MS3Record.parse(records[0].data).encoding == pymseed.DataEncoding.INT32
    np.testing.assert_array_equal(decoded(records)[0].data, data)


@pytest.mark.parametrize("rate", [Fraction(1, 3), Fraction(125, 4), Fraction(200), Fraction(1, 10)])
def test_rates_are_stated_exactly(rate: Fraction) -> None:
    records = list(pack(made(np.arange(3000, dtype=np.int32), float(rate))))
    assert {record.rate for record in records} == {rate}
    assert {Fraction(pymseed.MS3Record.parse(r.data).samprate).limit_denominator(1000) for r in records} == {rate}
    step_ns = records[1].start_ns - records[0].end_ns
    assert step_ns == pytest.approx(1e9 / rate, abs=2)


def test_any_format_of_obspy(tmp_path: Path) -> None:
    trace = made(np.arange(1000, dtype=np.float32))
    trace.write(str(tmp_path / "a.sac"), format="SAC")
    (first, *_) = read([tmp_path / "a.sac"])
    assert (first.station_id, first.location, first.channel) == ("XX_A", "10", "HHZ")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (np.array([1, 2**40]), "32 bits"),
        (np.ma.masked_array(np.arange(3), [0, 1, 0]), "masked"),
        (np.array([1j]), "complex"),
    ],
)
def test_what_no_record_can_hold_is_refused(data: np.ndarray, complaint: str) -> None:
    with pytest.raises(RecordError, match=rf"x\.mseed.*{complaint}"):
        list(pack(made(data), 1.0, "x.mseed"))


def test_nothing_comes_of_no_samples() -> None:
    assert list(pack(made(np.array([], dtype=np.int32)))) == []


@pytest.mark.parametrize("fill", [0.0, -1.0, 1.5])
def test_a_record_is_not_empty_nor_more_than_full(fill: float) -> None:
    with pytest.raises(ValueError, match="fill"):
        list(pack(made(np.arange(3)), fill))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.mseed"
    bad.write_bytes(b"nothing seismic")
    with pytest.raises(RecordError, match=r"bad\.mseed"):
        read([bad])
    with pytest.raises(FileNotFoundError, match=r"missing\.mseed"):
        read([tmp_path / "missing.mseed"])
