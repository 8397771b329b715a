"""Pickers of others on our records: what they say stands at the time that they say it of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.pickers import main, score
from quake.data.seisbench import DataError
from trainer.data.record import Record

WINDOW = 1000


class LoudIsP:
    """A picker for which P is the vertical's size."""

    samples = WINDOW

    def along(self, samples: NDArray[np.float32]) -> NDArray[np.float64]:
        answer = np.zeros((len(samples), 3, WINDOW))
        answer[:, 0] = samples[:, 0]
        return answer


def record(length: int) -> Record:
    samples = np.zeros((3, length), np.float32)
    samples[0, min(2345, length - 1)] = 0.5
    return Record("one", "source", "", samples, "earthquake", p=2345)


def test_a_pick_stands_at_its_time() -> None:
    table = score(LoudIsP(), record(4000))
    assert set(table["trace_name"]) == {"one"}
    assert len(table) == 4000 / 5
    said = table[table["score"] > 0]
    assert said["score"].to_list() == [0.5]
    assert said["time_s"].to_list() == pytest.approx([23.45], abs=0.05)
    assert np.diff(table["time_s"]) == pytest.approx(0.05)


def test_a_record_shorter_than_the_pickers_window_is_named() -> None:
    with pytest.raises(DataError, match="one: shorter than the picker's window of 10 s"):
        score(LoudIsP(), record(WINDOW - 1))


def test_what_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.toml"), "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert str(tmp_path) in capsys.readouterr().err
