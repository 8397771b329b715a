"""What does not come round is ended; systemd hears of each state, and its absence costs nothing."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from streamer import systemd
from streamer.reload import Budget
from streamer.watchdog import Watchdog


def test_a_pipeline_that_does_not_come_round_ends_the_process(capfd: pytest.CaptureFixture[str]) -> None:
    ended = threading.Event()
    with Watchdog(0.2, ended.set) as dog:
        assert not ended.wait(0.6), "it had not begun"
        dog.tick()
        assert ended.wait(30.0)
    assert "Thread" in capfd.readouterr().err


def test_a_pipeline_that_comes_round_is_left_alone() -> None:
    ended, stop = threading.Event(), threading.Event()
    with Watchdog(5.0, ended.set) as dog:
        for _ in range(20):
            dog.tick()
            stop.wait(0.01)
    assert not ended.is_set()


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(5.0)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        systemd.notify("READY=1")
        assert sock.recv(100) == b"READY=1"
        Watchdog().tick()
        assert sock.recv(100) == b"WATCHDOG=1"


def test_nobody_to_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    systemd.notify("READY=1")


def test_the_budget_of_faults_is_of_the_last_minutes() -> None:
    now = [0.0]
    budget = Budget(2, 60.0, lambda: now[0])
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    now[0] = 61.0
    assert budget.spend()
    assert budget.left == (1, 60.0)
