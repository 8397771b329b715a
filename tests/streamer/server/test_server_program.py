"""The command line: addresses, exit codes, one clear line for what is wrong, and the log of what was sent."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
from seedlink_peers import earthscope, raw

from streamer.server import program
from streamer.server.server import Options

RUN = """
import argparse, sys
from streamer.server import program
parser = argparse.ArgumentParser()
program.configure(parser)
sys.exit(program.run(parser.parse_args()))
"""


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    program.configure(parser)
    return parser.parse_args(list(arguments))


def started(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RUN, "--port", "0", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_serves_logs_and_ends(uh_files: list[Path], tmp_path: Path) -> None:
    log = tmp_path / "sent.jsonl"
    with started(uh_files[0], "--speed", "0", "--exit-at-end", "--log-sent", log) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("seedlink://127.0.0.1:")
        got = earthscope(int(address.rpartition(":")[2]), {"BW_UH1": "SHZ"}, 35)
        assert process.wait(20) == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["sequence"] for line in lines[:35]] == [packet.sequence for packet in got]
    assert lines[0] == {
        "station": "BW_UH1",
        "channel": "FDSN:BW_UH1__S_H_Z",
        "sequence": 1,
        "start_ns": 1274977443679998000,
        "end_ns": lines[0]["end_ns"],
        "sent_ns": lines[0]["sent_ns"],
    }


def test_a_signal_ends_it(uh_files: list[Path]) -> None:
    with started(uh_files[0]) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        with raw(port) as peer:
            peer.ask("DATA")
            peer.packet()
            process.terminate()
            assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["missing.mseed"], "missing.mseed"),
        (["pyproject.toml"], "pyproject.toml"),
        (["missing.mseed", "--fill", "2"], "--fill"),
        (["missing.mseed", "--speed", "-1"], "--speed"),
        (["missing.mseed", "--drop", "3"], "drop"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_two(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.run(parsed(*arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line


def test_a_port_that_is_taken_is_exit_code_one(uh_files: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert program.run(parsed(str(uh_files[0]), "--port", port)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert port in line


def test_every_option_arrives() -> None:
    arguments = (
        "a --port 1 --speed 2 --wait-clients 3 --linger 4 --capacity 5 --begin ff --numbering server --max-clients 6"
    )
    faults = "--seed 7 --drop .1 --duplicate .2 --corrupt .3 --shuffle-s 8 --delay-s 9 --delay-station BW_X"
    breaks = "--stall-after 10 --close-after 11 --truncate-after 12 --times 0 --refuse-s 13"
    options = program.options_of(parsed(*f"{arguments} {faults} {breaks}".split()))
    changed = {name for name in Options.__slots__ if getattr(options, name) != getattr(Options(), name)}
    assert changed == set(Options.__slots__) - {"host", "organisation"}
    assert (options.begin, options.numbering, options.linger_s) == (255, "server", 4.0)
    assert all(getattr(options.faults, name) != getattr(Options().faults, name) for name in options.faults.__slots__)


def test_the_defaults_are_those_of_the_server() -> None:
    assert program.options_of(parsed("a", "--port", "0")) == Options()
