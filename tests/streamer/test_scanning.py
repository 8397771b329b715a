"""Scans in pieces: the alerts of one pass over all records, however an archive is cut, gapped, stopped and shared out."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import obspy
import pytest
from made_archive import MIDNIGHT_NS, quarter_hour, write_sds
from made_scorer import SERVERS, loud_scorer

import streamer.archive
import streamer.scan_piece
import streamer.scan_plan
from quake.alerts import Alert, Kind, Mode
from quake.times import NS
from streamer.archive import find
from streamer.composition import Scorer
from streamer.config import Config, resolve
from streamer.file_source import ArchiveSource
from streamer.grid import Grid
from streamer.inventory import Stations
from streamer.outbox import Outbox
from streamer.scan import scan
from streamer.scan_piece import PieceScorer
from streamer.scan_plan import Piece, plan
from streamer.scan_progress import Progress
from streamer.scan_work import Work
from streamer.server import Record
from streamer.source import decode
from streamer.stages import Packet, Score, Unscored
from streamer.trigger import Thresholds

NOW_NS = 1_800_000_000 * NS
GRID = Grid(100, 2080, 100)


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
    return one_pass(config, scorer, records)


@pytest.fixture(params=[111, 10_800])
def piece_s(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(streamer.scan_plan, "PIECE_NS", request.param * NS)
    return int(request.param)


def one_pass(config: Config, scorer: Scorer, records: Sequence[Record]) -> list[Alert]:
    return scan(config, scorer, [decode(record.data, None, NOW_NS) for record in records])


def told(alerts: Sequence[Alert]) -> Counter[tuple[Any, ...]]:
    return Counter((a.kind, a.id, a.revision, a.status, a.onset, a.probability, a.complete) for a in alerts)


def write_files(folder: Path, records: Sequence[Record]) -> Path:
    """One for each station, whose names tell nothing."""
    folder.mkdir()
    for record in records:
        with (folder / f"{record.stream_id[:6]}.mseed").open("ab") as file:
            file.write(record.data)
    return folder


def scanned(
    config: Config, scorer: Scorer, path: Path, state: Path, stopping: Callable[[], bool] = lambda: False
) -> bool:
    """Whether it came to the end."""
    with Outbox(state) as outbox:
        work = Work(config, scorer, outbox, tuple(find([path])[0]), 0, streamer.archive.END_NS)
        return work.run(1, Progress(lambda alert: None), stopping)


def alerts_of(state: Path) -> list[Alert]:
    with Outbox(state) as outbox:
        return list(outbox.alerts())


def test_pieces_give_the_alerts_of_one_pass(
    tmp_path: Path, config: Config, scorer: Scorer, records: list[Record], expected: list[Alert], piece_s: int
) -> None:
    assert {a.kind for a in expected} == {Kind.DETECTION, Kind.EVENT}
    assert len({a.id for a in expected if a.kind is Kind.EVENT}) == 3  # the last of them has no time to settle
    folder = (write_sds if piece_s > 1000 else write_files)(tmp_path / "archive", records)
    assert scanned(config, scorer, folder, tmp_path / "state")
    assert told(alerts_of(tmp_path / "state")) == told(expected)


@pytest.mark.parametrize("seed", range(3))
def test_pieces_of_a_poor_recording(
    tmp_path: Path, config: Config, scorer: Scorer, records: list[Record], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outages of a station or a component, repeats, and detections that are open where a piece ends; one file for all
    stations or one for each."""
    chance = np.random.default_rng(seed)
    config = with_patience(config)
    monkeypatch.setattr(streamer.scan_plan, "PIECE_NS", int(chance.integers(100, 300)) * NS)
    out = outages(chance, records)
    poor = [r for r in records if not is_out(r, out)]
    poor += [records[n] for n in chance.integers(0, len(records), 20)]
    poor.sort(key=lambda r: (r.end_ns, r.stream_id, r.start_ns))
    if seed % 2:
        path = write_files(tmp_path / "archive", poor)
    else:
        path = tmp_path / "all.mseed"
        path.write_bytes(b"".join(r.data for r in poor))
    assert scanned(config, scorer, path, tmp_path / "state")
    assert told(alerts_of(tmp_path / "state")) == told(one_pass(config, scorer, poor))


def with_patience(config: Config) -> Config:
    """Coincidence that waits for as long as outages and records of half a minute make a station late, as it is to be set for
    one order of decisions."""
    assert config.coincidence
    patient = config.coincidence.model_copy(update={"hold_s": 500.0, "flowing_s": 1000.0})
    return config.model_copy(update={"coincidence": patient})


def outages(chance: np.random.Generator, records: Sequence[Record]) -> dict[str, list[tuple[int, int]]]:
    """Of each channel, and of the station that has three: from when to when."""
    begin_ns, end_ns = records[0].start_ns, records[-1].end_ns
    found: dict[str, list[tuple[int, int]]] = {}
    for name in sorted({r.stream_id for r in records} | {"XX_S00"}):
        starts = chance.integers(begin_ns, end_ns, chance.integers(0, 4)).tolist()
        found[name] = [(start, start + int(chance.choice([3, 20, 90, 400])) * NS) for start in starts]
    return found


