"""`quake-streamer check --flow`: real servers, and what is said of each that does not give what is asked for."""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import obspy
import pytest

from streamer import cli, flow
from streamer.config import Config, resolve
from streamer.grid import Grid
from streamer.server import Record, ReplayServer
from streamer.server.records import pack
from streamer.stages import NS

GRID = Grid(100, 2080, 100)


def records(name: str, rate: float = 100.0, ago_s: float = 60.0) -> list[Record]:
    """A minute of a channel, which began so long ago."""
    network, station, location, channel = name.split(".")
    header = {"network": network, "station": station, "location": location, "channel": channel, "sampling_rate": rate}
    start = obspy.UTCDateTime(ns=time.time_ns() - round(ago_s * NS))
    noise = np.random.default_rng(1).integers(-99, 99, round(60 * rate), dtype=np.int32)
    return list(pack(obspy.Trace(noise, {**header, "starttime": start})))


def config(address: str, *select: str) -> Config:
    return resolve({"source": [{"servers": [address], "select": list(select)}]}, Path("quake.toml"))


def faults(lines: list[flow.Line]) -> list[str]:
    return [text for is_right, text in lines if not is_right]


def test_what_flows_is_told_with_rate_and_latency() -> None:
    made = [
        *records("XX.ABC.00.HHZ", 200.0),
        *records("XX.ABC.00.HHN", 200.0),
        *records("XX.DEF..SHZ", 50.0, 86_400 * 2),
    ]
    with ReplayServer(made, speed=0) as server:
        lines = flow.check(config(server.address, "XX.*"), GRID, 20.0)
    assert faults(lines) == []
    told = [text for _, text in lines]
    assert told[0] == f"{server.address}: connected, 2 station(s)"
    assert re.fullmatch(r"XX\.ABC\.00\.HHN: 200 Hz, latency -?\d+\.\d s, \d+ packet\(s\)", told[1])
    assert re.fullmatch(r"XX\.DEF\.\.SHZ: 50 Hz, latency 1 day, \S+, \d+ packet\(s\)", told[3])


def test_what_does_not_come_is_told_with_what_the_server_has() -> None:
    with ReplayServer(records("XX.ABC..HHZ"), speed=0, wait_clients=0) as server:
        assert server.wait_sent(10)
        begun_s = time.monotonic()
        lines = flow.check(config(server.address, "XX.ABC", "XX.NEW"), GRID, 1.0)
    assert time.monotonic() - begun_s < 5
    wrong, silent = faults(lines)
    assert wrong == "XX.NEW: matches nothing that the server lists"
    assert re.match(r"XX\.ABC\.\.HHZ: nothing came within 1 s; the station's newest sample there is of 20", silent)


def test_packets_that_would_not_be_used() -> None:
    made = [*records("XX.ODD..HHZ", 1001 / 17), *records("XX.SOON..HHZ", ago_s=-600)]
    with ReplayServer(made, speed=0) as server:
        odd, soon = faults(flow.check(config(server.address, "XX.*"), GRID, 20.0))
    assert odd.startswith("XX.ODD..HHZ: not used, no resampling to 100 Hz: 58.8")
    assert soon.startswith("XX.SOON..HHZ: not used, ahead of this machine's clock by more than 60 s")


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("seedlink://127.0.0.1:1", "not connected: connect: 127.0.0.1:1: connection refused"),
        ("seedlink://nowhere.invalid", "not connected: connect: nowhere.invalid: "),
    ],
)
def test_a_server_that_is_not_there(address: str, told: str) -> None:
    (line,) = faults(flow.check(config(address, "XX.ABC"), GRID, 0.5))
    assert told in line


def test_a_selection_that_means_nothing() -> None:
    with ReplayServer(records("XX.ABC..HHZ")) as server:
        (line,) = faults(flow.check(config(server.address, "XX.NEW"), GRID, 0.5))
    assert "not connected: empty: none of 1 stations matches the selection" in line


def test_what_the_verb_prints_and_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    asked = argparse.Namespace(flow=10.0, log_level="info")
    watch = SimpleNamespace(scorer=SimpleNamespace(grid=GRID))
    with ReplayServer(records("XX.ABC..HHZ"), speed=0) as server:
        assert cli._flow(config(server.address, "XX.ABC"), watch, asked) == 0  # type: ignore[arg-type]
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "listening, 10 s at most"
    assert told[1:] == [f"ok    {server.address}: connected, 1 station(s)", told[2]]
    assert told[2].startswith("ok    XX.ABC..HHZ: 100 Hz, latency ")
    asked.flow = 0.5
    assert cli._flow(config(server.address, "XX.ABC"), watch, asked) == 1  # type: ignore[arg-type]
    assert f"FAULT {server.address}: not connected: " in capsys.readouterr().out
