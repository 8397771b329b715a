"""`quake-streamer init`, against real SeedLink servers and a real HTTP server: what it writes is what `load` accepts."""

from __future__ import annotations

import os
import pty
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import ClassVar

import numpy as np
import obspy
import pytest
from obspy.core.inventory import Channel as XmlChannel
from obspy.core.inventory import Inventory, Network, Station

from streamer.cli import main
from streamer.config import load, resolve
from streamer.init import asking
from streamer.init.choosing import Region, Sensor, sensors, unlisted
from streamer.init.text import configuration
from streamer.server import Record, ReplayServer
from streamer.server.records import pack
from streamer.source import parse_pattern
from streamer.source.listing import Channel, ListedStation, Listing

STATIONS = {
    "BW.UH1": ["EHZ", "HHZ", "HHN", "HHE", "BHZ", "BHN", "BHE", "LHZ"],
    "BW.UH2": ["BHZ", "HNZ", "HNN", "HNE"],
    "AM.R1234": ["EHZ", "ENZ", "ENN", "ENE"],  # a Raspberry Shake 4D
    "XX.SLOW": ["LHZ", "VMZ"],
}
"""What a server lists."""


def listing(stations: dict[str, list[str]]) -> Listing:
    return Listing(
        False,
        tuple(
            ListedStation(*name.split("."), frozenset(Channel("", *code) for code in codes), None, None, None)
            for name, codes in stations.items()
        ),
    )


def records(*names: str) -> list[Record]:
    """A second of each channel."""
    made = []
    for name in names:
        network, station, location, channel = name.split(".")
        header = {"network": network, "station": station, "location": location, "channel": channel}
        trace = obspy.Trace(np.arange(100, dtype=np.int32), {**header, "sampling_rate": 100.0})
        made += list(pack(trace))
    return made


SHAKE = ("AM.R1234.00.EHZ", "AM.R1234.00.EHN", "AM.R1234.00.EHE")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """HOST:PORT of one with a Raspberry Shake 3D and two other stations."""
    with ReplayServer(records(*SHAKE, "BW.UH1..SHZ", "BW.UH3..SHZ")) as made:
        yield f"127.0.0.1:{made.port}"


# -- what is chosen ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "chosen"),
    [
        (["BW.UH1"], ["BW.UH1..HH?"]),
        (["BW.UH2"], ["BW.UH2..BHZ"]),
        (["AM.*"], ["AM.R1234..EHZ"]),
        (["BW.UH1..BH?"], ["BW.UH1..BH?"]),
        (["BW.UH1..LHZ"], ["BW.UH1..LHZ"]),
        (["BW.UH1", "BW.UH1..HHZ", "BW.UH*"], ["BW.UH1..HH?", "BW.UH1..HHZ", "BW.UH2..BHZ"]),
        (["XX.SLOW"], []),
    ],
)
def test_one_sensor_of_each_station_velocity_and_fast_ones_first(texts: list[str], chosen: list[str]) -> None:
    found = sensors([parse_pattern(text) for text in texts], listing(STATIONS))
    assert [sensor.pattern for sensor in found] == chosen


def test_a_wrong_station_is_told_with_the_one_that_is_meant() -> None:
    texts = ["BW.UH9", "BW.UH1..XXZ", "ZZ.TOP"]
    told = unlisted([parse_pattern(text) for text in texts], listing(STATIONS))
    assert told[0].startswith("--station BW.UH9: the server lists no such station; did you mean BW.UH")
    assert told[1].startswith("--station BW.UH1..XXZ: the server lists BW.UH1, but no such channel")
    assert told[2].endswith("it lists AM.R1234, BW.UH1, BW.UH2, XX.SLOW")


@pytest.mark.parametrize(
    ("region", "longitude", "holds"),
    [((-10, 10, 20, 30), 25, True), ((-10, 10, 20, 30), 31, False), ((-10, 10, 170, -170), -175, True)],
)
def test_a_region_may_cross_the_date_line(region: tuple[float, ...], longitude: float, holds: bool) -> None:
    assert Region(*region).holds(0.0, longitude) is holds
    assert not Region(*region).holds(11.0, longitude)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_text_is_a_configuration_that_can_make_events(count: int, tmp_path: Path) -> None:
    import tomllib

    found = [Sensor("XX", f"S{n}", "00", "H", "H", "ZNE") for n in range(count)]
    text = configuration(["seedlink://a:18000"], found, 'odd "name".xml' if count == 2 else None)
    config = resolve(tomllib.loads(text), tmp_path / "quake.toml")
    assert config.source[0].select == tuple(f"XX.S{n}.00.HH?" for n in range(count))
    assert (config.coincidence and config.coincidence.min_stations) == (False, 2, 3)[count - 1]
    assert [path.name for path in config.inventory] == (['odd "name".xml'] if count == 2 else [])
    resolve(
        tomllib.loads(text.replace("\n# [", "\n[").replace("\n# l", "\n l").replace("\n# m", "\n m")), tmp_path / "x"
    )


# -- what is written ---------------------------------------------------------------------------------------------------


def test_a_raspberry_shake(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "my quake.toml"
    assert main(["init", str(path), "--preset", "raspberry-shake", "--host", server]) == 0
    assert load(path).source[0].select == ("AM.R1234.00.EH?",)
    assert load(path).source[0].servers == (f"seedlink://{server}",)
    assert f"quake-streamer check '{path}' --flow" in capsys.readouterr().out


def test_a_small_server_is_taken_whole(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "--server", server, "--server", "seedlinks://b"]) == 0
    config = load(tmp_path / "quake.toml")
    assert config.source[0].select == ("AM.R1234.00.EH?", "BW.UH1..SHZ", "BW.UH3..SHZ")
    assert config.source[0].servers[1] == "seedlinks://b:18500"


