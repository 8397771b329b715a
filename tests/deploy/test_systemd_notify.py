"""The notifier's unit, held to what the daemon's is held to (`test_systemd`)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_systemd import analyse

UNIT = Path(__file__).resolve().parents[2] / "deploy" / "systemd" / "quake-notify.service"
EXPOSED = 2.0
"""Of ten; measured 1.4."""


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """With a program that is there: systemd looks."""
    made = tmp_path / UNIT.name
    made.write_text(UNIT.read_text().replace("/opt/quake/bin/quake-streamer", "/bin/true"))
    return made


def test_systemd_takes_it(unit: Path) -> None:
    ended = analyse("verify", str(unit))
    assert ended.returncode == 0
    assert unit.name not in ended.stderr


def test_it_is_exposed_to_little(unit: Path) -> None:
    ended = analyse("security", "--offline=yes", f"--threshold={EXPOSED * 10:.0f}", "--no-pager", str(unit))
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", ended.stdout)
    assert found, ended.stdout + ended.stderr
    assert float(found[1]) <= EXPOSED, ended.stdout


def test_a_wrong_configuration_is_not_tried_again_and_a_stop_is_waited_for() -> None:
    from streamer.notify.program import STOP_S

    text = UNIT.read_text()
    assert "RestartPreventExitStatus=2\n" in text
    assert "Type=notify\n" in text
    assert int(re.search(r"TimeoutStopSec=(\d+)", text)[1]) > STOP_S  # type: ignore[index]
