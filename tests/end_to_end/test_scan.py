"""``quake-streamer scan`` as a program: an SDS archive of the demonstration's recording, stopped, gone on with, and wrong input."""

from __future__ import annotations

import csv
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from daemon_harness import Place, revisions
from fdsn_server import serving
from made_archive import write_sds

from quake.alerts import Alert
from streamer.cli import main
from streamer.server import Record

SMALL = 4096
SCAN = (sys.executable, "-m", "streamer", "scan")


@pytest.fixture
def archive(tmp_path: Path, demo_records: list[Record]) -> Path:
    return write_sds(tmp_path / "sds", demo_records)


@pytest.fixture
def config(place: Place) -> Path:
    return place.configure("seedlink://nowhere:1")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SCAN, *map(str, arguments)], capture_output=True, text=True, timeout=240, check=False)


def alerts(text: str) -> list[Alert]:
    return [Alert.model_validate_json(line) for line in text.splitlines()]


def test_an_archive_gives_what_the_daemon_gives(
    archive: Path, config: Path, scanned: list[Alert], tmp_path: Path
) -> None:
    """Stopped by Ctrl-C on the way; the same command then goes on, and what it writes holds all of it.

    A pipe that holds less than all alerts keeps the first scan from its end until it is stopped.
    """
    command = [
        archive,
        "--config",
        config,
        "--json",
        "--state",
        tmp_path / "scan",
        "--csv",
        tmp_path / "alerts.csv",
        "--processes",
        2,
    ]
    pipe = subprocess.PIPE
    with subprocess.Popen([*SCAN, *map(str, command)], stdout=pipe, stderr=pipe, text=True, pipesize=SMALL) as first:
        assert select.select([first.stdout], [], [], 120.0)[0], "no alert is told"
        first.send_signal(signal.SIGINT)
        lines, said = first.communicate(timeout=120)
    assert first.returncode == 1, said
    assert not (tmp_path / "alerts.csv").exists()
    assert "stopped; the same command goes on from here" in said
    second = run(*command)
    assert second.returncode == 0, second.stderr
    assert "station-days" in second.stderr
    assert revisions(alerts(lines + second.stdout)) == revisions(scanned)
    assert len(lines + second.stdout) > SMALL
    with (tmp_path / "alerts.csv").open(newline="") as file:
        assert {row["id"] for row in csv.DictReader(file)} == {alert.id for alert in scanned}
    other = run(archive, "--state", tmp_path / "scan")
    assert other.returncode == 2
    assert "--state: an earlier scan there was of other paths or times" in other.stderr


def test_a_service_of_the_configuration_s_stations_gives_what_the_daemon_gives(
    config: Path, demo_records: list[Record], scanned: list[Alert], tmp_path: Path
) -> None:
    """``*.*``: the station service says which there are."""
    with serving(demo_records) as server:
        span = ["--begin", "2010-05-27", "--end", "2010-05-28"]
        found = run(server.url, *span, "--config", config, "--json", "--state", tmp_path / "scan")
    assert found.returncode == 0, found.stderr
    assert revisions(alerts(found.stdout)) == revisions(scanned)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere.mseed"], "no such file: nowhere.mseed"),
        ([__file__], f"cannot read {__file__}: Unknown format"),
        ([Path(__file__).parent], "and"),
        ([], "PATH"),
        ([__file__, "--begin", "yesterday"], "no time as 2010-05-27T16:24:33: yesterday"),
        (["https://nowhere/", "--begin", "2010-05-27"], "https://nowhere/: needs --begin, --end, and --state FOLDER"),
        ([__file__, "--csv", "/nowhere/alerts.csv"], "--csv: no such folder: /nowhere"),
    ],
)
def test_wrong_input_is_told_in_a_line(arguments: list[object], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code: int | str | None = main(["scan", *map(str, arguments)])
    except SystemExit as ended:  # argparse's way
        code = ended.code
    assert code == 2
    assert told in capsys.readouterr().err


def test_time_without_recordings(archive: Path) -> None:
    found = run(archive, "--begin", "2011-01-01")
    assert (found.returncode, found.stderr) == (
        2,
        "quake-streamer: no recording in the paths given, or none of that time\n",
    )
