"""Recordings at random, window by window: pieces of an archive cut and score what one pass over all records does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from made_scan import in_pieces, one_pass, packets, record, require_same

import streamer.archive
import streamer.scan_plan
from quake.times import NS

SPAN_S = 5_000.0


def channel(chance: np.random.Generator, station: str, code: str, begin_s: float, end_s: float) -> Iterator[bytes]:
    """With outages, lone records in them, records of any length, repeats and overlaps that differ."""
    time_s = begin_s
    while time_s < end_s:
        for _ in range(chance.choice([1, 1, 2, 40, 200])):
            length_s = float(chance.choice([1.0, 4.0, 20.0], p=[0.1, 0.6, 0.3]))
            if time_s >= end_s:
                break
            one = record(chance, station, code, time_s, length_s)
            yield one
            if chance.random() < 0.01:
                yield one
            if chance.random() < 0.01:
                yield record(chance, station, code, time_s + 0.5 * length_s, length_s)
            time_s += length_s
        time_s += float(chance.choice([0.05, 3.0, 25.0, 100.0, 155.0, 300.0, 1000.0]))


def station(chance: np.random.Generator, name: str) -> Iterator[bytes]:
    """Renamed at some time, or late, or with a component that ends."""
    spans = [("Z", 0.0, SPAN_S)]
    if chance.random() < 0.7:
        renamed_s = float(chance.uniform(0, SPAN_S))
        first, second = chance.permutation(["12", "NE"]).tolist()
        spans += [(code, 0.0, renamed_s) for code in first] + [(code, renamed_s, SPAN_S) for code in second]
    if chance.random() < 0.3:
        spans[0] = ("Z", float(chance.uniform(0, SPAN_S)), SPAN_S)
    if chance.random() < 0.3:
        spans.append(("N", 0.0, float(chance.uniform(0, SPAN_S))))
    for code, begin_s, end_s in spans:
        yield from channel(chance, name, code, begin_s, end_s)


DIFFER = (
    "a station in tatters: a window about a piece's begin has another set of components; docs/how-to/scan.md says so"
)


@pytest.mark.parametrize(
    "seed",
    [
        4,
        pytest.param(0, marks=pytest.mark.drill),
        pytest.param(3, marks=pytest.mark.drill),
        *(pytest.param(seed, marks=[pytest.mark.drill, pytest.mark.xfail(reason=DIFFER)]) for seed in (1, 2)),
    ],
)
def test_any_recording_is_cut_in_pieces_as_in_one_pass(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(tmp_path, seed, monkeypatch)


def check(folder: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(seed)
    monkeypatch.setattr(streamer.scan_plan, "PIECE_NS", int(chance.integers(100, 900)) * NS)
    apart_s = int(chance.choice([3_000, 100_000]))
    monkeypatch.setattr(streamer.scan_plan, "AFTER_NS", apart_s * NS)
    monkeypatch.setattr(streamer.archive, "APART_NS", apart_s * NS)
    together = bool(chance.integers(2))
    for name in ("A", "B"):
        with (folder / ("all" if together else name)).open("ab") as file:
            file.writelines(station(chance, name))
    require_same(in_pieces(folder), one_pass(packets(folder)))
