"""A model's operating points, from its file to what the programs say and do."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from daemon_harness import Place, wait_for

from quake.alerts import Alert
from streamer.composition import load_scorer, model_path
from streamer.config import load
from streamer.demo import recordings
from streamer.scan import read_packets, scan

POINTS = [
    {"name": "quiet", "on": 0.9999, "off": 0.5, "in_a_row": 30, "aim_an_hour": 0.1, "false_alarms": 0, "hours": 9.0},
    {"name": "standard", "on": 0.9, "off": 0.45, "in_a_row": 2, "aim_an_hour": 1.0, "false_alarms": 9, "hours": 9.0},
]
SAID = "operating point quiet: 0 false alarms an hour a station (95 % 0 to 0.41; 0 in 9 h, extrapolated)"


@pytest.fixture
def pointed(place: Place) -> Path:
    """The shipped detector with operating points of our own."""
    shipped, path = model_path(load(place.configure("seedlink://127.0.0.1:1"))), place.folder / "pointed.pt"
    changes = {"operating_points": POINTS, "hop_s": 1.0, "thresholds": {"on": 0.9, "off": 0.45}}
    with zipfile.ZipFile(shipped) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("quake.json"):
                content = json.dumps({**json.loads(content), **changes}).encode()
            new.writestr(name, content)
    return path


def configured(place: Place, model: Path, point: str) -> Path:
    top = f'[model]\npath = "{model.name}"\n[trigger]\noperating_point = "{point}"\n'
    return place.configure("seedlink://127.0.0.1:1", top=top)


def test_check_tells_the_point(place: Place, pointed: Path) -> None:
    command = [sys.executable, "-m", "streamer", "check", str(configured(place, pointed, "quiet"))]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert SAID in ended.stdout
    trigger = json.loads(ended.stdout[: ended.stdout.rindex("}") + 1])["trigger"]
    assert (trigger["operating_point"], trigger["on"], trigger["in_a_row"]) == ("quiet", 0.9999, 30)


def test_the_daemon_tells_the_point_when_it_starts(place: Place, pointed: Path) -> None:
    with place.start(configured(place, pointed, "quiet")) as life:
        wait_for("the daemon tells its operating point", lambda: SAID in life.text(), 90.0)


def test_a_scan_decides_by_the_point(place: Place, pointed: Path, undisturbed: list[Alert]) -> None:
    config = load(configured(place, pointed, "quiet"))
    assert undisturbed
    assert scan(config, load_scorer(config), read_packets(recordings(), 1_800_000_000_000_000_000)) == []
