"""Who is at work on a state."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from streamer import process
from streamer.config import ConfigError
from streamer.process import alone


def test_a_second_one_is_refused(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(ConfigError, match=r"another process is at work there$"), alone(tmp_path):
        pytest.fail("both are at work")
    with alone(tmp_path):
        pass


def test_a_patient_one_waits_for_the_other_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_work, looked = threading.Event(), threading.Event()

    def be_at_work() -> None:
        with alone(tmp_path):
            at_work.set()
            assert looked.wait(30)

    thread = threading.Thread(target=be_at_work)
    thread.start()
    assert at_work.wait(30)
    monkeypatch.setattr(process.time, "sleep", lambda _: looked.set())
    with alone(tmp_path, patience_s=30.0):
        assert looked.is_set(), "it did not find the other one"
    thread.join()


def test_patience_ends(tmp_path: Path) -> None:
    with (
        alone(tmp_path),
        pytest.raises(ConfigError, match="another process is at work"),
        alone(tmp_path, patience_s=0.3),
    ):
        pytest.fail("both are at work")
