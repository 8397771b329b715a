"""Archives: which files, which records in which order, and a scan that is stopped and goes on."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import obspy
import pytest
from made_archive import MIDNIGHT_NS, quarter_hour, write_sds
from made_scorer import SERVERS, loud_scorer
from pyarrow import parquet

import streamer.archive
import streamer.file_source
from quake.alerts import Alert, Mode
from quake.times import NS
from streamer.archive import find
from streamer.composition import Scorer
from streamer.config import Config, resolve
from streamer.file_source import ArchiveSource
from streamer.results import newest, write_csv, write_parquet, write_quakeml
from streamer.scan import scan
from streamer.scan_progress import Progress, make_bar
from streamer.server import Record
from streamer.source import decode
from streamer.stages import Packet
from streamer.trigger import Thresholds

NOW_NS = 1_800_000_000 * NS


@pytest.fixture(scope="module")
def config() -> Config:
    rules = {"coincidence": {"min_stations": 3, "window_s": 5.0, "hold_s": 30.0}, "mode": Mode.SCAN}
    return resolve({**SERVERS, **rules}, Path("x"))


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return loud_scorer(40, 3.0, Thresholds(on=0.9, off=0.5, in_a_row=2, release=2, dead_k=15, longest_k=60))


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return quarter_hour()


@pytest.fixture(scope="module")
def expected(config: Config, scorer: Scorer, records: list[Record]) -> list[Alert]:
    return scan(config, scorer, [decode(record.data, None, NOW_NS) for record in records])


def told(alerts: Sequence[Alert]) -> Counter[tuple[Any, ...]]:
    return Counter((a.kind, a.id, a.revision, a.status, a.onset, a.probability) for a in alerts)


def packets(source: ArchiveSource) -> list[Packet]:
    found: list[Packet] = []
    while items := source.take(100):
        found += [item for item in items if isinstance(item, Packet)]
    return found


def source_of(*paths: Path, **options: Any) -> ArchiveSource:
    parts, faults = find(paths)
    assert not faults
    return ArchiveSource(parts, NOW_NS, **options)


# -- files and records ------------------------------------------------------------------------------------------------


def test_records_come_in_the_order_of_time_whatever_their_order_in_the_file(
    tmp_path: Path, records: list[Record]
) -> None:
    file = tmp_path / "by_channel.mseed"
    file.write_bytes(b"".join(r.data for r in sorted(records, key=lambda r: r.stream_id)))
    found = packets(source_of(file))
    assert [(p.channel, p.start_ns) for p in found] == [(f"FDSN:{r.stream_id}", r.start_ns) for r in records]
    wanted = decode(records[5].data, None, NOW_NS)
    assert isinstance(wanted, Packet)
    np.testing.assert_array_equal(found[5].samples, wanted.samples)


def test_an_sds_archive_is_read_as_one_file(tmp_path: Path, records: list[Record]) -> None:
    source = source_of(write_sds(tmp_path, records))
    assert Counter((p.channel, p.start_ns) for p in packets(source)) == Counter(
        (f"FDSN:{r.stream_id}", r.start_ns) for r in records
    )


def test_a_file_is_opened_when_its_time_comes(
    tmp_path: Path, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real = streamer.file_source.cached_index
    monkeypatch.setattr(
        streamer.file_source, "cached_index", lambda path, size: (opened.append(path.name[-8:]), real(path, size))[1]
    )
    monkeypatch.setattr(streamer.archive, "SLACK_NS", 60 * NS)
    source = source_of(write_sds(tmp_path, records))
    assert opened == []
    source.take(1)
    assert Counter(opened) == {"2019.365": 6}
    packets(source)
    assert Counter(opened) == {"2019.365": 6, "2020.001": 6}


def test_only_the_span_that_was_asked_for(tmp_path: Path, records: list[Record]) -> None:
    folder = write_sds(tmp_path, records)
    begin_ns, end_ns = MIDNIGHT_NS + 100 * NS, MIDNIGHT_NS + 200 * NS
    parts, _ = find([folder], begin_ns, end_ns)
    assert {part.path.name[-8:] for part in parts} == {"2020.001"}
    source = ArchiveSource(parts, NOW_NS, begin_ns=begin_ns, end_ns=end_ns)
    assert len(packets(source)) == sum(r.end_ns >= begin_ns and r.start_ns < end_ns for r in records) > 0
    assert not source.earlier
    later = ArchiveSource(parts, NOW_NS, from_ns=begin_ns + 50 * NS, begin_ns=begin_ns, end_ns=end_ns)
    least = sum(r.end_ns >= begin_ns + 50 * NS and r.start_ns < end_ns for r in records)
    assert 0 < least < len(packets(later)) < least + 3 * 6  # one more record of each channel, or two
    assert later.earlier.keys() == {f"FDSN:XX_S0{n}__H_H" for n in range(4)}
    assert later.earlier["FDSN:XX_S00__H_H"].keys() == set("ZNE")


def test_what_is_no_record_is_passed_over_and_told(tmp_path: Path, records: list[Record]) -> None:
    file = tmp_path / "damaged.mseed"
    content = [r.data for r in records]
    content[3] = b"\xa5" * 512
    file.write_bytes(b"".join(content) + b"\0" * 100)
    source = source_of(file)
    assert len(packets(source)) == len(records) - 1
    assert source.faults == [
        f"{file}: 512 bytes from 1536 on hold no record",
        f"{file}: 100 bytes from {512 * len(records)} on hold no record",
    ]


@pytest.mark.parametrize("rest", [1, 47, 64, 511])
def test_a_file_that_was_cut_ends_with_its_last_whole_record(tmp_path: Path, records: list[Record], rest: int) -> None:
    file = tmp_path / "cut.mseed"
    file.write_bytes(records[0].data + records[1].data[:rest])
    assert len(packets(source_of(file))) == 1


def test_files_that_only_obspy_reads(tmp_path: Path, records: list[Record]) -> None:
    stream = obspy.Stream(
        [obspy.Trace(np.arange(1000, dtype=np.int32), {"network": "XX", "station": "A", "channel": "EHZ"})]
    )
    stream.write(str(tmp_path / "a.sac"), format="SAC")
    assert sum(len(p.samples) for p in packets(source_of(tmp_path / "a.sac"))) == 1000


def test_what_cannot_be_read_is_named_and_the_rest_is_read(tmp_path: Path, records: list[Record]) -> None:
    (tmp_path / "readme.txt").write_text("no recording")
    (tmp_path / "empty.mseed").touch()
    (tmp_path / "good.mseed").write_bytes(b"".join(r.data for r in records))
    parts, faults = find([tmp_path])
    assert [part.path.name for part in parts] == ["good.mseed"]
    assert [fault.split(":")[0] for fault in faults] == [
        f"cannot read {tmp_path / 'empty.mseed'}",
        f"cannot read {tmp_path / 'readme.txt'}",
    ]
    with pytest.raises(FileNotFoundError, match="no such file"):
        find([tmp_path / "nowhere"])


def test_a_day_that_is_gone_by_its_time_does_not_end_the_scan(tmp_path: Path, records: list[Record]) -> None:
    folder = write_sds(tmp_path, records)
    source = source_of(folder)
    lost = next(folder.rglob("XX.S01*2019.365"))
    lost.unlink()
    assert len({p.channel for p in packets(source)}) == 6
    assert source.faults == [f"cannot read {lost}: No such file or directory"]


# -- results ----------------------------------------------------------------------------------------------------------


def test_tables_and_quakeml_hold_the_newest_revision_of_each(tmp_path: Path, expected: list[Alert]) -> None:
    alerts = newest(expected)
    assert len(alerts) == len({a.id for a in expected})
    assert all(a.revision == max(o.revision for o in expected if o.id == a.id) for a in alerts)
    write_csv(alerts, tmp_path / "a.csv")
    write_parquet(alerts, tmp_path / "a.parquet")
    write_quakeml(alerts, tmp_path / "a.xml")
    with (tmp_path / "a.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    rows = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert [line["id"] for line in lines] == [row["id"] for row in rows] == [a.id for a in alerts]
    assert [float(line["probability"]) for line in lines] == [row["probability"] for row in rows]
    assert [row["stations"] for row in rows] == [len(a.stations) for a in alerts]
    assert rows[0]["onset"] == "2019-12-31T23:55:49.840000Z"
    events = obspy.read_events(str(tmp_path / "a.xml"))
    assert [event.resource_id.id for event in events] == [f"smi:local/quake/{a.id}" for a in alerts]


def test_nothing_found_is_a_table_too(tmp_path: Path) -> None:
    write_csv([], tmp_path / "a.csv")
    write_parquet([], tmp_path / "a.parquet")
    write_quakeml([], tmp_path / "a.xml")
    assert (tmp_path / "a.csv").read_text().startswith("id,kind,status")
    assert parquet.read_table(tmp_path / "a.parquet").num_rows == 0
    assert len(obspy.read_events(str(tmp_path / "a.xml"))) == 0


# -- what is told meanwhile -------------------------------------------------------------------------------------------


class Clock:
    now_s = 5.0

    def __call__(self) -> float:
        return self.now_s


def test_the_log_hears_how_far_it_is(expected: list[Alert], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "streamer.scan_progress")
    heard, clock = list[Alert](), Clock()
    with Progress(heard.append, clock_s=clock) as progress:
        progress.begin(pieces=4, hop_s=0.5)
        progress.committed(expected[:2])
        clock.now_s = 14.0
        progress.done(1728)
        assert not caplog.messages
        clock.now_s = 15.0
        progress.done(1728)
        progress.tick()
        progress.done(0)
        progress.done(1728)
    assert heard == expected[:2]
    assert caplog.messages == [
        "0.02 station-days, 173 times real time, 50 %, 0:00:10 left",
        "0.03 station-days, 259 times real time, 100 %, 0:00:00 left",
    ]


def test_a_terminal_sees_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert make_bar() is None
    screen, clock = Terminal(), Clock()
    monkeypatch.setattr("sys.stderr", screen)
    with Progress(lambda alert: None, make_bar(), clock) as progress:
        progress.begin(pieces=1, hop_s=1.0)
        clock.now_s = 7.0
        progress.done(3600)
    assert "0.04 station-days, 1800 times real time" in screen.getvalue()
