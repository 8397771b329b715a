"""Where a piece of an archive begins or ends among outages, lone records and renamed channels: as in one pass, window by window."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from made_archive import write_sds
from made_scan import BEGIN_NS, EVERY, GRID, Windows, in_pieces, one_pass, packets, record, require_same, scores_of

import streamer.file_source
import streamer.scan_plan
from quake.times import NS
from streamer.archive import find
from streamer.objects import cached_index
from streamer.scan_plan import plan
from streamer.server.records import read
from streamer.source import decode

CHANCE = np.random.default_rng(7)
PIECE_S = 1_000
EDGE_S = 5_200.0
"""A piece begins so long after the beginning."""
DAY_S = 86_400.0
NEXT_EDGE_S = DAY_S + 4_800.0


@pytest.fixture(autouse=True)
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamer.scan_plan, "PIECE_NS", PIECE_S * NS)


@pytest.fixture(params=["one file", "SDS"])
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def written(folder: Path, form: str, *channels: Iterator[bytes]) -> Path:
    file = folder / "records.mseed"
    file.write_bytes(b"".join(one for channel in channels for one in channel))
    return file if form == "one file" else write_sds(folder / "sds", read([file]))


def channel(code: str, begin_s: float, end_s: float, length_s: float = 5.0, station: str = "A") -> Iterator[bytes]:
    for time_s in np.arange(begin_s, end_s, length_s):
        yield record(CHANCE, station, code, float(time_s), length_s)


def kinds(wanted: Windows) -> set[tuple[str, bool]]:
    """Components and completeness of the windows that are scored."""
    return {what[:2] for what in wanted.values() if isinstance(what, tuple)}


def test_pieces_begin_where_these_tests_think() -> None:
    for time_s in (EDGE_S, NEXT_EDGE_S):
        assert (BEGIN_NS + round(time_s) * NS) % (PIECE_S * NS) == 0


@pytest.mark.parametrize("days", [0.02, 3])
def test_windows_before_an_outage_that_lack_a_component(tmp_path: Path, form: str, days: float) -> None:
    """They wait for it until data come again, and are scored without it then; where no data come, they never are."""
    first = (channel("Z", EDGE_S - 500, EDGE_S - 10), channel("N", EDGE_S - 500, EDGE_S - 100))
    path = written(tmp_path, form, *first, channel("Z", EDGE_S + days * DAY_S, EDGE_S + days * DAY_S + 200))
    wanted = one_pass(packets(path))
    assert kinds(wanted) >= {("ZN", True), ("Z", False)}
    require_same(in_pieces(path), wanted)


def test_one_record_far_from_all_others_where_a_piece_begins(tmp_path: Path, form: str) -> None:
    """The station's clock is not set by it, whatever the piece knows of the station."""
    spans = ((EDGE_S - 3_000, EDGE_S - 2_000, 5.0), (EDGE_S - 60, EDGE_S - 30, 30.0), (EDGE_S + 400, EDGE_S + 600, 5.0))
    path = written(tmp_path, form, *(channel("Z", *span) for span in spans))
    require_same(in_pieces(path), one_pass(packets(path)))


@pytest.mark.parametrize(("old", "new"), ["1N", "N1"])
def test_a_channel_that_was_renamed_before_an_outage(tmp_path: Path, form: str, old: str, new: str) -> None:
    """An outage lies over a piece's begin, on that day or the next: the new name is still the newer one after it."""
    spans = (
        (3_000.0, EDGE_S - 200),
        (EDGE_S + 50, EDGE_S + 200),
        (DAY_S, DAY_S + 100),
        (NEXT_EDGE_S + 50, NEXT_EDGE_S + 250),
    )
    path = written(
        tmp_path,
        form,
        *(channel(code, *span) for span in spans for code in "ZE"),
        channel(old, 3_000.0, 3_500.0),
        channel(new, 3_500.0, EDGE_S - 200),
        *(channel(new, *span) for span in spans[1:]),
    )
    wanted = one_pass(packets(path))
    assert ("ZNE", True) in kinds(wanted)
    require_same(in_pieces(path), wanted)


def test_a_channel_that_is_renamed_after_an_outage(tmp_path: Path, form: str) -> None:
    """The old name is the one that is waited for, up to then."""
    spans = ((3_000.0, EDGE_S - 200), (EDGE_S + 50, EDGE_S + 500))
    path = written(
        tmp_path,
        form,
        *(channel(code, *span) for span in spans for code in "Z1"),
        channel("N", EDGE_S + 500, EDGE_S + 900),
        channel("Z", EDGE_S + 500, EDGE_S + 900),
    )
    require_same(in_pieces(path), one_pass(packets(path)))


def test_a_channel_that_ended_before_the_span_is_not_waited_for(tmp_path: Path, form: str) -> None:
    path = written(tmp_path, form, channel("Z", 3_000, 7_000, 20.0), channel("N", 3_000, 4_000, 20.0))
    begin_ns = BEGIN_NS + 5_000 * NS
    wanted = one_pass(packets(path, begin_ns))
    assert {components for components, _ in kinds(wanted)} == {"Z"}
    require_same(in_pieces(path, begin_ns), wanted)


def test_a_station_that_falls_silent_does_not_make_others_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_from = Counter[bytes]()
    monkeypatch.setattr(
        streamer.file_source, "decode", lambda data, *more: (read_from.update([data]), decode(data, *more))[1]
    )
    living = channel("Z", 0, 30_000, 20.0)
    path = written(
        tmp_path, "one file", living, channel("Z", 0, 4_000, 20.0, "B"), channel("Z", 29_000, 30_000, 20.0, "B")
    )
    in_pieces(path)
    assert max(read_from.values()) <= 6


def test_one_record_of_another_century_costs_a_piece_of_its_own(tmp_path: Path) -> None:
    strays = [record(CHANCE, "A", "Z", time_s, 5.0) for time_s in (-1_577_000_000.0, 200_000_000.0)]
    path = written(tmp_path, "one file", channel("Z", 3_000, 4_000), iter(strays))
    assert len(list(plan(find([path])[0], GRID, EVERY.in_a_row))) <= 4
    require_same(in_pieces(path), one_pass(packets(path)))


def test_more_files_than_may_be_open(tmp_path: Path) -> None:
    cached_index.cache_clear()
    for n in range(150):
        (tmp_path / f"{n:03}").write_bytes(record(CHANCE, "A", "Z", 3_000 + 5.0 * n, 5.0))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (130, hard))
    try:
        parts, faults = find([tmp_path])
        found = in_pieces(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (len(parts), faults) == (150, [])
    assert len(scores_of(found)) > 140
