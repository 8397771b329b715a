"""What a newcomer sees first."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from quake.alerts import Alert, Kind, Status
from streamer import demo
from streamer.demo_report import judge

TOLD_S = 90.0
"""What the README promises."""


@pytest.fixture
def lines() -> list[str]:
    return []


def test_demo_finds_both_earthquakes_and_no_other(tmp_path: Path, lines: list[str]) -> None:
    begun_s = time.monotonic()
    assert demo.run(tmp_path, 12.0, lines.append) == 0, "\n".join(lines)
    assert time.monotonic() - begun_s < TOLD_S
    text = "\n".join(lines)
    assert "Both local earthquakes were found" in text
    assert "without a network: yes" in text
    assert (tmp_path / "demo.png").stat().st_size > 50_000
    assert "quake_windows_scored_total" in (tmp_path / "metrics.txt").read_text()


def _events(undisturbed: list[Alert]) -> list[Alert]:
    return [a for a in undisturbed if a.kind is Kind.EVENT and a.status is Status.OPEN]


def test_verdict_sees_a_missing_event(undisturbed: list[Alert]) -> None:
    assert judge(demo.EARTHQUAKES, undisturbed) == []
    assert len(judge(demo.EARTHQUAKES, _events(undisturbed)[1:])) == 1


def test_verdict_sees_a_second_event(undisturbed: list[Alert]) -> None:
    twin = _events(undisturbed)[0].model_copy(update={"id": "another"})
    assert len(judge(demo.EARTHQUAKES, [*undisturbed, twin])) == 1


def test_verdict_sees_an_event_elsewhere(undisturbed: list[Alert]) -> None:
    first = _events(undisturbed)[0]
    stray = first.model_copy(update={"id": "stray", "onset": first.onset + 54_000_000_000})
    assert len(judge(demo.EARTHQUAKES, [*undisturbed, stray])) == 1


def test_a_missing_recording_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: list[str]) -> None:
    monkeypatch.setattr(demo, "recordings", lambda: (_ for _ in ()).throw(demo.DemoError("no recording here")))
    assert demo.run(tmp_path, 12.0, lines.append) == 1
    assert "no recording here" in lines[-1]
