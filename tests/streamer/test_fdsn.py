"""FDSN dataselect as an archive, against a server over HTTP: the alerts of the files themselves, and nothing asked for twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fdsn_server import Fault, FdsnServer, serving
from made_archive import MIDNIGHT_NS, SECONDS, quarter_hour, without_clocks, write_sds
from made_scorer import SERVERS, loud_scorer

from quake.alerts import Kind, Mode
from quake.times import NS
from streamer import fdsn_spool, scanning
from streamer.archive import DAY_NS
from streamer.config import Config, ConfigError, resolve
from streamer.fdsn import root
from streamer.fdsn_service import DownloadError, Service
from streamer.fdsn_spool import MOST_MISSING, TRIES, Spool
from streamer.record_index import read_index
from streamer.scanning import Scanned
from streamer.server import Record
from streamer.source.selection import parse_pattern
from streamer.trigger import Thresholds

BEGIN_NS, END_NS = MIDNIGHT_NS - SECONDS * NS, MIDNIGHT_NS + SECONDS * NS
LATER_NS = MIDNIGHT_NS + 30 * DAY_NS
PASSWORD = "a-pass-word-of-the-watch"


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return quarter_hour()


@pytest.fixture
def server(records: list[Record]) -> Iterator[FdsnServer]:
    with serving(records) as made:
        yield made


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Config:
    """Of a scan with a detector that needs no network, and of waits that take no time."""
    limits = Thresholds(on=0.9, off=0.5, in_a_row=2, release=2, dead_k=15, longest_k=60)
    monkeypatch.setattr(scanning, "load_scorer", lambda config: loud_scorer(40, 3.0, limits))
    monkeypatch.setattr(fdsn_spool, "WAIT_S", 0.0)
    rules = {"min_stations": 3, "window_s": 5.0, "hold_s": 30.0}
    return resolve({**SERVERS, "coincidence": rules, "characteriser": {"enabled": False}, "mode": Mode.SCAN}, Path("x"))


def scan(config: Config, path: Path | str, state: Path, *select: str) -> Scanned:
    return scanning.run(config, [path], select=select, begin_ns=BEGIN_NS, end_ns=END_NS, state=state)


def spool(folder: Path, server: FdsnServer, *select: str, slept: list[float] | None = None, **service: Any) -> Spool:
    slept = [] if slept is None else slept
    patterns = tuple(map(parse_pattern, select or ("XX.*.*.HH?",)))
    return Spool(folder, Service(server.url, **service), patterns, BEGIN_NS, END_NS, slept.append)


def kept(spool: Spool) -> Counter[bytes]:
    """The records that lie there."""
    files = [path for path in spool.archive.rglob("*") if path.is_file()]
    indices = [read_index(path) for path in files]
    return Counter(index.record(n) for index in indices for n in range(len(index.length)))


def days(asked: list[str]) -> list[str]:
    """``S00 2019-12-31``."""
    return [f"{body.split()[1]} {body.split()[4][:10]}" for body in asked]


def test_a_service_gives_the_alerts_of_the_files_it_has(
    tmp_path: Path, config: Config, server: FdsnServer, records: list[Record]
) -> None:
    expected = scan(config, write_sds(tmp_path / "sds", records), tmp_path / "one")
    assert {alert.kind for alert in expected.alerts} == {Kind.DETECTION, Kind.EVENT}
    found = scan(config, server.url + "/", tmp_path / "two", "XX.*")
    assert without_clocks(found.alerts) == without_clocks(expected.alerts)
    assert days(server.asked) == [f"S{n:02} {day}" for day in ("2019-12-31", "2020-01-01") for n in range(4)]
    server.asked.clear()
    assert scan(config, server.url + "/", tmp_path / "two", "XX.*").alerts == found.alerts
    assert server.asked == []


def test_a_record_over_midnight_is_kept_once(tmp_path: Path, server: FdsnServer, records: list[Record]) -> None:
    over = [r for r in records if r.start_ns < MIDNIGHT_NS <= r.end_ns]
    assert over
    here = spool(tmp_path, server)
    assert here.fill(LATER_NS) == []
    assert kept(here) == Counter(record.data for record in records)
    second = replace(here, folder=tmp_path / "second", begin_ns=MIDNIGHT_NS)
    second.fill(LATER_NS)
    assert kept(second) == Counter(record.data for record in records if record.end_ns >= MIDNIGHT_NS)


@pytest.mark.parametrize(
    ("fault", "waited_s"),
    [
        (Fault(503, {"Retry-After": "7"}), 7.0),
        (Fault(429, {"Retry-After": "99999"}), 600.0),
        (Fault(429), 4.0),
        (Fault(500, text="too bad"), 4.0),
        (Fault(cut=1000), 4.0),
        (Fault(cut=100, is_announced=False), 4.0),
        (Fault(text="<html>come again</html>"), 4.0),
    ],
)
def test_an_answer_that_is_none_is_asked_for_again(
    tmp_path: Path, server: FdsnServer, records: list[Record], fault: Fault, waited_s: float
) -> None:
    slept: list[float] = []
    server.faults = [None, fault]
    here = spool(tmp_path, server, slept=slept)
    assert here.fill(LATER_NS) == []
    assert slept == [waited_s]
    assert len(server.asked) == 9
    assert kept(here) == Counter(record.data for record in records)


def test_what_cannot_be_had_now_is_asked_for_the_next_time_alone(
    tmp_path: Path, config: Config, server: FdsnServer, records: list[Record]
) -> None:
    """And nothing is decided before it is there."""
    server.faults = [None, *[Fault(500, text="a disk is gone")] * TRIES]
    found = scan(config, server.url, tmp_path, "XX.*.*.HH?")
    assert found.stopped
    assert found.alerts == ()
    (fault,) = found.faults
    assert fault.startswith("XX.S01.2019.365: ")
    assert fault.endswith("HTTP 500: a disk is gone")
    server.asked.clear()
    (folder,) = (tmp_path / "spool").iterdir()
    here = spool(folder, server)
    here.fill(LATER_NS)
    assert days(server.asked) == ["S01 2019-12-31"]
    assert kept(here) == Counter(record.data for record in records)


def test_a_broken_service_is_let_go(tmp_path: Path, server: FdsnServer) -> None:
    slept: list[float] = []
    server.faults = [Fault(503)] * 100
    with pytest.raises(DownloadError) as told:
        spool(tmp_path, server, slept=slept).fill(LATER_NS)
    assert len(str(told.value).splitlines()) == MOST_MISSING
    assert slept == [4.0, 8.0, 16.0, 32.0] * MOST_MISSING


def test_days_without_data_are_asked_for_once_and_those_that_may_grow_again(
    tmp_path: Path, server: FdsnServer, records: list[Record]
) -> None:
    here = replace(spool(tmp_path, server, "XX.S01"), end_ns=MIDNIGHT_NS + 3 * DAY_NS)
    here.fill(MIDNIGHT_NS + int(2.5 * DAY_NS))
    assert days(server.asked) == ["S01 2019-12-31", "S01 2020-01-01", "S01 2020-01-02", "S01 2020-01-03"]
    server.asked.clear()
    here.fill(MIDNIGHT_NS + int(2.5 * DAY_NS))
    assert days(server.asked) == ["S01 2020-01-02", "S01 2020-01-03"]
    assert kept(here) == Counter(record.data for record in records if record.station == "S01")


def test_a_password(
    tmp_path: Path, server: FdsnServer, records: list[Record], caplog: pytest.LogCaptureFixture
) -> None:
    server.users = {"watch": PASSWORD}
    here = spool(tmp_path, server, user="watch", password=PASSWORD)
    here.fill(LATER_NS)
    assert kept(here) == Counter(record.data for record in records)
    with pytest.raises(ConfigError, match="HTTP 401") as told:
        spool(tmp_path / "other", server, user="watch", password=PASSWORD + "!").fill(LATER_NS)
    assert PASSWORD not in str(told.value) + caplog.text + repr(here)


def test_data_for_others_are_told_and_the_rest_is_there(
    tmp_path: Path, server: FdsnServer, records: list[Record]
) -> None:
    server.closed = {"S02"}
    here = spool(tmp_path, server)
    refused = here.fill(LATER_NS)
    assert [one.split(": ")[0] for one in refused] == ["XX.S02.2019.365", "XX.S02.2020.001"]
    assert all(one.endswith("HTTP 403: restricted data") for one in refused)
    assert kept(here) == Counter(record.data for record in records if record.station != "S02")


@pytest.mark.parametrize(
    ("path", "select", "told"),
    [
        ("", ["XX.S00.*"], "no FDSN dataselect service"),
        ("fdsnws", ["YY.*"], "it has none of these stations"),
        ("fdsnws", ["XX"], "--select: 'XX': write NET.STA"),
        ("fdsnws", [], "which stations\\? --select"),
    ],
)
def test_wrong_use_is_told(
    tmp_path: Path, config: Config, server: FdsnServer, path: str, select: list[str], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        scan(config, f"{server.url}/{path or 'elsewhere'}", tmp_path, *select)


def test_a_service_needs_a_time_and_a_place(config: Config) -> None:
    with pytest.raises(ConfigError, match="needs --begin, --end, and --state"):
        scanning.run(config, ["https://nowhere/"], select=["XX.*"])


def test_the_reason_of_a_refusal_is_the_service_s_own(tmp_path: Path, server: FdsnServer) -> None:
    for fault, told in [
        (Fault(400, text="Error 400: no such channel"), "HTTP 400: Error 400: no such channel"),
        (Fault(301, {"Location": "https://moved/"}), "HTTP 301: https://moved/"),
    ]:
        server.faults = [fault]
        with pytest.raises(ConfigError, match=told):
            spool(tmp_path, server).fill(LATER_NS)


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"QUAKE_FDSN_USER": "watch"}, "go together"),
        ({"QUAKE_FDSN_PASSWORD_FILE": "/nowhere", "QUAKE_FDSN_USER": "watch"}, "QUAKE_FDSN_PASSWORD_FILE: /nowhere"),
    ],
)
def test_half_a_secret_is_none(environment: dict[str, str | None], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Service.of("https://host", environment)


def test_no_secret_in_an_address() -> None:
    with pytest.raises(ConfigError, match="QUAKE_FDSN_USER") as told:
        Service.of(f"https://watch:{PASSWORD}@host/", {})
    assert PASSWORD not in str(told.value)


@pytest.mark.parametrize(
    "url",
    ["https://host/", "https://host", "https://host/fdsnws/dataselect/1/query", "https://host/fdsnws/dataselect/1/"],
)
def test_the_address_of_a_server_or_of_its_service(url: str) -> None:
    assert root(url) == "https://host"
