"""A new user's first commands, as processes: a server is found, a file is written, data flow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from streamer.demo import recordings

PROGRAM = (sys.executable, "-m", "streamer")


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.drill  # three programs, one with torch; test_init.py and test_flow.py say it in one process
def test_init_then_check_then_flow(tmp_path: Path) -> None:
    replay = [*PROGRAM, "replay", "--port", "0", "--speed", "20", *map(str, recordings())]
    with subprocess.Popen(replay, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        address = server.stdout.readline().strip()
        made = run("init", "--server", address.removeprefix("seedlink://"), "--station", "BW.UH3", folder=tmp_path)
        assert made.returncode == 0, made.stderr
        *command, _, seconds = made.stdout.splitlines()[-1].partition("quake-streamer ")[2].split()
        flows = run(*command, "--flow", seconds, folder=tmp_path)
        server.terminate()
    assert flows.returncode == 0, flows.stdout + flows.stderr
    lines = [line for line in flows.stdout.splitlines() if line.startswith(("ok", "FAULT"))]
    assert lines[0] == f"ok    {address}: connected, 1 station(s)"
    assert [line.split(":")[0] for line in lines[1:]] == [f"ok    BW.UH3..SH{code}" for code in "ENZ"]
    assert all(": 50 Hz, latency " in line for line in lines[1:])