def test_what_is_named_in_full_needs_no_server(tmp_path: Path) -> None:
    path = tmp_path / "quake.toml"
    assert main(["init", str(path), "--server", "nowhere.invalid", "--station", "GE.APE..HH?"]) == 0
    assert load(path).source[0].select == ("GE.APE..HH?",)


def test_a_file_that_is_there_stays(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "quake.toml"
    path.write_text("mine")
    assert main(["init", str(path), "--server", server]) == 2
    assert capsys.readouterr().err == f"quake-streamer: {path} is there already; --force writes over it\n"
    assert path.read_text() == "mine"
    assert main(["init", str(path), "--server", server, "--force"]) == 0
    assert load(path)


@contextmanager
def deaf() -> Iterator[str]:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield f"127.0.0.1:{sock.getsockname()[1]}"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--server", "nowhere.invalid"], 1, "seedlink://nowhere.invalid:18000: nowhere.invalid: "),
        (["--server", "127.0.0.1:1"], 1, "seedlink://127.0.0.1:1: 127.0.0.1:1: connection refused"),
        (["--server", "DEAF"], 1, "not a byte for 0.5 s"),
        (["--server", "SERVER", "--station", "BW.UH9"], 2, "no such station; did you mean BW.UH"),
        (["--server", "SERVER", "--station", "UH9"], 2, "--station 'UH9': write NET.STA"),
        (["--server", "SERVER", "--region", "0", "1", "0", "1"], 2, "--region needs coordinates"),
        (["--server", "SERVER", "--fdsn", "nothing"], 1, "--fdsn nothing: "),
        (["--server", "SERVER", "--fdsn", "http://127.0.0.1:1"], 1, "--fdsn http://127.0.0.1:1: "),
        (["--server", "http://host"], 2, "write seedlink://HOST:PORT"),
        (["--server", "seedlinks://kim:geheim@host"], 2, "a password would stand in the file"),
        ([], 2, "--server HOST[:PORT] or --preset is needed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_one_clear_line_and_nothing_is_written(
    arguments: list[str],
    code: int,
    told: str,
    server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(asking, "ANSWER_S", 0.5)
    with deaf() as silent:
        given = [{"DEAF": silent, "SERVER": server}.get(word, word) for word in arguments]
        assert main(["init", str(tmp_path / "quake.toml"), *given]) == code
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert "geheim" not in error
    assert list(tmp_path.iterdir()) == []


def test_nobody_chooses_among_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many = records(*(f"XX.S{n:02d}..HHZ" for n in range(21)))
    with ReplayServer(many) as made:
        assert main(["init", str(tmp_path / "quake.toml"), "--server", f"127.0.0.1:{made.port}"]) == 2
    assert "21 stations; choose by --station or --region: it lists XX.S00," in capsys.readouterr().err


# -- where stations stand ----------------------------------------------------------------------------------------------


class Service(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []
    answer: ClassVar[bytes | None] = None
    """Instead of StationXML."""

    def do_POST(self) -> None:
        Service.asked.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        channel = XmlChannel("SHZ", "", 48.0, 11.5, 500.0, 0.0, azimuth=0.0, dip=-90.0, sample_rate=100.0)
        stations = [Station("UH1", 48.0, 11.5, 500.0, channels=[channel]), Station("UH3", 60.0, 11.5, 500.0)]
        body = BytesIO()
        Inventory([Network("BW", stations)], source="test").write(body, format="STATIONXML")
        answer = Service.answer or body.getvalue()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def service() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()
        thread.join()


def test_a_region_by_an_fdsn_service_then_by_the_file_it_gave(server: str, service: str, tmp_path: Path) -> None:
    path, xml = tmp_path / "quake.toml", tmp_path / "quake-stations.xml"
    region = ["--server", server, "--region", "-10", "50", "-5", "20"]
    assert main(["init", str(path), *region, "--fdsn", service]) == 0
    assert load(path).source[0].select == ("BW.UH1..SHZ",)
    assert load(path).inventory == (xml,)
    assert "level=station" in Service.asked[-2]
    assert "BW UH1 -- SH? " in Service.asked[-1]
    before = path.read_text()
    assert main(["init", str(path), *region, "--inventory", str(xml), "--force"]) == 0
    assert path.read_text() == before
    path.unlink()
    assert main(["init", str(path), *region, "--fdsn", service]) == 2, "the inventory is there already"


def test_an_fdsn_service_that_answers_nonsense(
    server: str, service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Service, "answer", b"<html>sign in</html>")
    arguments = ["init", str(tmp_path / "quake.toml"), "--server", server, "--station", "BW.UH1", "--fdsn", service]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"quake-streamer: --fdsn {service}: ")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# -- at a terminal -----------------------------------------------------------------------------------------------------


def test_it_asks_where_somebody_can_answer(server: str, tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "streamer", "init", str(tmp_path / "quake.toml")]
    process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    os.write(leader, f"{server}\nBW.UH1, BW.UH3\n".encode())
    said = b""
    try:
        while part := os.read(leader, 1024):
            said += part
    except OSError:  # how a terminal tells that nobody has it open any more
        pass
    os.close(leader)
    assert process.wait(30) == 0, said
    assert b"SeedLink server" in said
    assert b"3 stations: it lists AM.R1234, BW.UH1, BW.UH3" in said
    assert load(tmp_path / "quake.toml").source[0].select == ("BW.UH1..SHZ", "BW.UH3..SHZ")
