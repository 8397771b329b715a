"""Processes that score: what they say comes out as their parent would say it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from made_scorer import SERVERS

from streamer import logs
from streamer.archive import END_NS
from streamer.config import resolve
from streamer.scan_piece import PieceScorer, Scored
from streamer.scan_plan import Piece
from streamer.scan_pool import Job, side_by_side


class Talkative:
    """Warns of each piece, and of what it is made of."""

    def __init__(self) -> None:
        logging.getLogger("streamer.made").warning("made")

    def score(self, piece: Piece, stopping: Callable[[], bool]) -> Scored:
        logging.getLogger("streamer.made").warning("piece %d", piece.first)
        logging.getLogger("streamer.made").info("not of interest")
        return Scored(piece.first, piece.last)


class TalkativeJob(Job):
    def scorer(self) -> PieceScorer:
        return Talkative()  # type: ignore[return-value]


@pytest.mark.parametrize("as_json", [True, False])
def test_a_warning_of_a_process_is_told_as_of_its_parent(capfd: pytest.CaptureFixture[str], as_json: bool) -> None:
    logs.set_up("WARNING", as_json)
    pieces = [Piece(n, n, (), {}, {}, frozenset()) for n in range(3)]
    job = TalkativeJob(resolve(SERVERS, Path("x")), 0, 0, END_NS)
    assert [piece.first for piece in side_by_side(job, pieces, 2, lambda: False)] == [0, 1, 2]
    lines = sorted(capfd.readouterr().err.splitlines())
    if as_json:
        assert sorted(json.loads(line)["message"] for line in lines) == ["piece 0", "piece 1", "piece 2"]
    else:
        assert [line.partition("Z ")[2] for line in lines] == [f"WARNING  streamer.made: piece {n}" for n in range(3)]