def is_out(record: Record, outages: dict[str, list[tuple[int, int]]]) -> bool:
    mine = [span for name, spans in outages.items() if record.stream_id.startswith(name) for span in spans]
    return any(record.start_ns < end and record.end_ns > start for start, end in mine)


def test_an_outage_is_of_the_piece_in_which_data_come_again(
    tmp_path: Path, config: Config, scorer: Scorer, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what has data before a piece does not begin in it."""
    monkeypatch.setattr(streamer.scan_plan, "PIECE_NS", 100 * NS)
    begin_ns = records[0].start_ns
    out_ns = begin_ns + 230 * NS, begin_ns + 560 * NS
    here = [r for r in records if r.stream_id.startswith("XX_S01")]
    folder = write_files(tmp_path / "archive", [r for r in here if not out_ns[0] < r.end_ns < out_ns[1]])
    scores = PieceScorer(config, scorer, Stations({}, {}), NOW_NS)
    found = [scores.score(piece) for piece in plan(find([folder])[0], scorer.grid, 2)]
    scored = [piece for piece in found if piece is not None]
    items = [piece.items for piece in scored]
    before, *within, after = items[2:6]
    assert not isinstance(items[0][0], Unscored)
    assert before[-1].k < scored[2].last
    assert within == [[], []]
    assert isinstance(after[0], Unscored)
    assert after[0].first == scored[5].first < after[0].last


def test_a_station_of_long_records_that_begins_at_a_piece_s_end(
    tmp_path: Path, config: Config, scorer: Scorer, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one file with others of short ones: its first record comes long after all else of the piece."""
    monkeypatch.setattr(streamer.scan_piece, "PACKETS", 2)
    monkeypatch.setattr(streamer.scan_plan, "PIECE_NS", 100 * NS)
    edge_ns = -(-records[0].start_ns // (100 * NS)) * 100 * NS + 200 * NS
    late = [r for r in records if r.stream_id.startswith("XX_S01") and r.start_ns > edge_ns - 40 * NS]
    short = [r for r in records if r.stream_id.startswith("XX_S02")]
    file = tmp_path / "both.mseed"
    file.write_bytes(in_records_of(late, 4096) + in_records_of(short, 256))
    parts, _ = find([file])
    items = ArchiveSource(parts, NOW_NS).take(10**6)
    assert max(i.end_ns - i.start_ns for i in items if isinstance(i, Packet)) > 100 * NS
    assert scanned(config, scorer, file, tmp_path / "state")
    alerts = scan(config, scorer, items)
    assert told(alerts_of(tmp_path / "state")) == told(alerts)
    assert [a.unused for a in alerts_of(tmp_path / "state")] == [a.unused for a in alerts]


def in_records_of(records: Sequence[Record], length: int) -> bytes:
    """The same samples, so many bytes a record."""
    content = io.BytesIO()
    stream = obspy.read(io.BytesIO(b"".join(r.data for r in records))).merge()
    stream.write(content, format="MSEED", reclen=length)
    return content.getvalue()


def test_an_archive_that_has_grown_is_gone_on_with(
    tmp_path: Path, config: Config, scorer: Scorer, records: list[Record], expected: list[Alert]
) -> None:
    folder, state = write_files(tmp_path / "archive", records[: len(records) // 2]), tmp_path / "state"
    assert scanned(config, scorer, folder, state)
    half = alerts_of(state)
    for record in records[len(records) // 2 :]:
        with (folder / f"{record.stream_id[:6]}.mseed").open("ab") as file:
            file.write(record.data)
    assert scanned(config, scorer, folder, state)
    detections = {alert.id for alert in expected if alert.kind is Kind.DETECTION}
    assert {alert.id for alert in half if alert.kind is Kind.DETECTION} < detections
    assert {alert.id for alert in alerts_of(state) if alert.kind is Kind.DETECTION} == detections


@pytest.mark.parametrize("looks", [4])
def test_a_scan_that_is_stopped_again_and_again_gives_the_same(
    tmp_path: Path,
    config: Config,
    scorer: Scorer,
    records: list[Record],
    expected: list[Alert],
    looks: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streamer.scan_plan, "PIECE_NS", 111 * NS)
    folder, state = write_files(tmp_path / "archive", records), tmp_path / "state"
    runs = 1
    while not scanned(config, scorer, folder, state, Later(looks * runs)):
        runs += 1
        assert runs < 60
    assert runs > 1
    assert told(alerts_of(state)) == told(expected)


def test_the_limit_of_a_minute_outlives_a_stop(
    tmp_path: Path, config: Config, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four stations open twice within a minute, before and after the stop."""
    monkeypatch.setattr(streamer.scan_plan, "PIECE_NS", 20 * NS)
    scorer = loud_scorer(40, 3.0, Thresholds(on=0.9, off=0.5, in_a_row=2, release=2, dead_k=5, longest_k=8))
    trigger = config.trigger.model_copy(update={"most_a_minute": 5})
    config = config.model_copy(update={"trigger": trigger, "coincidence": False})
    last = [r for r in records if r.start_ns > MIDNIGHT_NS + 300 * NS]
    folder, heard = write_files(tmp_path / "archive", last), list[Alert]()
    with Outbox(tmp_path / "state") as outbox:
        work = Work(config, scorer, outbox, tuple(find([folder])[0]), 0, streamer.archive.END_NS)
        assert not work.run(1, Progress(heard.append), lambda: bool(heard))
    before = sum(not alert.revision for alert in alerts_of(tmp_path / "state"))
    assert scanned(config, scorer, folder, tmp_path / "state")
    assert scanned(config, scorer, folder, tmp_path / "whole")
    opened = Counter(a.on_time // (60 * NS) for a in alerts_of(tmp_path / "whole") if not a.revision)
    assert 0 < before < max(opened.values()) == 5
    assert told(alerts_of(tmp_path / "state")) == told(alerts_of(tmp_path / "whole"))


def test_where_all_is_loud_few_samples_are_kept_and_onsets_are_the_same(
    tmp_path: Path, config: Config, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamer.scan_piece, "KEPT", 10)
    scorer = loud_scorer(-1, 3.0, Thresholds(on=0.9, off=0.5, in_a_row=2, release=2, dead_k=15, longest_k=60))
    records = [r for r in records if abs(r.start_ns - MIDNIGHT_NS) < 150 * NS]
    folder = write_files(tmp_path / "archive", records)
    scores = PieceScorer(config, scorer, Stations({}, {}), NOW_NS)
    scored = [scores.score(piece) for piece in plan(find([folder])[0], scorer.grid, 2)]
    kept = Counter(
        i.subject for piece in scored if piece for i in piece.items if isinstance(i, Score) and i.window.samples.size
    )
    assert set(kept.values()) <= {10, 20}  # in two pieces, about midnight
    assert scanned(config, scorer, folder, tmp_path / "state")
    assert told(alerts_of(tmp_path / "state")) == told(one_pass(config, scorer, records))


class Later:
    """Asks for a stop after so many looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def __call__(self) -> bool:
        self.looks -= 1
        return self.looks < 0


def test_what_was_decided_is_not_scored_again(
    tmp_path: Path, config: Config, scorer: Scorer, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamer.scan_plan, "PIECE_NS", 111 * NS)
    folder, state = write_files(tmp_path / "archive", records), tmp_path / "state"
    pieces: list[Piece] = []
    real = PieceScorer.score
    monkeypatch.setattr(
        PieceScorer, "score", lambda self, piece, stopping: (pieces.append(piece), real(self, piece, stopping))[1]
    )
    assert scanned(config, scorer, folder, state)
    first, pieces[:] = len(pieces), []
    assert first > 8
    assert scanned(config, scorer, folder, state)
    assert len({piece.first for piece in pieces}) == 1  # the one in which the data end: there may be more by now


def test_a_station_alone_is_a_group_and_one_file_keeps_its_stations_together(
    tmp_path: Path, records: list[Record]
) -> None:
    parts, _ = find([write_sds(tmp_path / "sds", records)])
    assert [len(piece.subjects) for piece in plan(parts, GRID, 2)] == [1] * len(list(plan(parts, GRID, 2)))
    (tmp_path / "all.mseed").write_bytes(
        b"".join(r.data for r in records if r.stream_id.startswith(("XX_S00", "XX_S01")))
    )
    (tmp_path / "two.mseed").write_bytes(
        b"".join(r.data for r in records if r.stream_id.startswith(("XX_S01", "XX_S02")))
    )
    joined, _ = find([tmp_path / "all.mseed", tmp_path / "two.mseed"])
    assert {piece.subjects for piece in plan(joined, GRID, 2)} == {frozenset(f"FDSN:XX_S0{n}__H_H" for n in range(3))}


@pytest.mark.parametrize("multiple", [1, 2, 5])
def test_pieces_follow_one_another_and_end_with_a_window_of_the_first_pass(
    tmp_path: Path, records: list[Record], multiple: int, piece_s: int
) -> None:
    file = tmp_path / "all.mseed"
    file.write_bytes(b"".join(r.data for r in records))
    pieces = list(plan(find([file])[0], GRID, multiple))
    assert all(before.last + 1 == after.first for before, after in pairwise(pieces))
    assert all(piece.last % multiple == multiple - 1 for piece in pieces)
    assert GRID.start_ns(pieces[0].first) <= records[0].start_ns
    assert GRID.end_ns(pieces[-1].last) >= records[-1].end_ns
