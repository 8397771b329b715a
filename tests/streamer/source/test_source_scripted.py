"""What the replay server does not do: SeedLink 4, TLS, credentials, a refused listing, an odd greeting, odd bytes."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from source_peers import HELLO_4, Script, ScriptedServer, listing_4, packet_3, packet_4

from streamer.server import Record
from streamer.source import ResumePoint, SeedLinkSource
from streamer.source.listing import counts_for_all
from streamer.stages import Packet, Refused, Subscribed

Start = Callable[..., SeedLinkSource]
NAMED = ("BW.UH1..SHZ", "BW.UH3..SH?")


def of_station(records: list[Record], station: str, count: int = 5) -> list[bytes]:
    return [record.data for record in records if record.station == station][:count]


def collect(source: SeedLinkSource, count: int) -> list[Packet | Refused]:
    items: list[Packet | Refused] = []
    end_s = time.monotonic() + 5.0
    while len(items) < count and time.monotonic() < end_s:
        items += [item for item in source.take(100, 0.2) if not isinstance(item, Subscribed)]
    return items


def wait_for_error(source: SeedLinkSource, text: str) -> None:
    end_s = time.monotonic() + 5.0
    while text not in str(source.status()[0].last_error):
        assert time.monotonic() < end_s, source.status()
        time.sleep(0.01)


def version_4(records: list[Record], **changes: object) -> Script:
    packets = [packet_4(raw, 2**33 + n, "BW_UH3") for n, raw in enumerate(of_station(records, "UH3"))]
    channels = ["_S_H_Z", "_S_H_N", "_S_H_E"]
    script = Script(HELLO_4, packets=tuple(packets), listing=listing_4({"BW_UH3": (channels, 2**33, 2**33 + 5)}))
    for name, value in changes.items():
        setattr(script, name, value)
    return script


def test_seedlink_4(records: list[Record], start: Start) -> None:
    with ScriptedServer(version_4(records)) as server:
        address = f"seedlink4://127.0.0.1:{server.port}"
        resume = {(address, "BW_UH3"): ResumePoint(2**33 + 1, 5, 6)}
        got = collect(start(address, resume), 5)
    assert [item.cursor.sequence for item in got if item.cursor] == [2**33 + n for n in range(5)]
    assert [item.size for item in got] == [512 + 17 + 6] * 5
    asked = server.script.commands
    begin = asked.index("STATION BW_UH3")
    assert asked[begin + 1 : begin + 4] == ["SELECT _S_H_E", "SELECT _S_H_N", "SELECT _S_H_Z"]
    assert asked[begin + 4 :] == [f"DATA {2**33 + 2}", "END"]


def test_seedlink_4_by_time(records: list[Record], start: Start) -> None:
    with ScriptedServer(version_4(records)) as server:
        address = f"seedlink4://127.0.0.1:{server.port}"
        start(address, {("seedlink://another:1", "BW_UH3"): ResumePoint(3, 5)}, max_wait_s=0.0)
        resume = {(address, "BW_UH3"): ResumePoint(7, 1_274_977_443 * 10**9)}
        collect(start(address, resume), 5)
    assert "DATA ALL 2010-05-27T16:24:03Z" in server.script.commands


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


@pytest.mark.usefixtures("trusted")
def test_tls_with_a_password_that_nobody_sees(
    records: list[Record], start: Start, tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with ScriptedServer(version_4(records, auth="AUTH USERPASS me hunter2"), tls) as server:
        source = start(f"seedlinks://me:hunter2@127.0.0.1:{server.port}")
        got = collect(source, 5)
        before_s = time.monotonic()
        source.stop()
        assert time.monotonic() - before_s < 1.0
        shown = repr([source.status(), got])
    assert len(got) == 5
    assert {item.cursor.server for item in got if item.cursor} == {f"seedlinks://127.0.0.1:{server.port}"}
    assert "hunter2" not in caplog.text + shown


def test_wrong_password_is_said_without_it(
    records: list[Record], start: Start, tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with ScriptedServer(version_4(records, auth="AUTH JWT abc"), tls) as server:
        source = start(f"seedlinks://hunter2@127.0.0.1:{server.port}?verify=no")
        wait_for_error(source, "auth: the server refuses the credentials")
    assert "hunter2" not in caplog.text + str(source.status())


def test_certificate_that_is_not_trusted(records: list[Record], start: Start, tls: ssl.SSLContext) -> None:
    with ScriptedServer(version_4(records), tls) as server:
        source = start(f"seedlinks://127.0.0.1:{server.port}")
        wait_for_error(source, "the certificate is not trusted: self-signed certificate; ?verify=no")


@pytest.mark.parametrize("scheme", ["seedlink", "seedlink4"])
def test_refused_listing_and_a_greeting_in_two_pieces(scheme: str, records: list[Record], start: Start) -> None:
    packets = tuple(packet_3(raw, 0xFFFFFE + n & 0xFFFFFF) for n, raw in enumerate(of_station(records, "UH3")))
    with ScriptedServer(Script(hello_in_pieces=True, packets=packets)) as server:
        address = f"{scheme}://127.0.0.1:{server.port}"
        source = start(address, {(address, "BW_UH3"): ResumePoint(0xFFFFFF, None)}, select=NAMED)
        got = collect(source, 5)
        assert source.expected() == {"FDSN:BW_UH1__S_H": frozenset("Z"), "FDSN:BW_UH3__S_H": frozenset("ZNE")}
    assert [item.cursor.sequence for item in got if item.cursor] == [0xFFFFFE, 0xFFFFFF, 0, 1, 2]
    asked = server.script.commands
    begin = asked.index("STATION UH1 BW")
    assert asked[begin:] == [
        *["STATION UH1 BW", "SELECT --SHZ", "DATA"],
        *["STATION UH3 BW", "SELECT --SH?", "DATA 000000", "END"],
    ]


@pytest.mark.parametrize("scheme", ["seedlink", "seedlink4"])
def test_bytes_that_are_no_packets_end_the_connection(scheme: str, records: list[Record], start: Start) -> None:
    packets = (packet_3(of_station(records, "UH1")[0], 5), b"HTTP/1.1 200 OK\r\n" * 200)
    with ScriptedServer(Script(packets=packets)) as server:
        source = start(f"{scheme}://127.0.0.1:{server.port}", select=NAMED)
        wait_for_error(source, "protocol: ")


@pytest.mark.parametrize("scheme", ["seedlink", "seedlink4"])
def test_a_record_with_garbage_in_its_middle_is_not_taken(scheme: str, records: list[Record], start: Start) -> None:
    """FLOAT32: any bytes are samples. What follows shows that it is torn."""
    good, bad = (packet_3(raw, 5 + n) for n, raw in enumerate(of_station(records, "UH1", 2)))
    with ScriptedServer(Script(packets=(good, bad[:260] + b"garbage." * 40 + bad[260:]))) as server:
        source = start(f"{scheme}://127.0.0.1:{server.port}", select=NAMED)
        wait_for_error(source, "protocol: ")
        got = collect(source, 9)
    assert {item.cursor.sequence for item in got if item.cursor} == {5}


def test_what_is_no_seedlink_server_is_said(start: Start) -> None:
    with ScriptedServer(Script(hello=("220 mail ready", "x"))) as server:
        wait_for_error(start(f"seedlink://127.0.0.1:{server.port}", select=NAMED), "negotiate: ")


def test_ringserver_is_known_by_its_greeting() -> None:
    assert counts_for_all("SeedLink v3.1 (2020.075 RingServer/4.5.3) :: SLPROTO:4.0 SLPROTO:3.1 CAP")
    assert not counts_for_all("SeedLink v3.3 (2020.122 SeisComP)")
