"""What becomes of each window of a recording, in one pass over all records and in pieces of an archive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import obspy
from made_scorer import SERVERS, loud_scorer

from quake.times import NS
from streamer.archive import END_NS, find
from streamer.composition import policy
from streamer.config import resolve
from streamer.file_source import ArchiveSource
from streamer.grid import Grid
from streamer.inventory import Stations
from streamer.scan_merge import Merge
from streamer.scan_piece import PieceScorer
from streamer.scan_plan import plan
from streamer.server.records import pack
from streamer.stages import Packet, Score, Window
from streamer.station import Station
from streamer.trigger import Thresholds
from streamer.worker import Cut

NOW_NS = 1_800_000_000 * NS
BEGIN_NS = 1_577_836_800 * NS
GRID = Grid(100, 2080, 500)
"""A window every five seconds."""
EVERY = Thresholds(on=0.9, off=0.5, in_a_row=2, release=2, dead_k=15, longest_k=60)
CONFIG = resolve(SERVERS, Path("x"))

MOST = 100_000
"""Windows of an outage that are looked at: days."""

Known = tuple[str, bool, bytes] | str
"""Of a window: components, completeness and samples, or why there is no score."""
Windows = dict[tuple[str, int], Known]
"""By subject and number."""


def record(chance: np.random.Generator, station: str, code: str, time_s: float, length_s: float) -> bytes:
    """Noise at 20 Hz, so long after `BEGIN_NS`."""
    samples = chance.integers(-7, 8, round(length_s * 20)).astype(np.int32)  # half a minute of it fits a record
    header = {"network": "XX", "station": station, "channel": f"HH{code}", "sampling_rate": 20}
    start = obspy.UTCDateTime(ns=BEGIN_NS + round(time_s * NS))
    (made,) = pack(obspy.Trace(samples, {**header, "starttime": start}))
    return made.data


def packets(path: Path, begin_ns: int = 0) -> list[Packet]:
    source = ArchiveSource(find([path], begin_ns)[0], NOW_NS, begin_ns=begin_ns)
    return [item for item in source.take(10**6) if isinstance(item, Packet)]


def one_pass(items: Sequence[Packet]) -> Windows:
    expected: dict[str, frozenset[str]] = {}
    for item in items:
        expected[item.subject] = expected.get(item.subject, frozenset()) | {item.component}
    stations = {s: Station(s, GRID, policy(CONFIG), expected=codes) for s, codes in expected.items()}
    found: Windows = {}
    for item in items:
        stations[item.subject].insert(item, lambda *_: None)
        found |= known(stations[item.subject].cut())
    return found


def in_pieces(path: Path, begin_ns: int = 0) -> Windows:
    scorer = PieceScorer(CONFIG, loud_scorer(-1, 3.0, EVERY, GRID), Stations({}, {}), NOW_NS, begin_ns)
    merge, found = Merge({}), Windows()
    pieces = list(plan(find([path], begin_ns)[0], GRID, EVERY.in_a_row, begin_ns, END_NS))
    for first in sorted({piece.first for piece in pieces}):
        scored = [scorer.score(piece) for piece in pieces if piece.first == first]
        for items in merge.slices(one for one in scored if one is not None):
            found |= known(item.window if isinstance(item, Score) else item for item in items)  # type: ignore[misc]
    return found


def known(items: Iterable[Cut]) -> Windows:
    found: Windows = {}
    for item in items:
        if isinstance(item, Window):
            found[item.subject, item.k] = (item.components, item.complete, item.samples.tobytes())
        else:
            numbers = range(item.first, min(item.last, item.first + MOST) + 1)
            found |= {(item.subject, k): str(item.reason) for k in numbers}
    return found


def require_same(found: Windows, wanted: Windows) -> None:
    """The same windows scored, and between them the same reasons for others. What lies before the first is of no use."""
    assert scores_of(found) == scores_of(wanted)
    for subject in {subject for subject, _ in found}:
        numbers = sorted(k for s, k in scores_of(found) if s == subject)
        between = [(subject, k) for k in range(numbers[0], numbers[-1])] if numbers else []
        assert [found[key] for key in between] == [wanted[key] for key in between]


def scores_of(found: Windows) -> Windows:
    return {key: what for key, what in found.items() if not isinstance(what, str)}
