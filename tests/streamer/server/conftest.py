"""What the tests of the replay server share: real records, and servers that hold all of them."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import obspy
import pymseed
import pytest

from streamer.server import Record, ReplayServer, read

UH = Path(obspy.__file__).parent / "signal/tests/data"
GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="session")
def uh_files() -> list[Path]:
    """27 May 2010, four stations of BW, UH3 with three components."""
    return sorted(UH.glob("BW.UH?._.?H?.D.2010.147.cut.slist.gz"))


@pytest.fixture(scope="session")
def uh_records(uh_files: list[Path]) -> list[Record]:
    return read(uh_files)


@pytest.fixture(scope="session")
def golden_records() -> list[Record]:
    """The records that the recorded server held, in its order."""
    raw = (GOLDEN / "records.mseed").read_bytes()
    return [_record(raw[at : at + 512]) for at in range(0, len(raw), 512)]


def _record(data: bytes) -> Record:
    header = pymseed.MS3Record.parse(data)
    network, station, location, channel = pymseed.sourceid2nslc(header.sourceid)
    rate = Fraction(header.samprate).limit_denominator(1000)
    return Record(
        network, station, location, channel, header.starttime, header.endtime, rate, header.samplecnt, bytes(data)
    )


@pytest.fixture(scope="module")
def full(uh_records: list[Record]) -> Iterator[ReplayServer]:
    """A server that has released everything before the first client comes."""
    with ReplayServer(uh_records, speed=0, wait_clients=0) as server:
        assert server.wait_sent(10)
        yield server
