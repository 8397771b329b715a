"""Every byte that comes from outside, as functions of bytes: each returns, or raises because the product is wrong.

`test_fuzz.py` gives them to hypothesis, `fuzz.py` to atheris. A target lets through nothing but the errors that the
product promises for such input; whatever else is raised is a finding. Seeds are what real programs send.
"""

from __future__ import annotations

import io
import json
import os
import re
import socket
import struct
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pydantic import ValidationError

from quake.alerts import Alert
from quake.data.spec import ModelError
from quake.data.spec_file import parse_spec
from streamer.config import Config, ConfigError, resolve
from streamer.http import Face, handler
from streamer.metrics import Metrics
from streamer.server.protocol import MAX_LINE, MAX_SELECTORS, Session, State
from streamer.source import obspy_transport, seedlink_transport
from streamer.source.address import parse_address
from streamer.source.listing import ListingError, counts_for_all, parse_json, parse_xml
from streamer.source.records import decode, station_of
from streamer.source.resume import Begin, Start
from streamer.source.transport import Connection, Interrupted, Limits, Request, TransportError
from streamer.stages import Cursor, Packet

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "streamer" / "golden"
LIMITS = Limits(connect_s=0.1, silence_s=0.1, stall_s=0.1)
MOST_PACKETS = 1_000
NEXT = b"<next>"
"""Between a server's answers."""


@dataclass(frozen=True, slots=True)
class Target:
    run: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]


# -- what SeedLink servers send


def listing_xml(data: bytes) -> None:
    for text in (data.decode("utf-8", errors="replace"), data.decode("latin-1")):
        with suppress(ListingError):
            parse_xml(text, counts_for_all(text))


def listing_json(data: bytes) -> None:
    with suppress(ListingError):
        parse_json(data.decode("utf-8", errors="replace"), shared=False)


@contextmanager
def spoken(data: bytes) -> Iterator[socket.socket]:
    """A server's end that has said all this and closed."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        theirs.sendall(data[: 1 << 17])
        theirs.shutdown(socket.SHUT_WR)
        ours.settimeout(0.05)
        yield ours


class Peer:
    """A server that says the next of its answers for each command, all that are left for the last, and closes."""

    def __init__(self, data: bytes) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self._ours.settimeout(0.05)
        self._answers = data[: 1 << 17].split(NEXT)[::-1]

    def sendall(self, command: bytes) -> None:
        last = command.startswith((b"END", b"INFO"))
        while self._answers:
            self._theirs.sendall(self._answers.pop())
            if not last:
                break
        if not self._answers:
            self._theirs.close()

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ours, name)


def _connection(module: Any, made: type, url: str, data: bytes, life: Callable[[Connection], None]) -> None:
    address = parse_address(url)
    with closing(Peer(data)) as peer, patch.object(module, "dial", partial(_dialled, peer)):
        connection = made(address, LIMITS)
        with suppress(TransportError, ListingError, Interrupted):
            life(connection)
        connection.close()


def _dialled(peer: Peer, _address: object, life: Any) -> Peer:
    life.sock = peer
    return peer


def _lists(connection: Connection) -> None:
    connection.open()
    connection.listing()


def _streams(connection: Connection) -> None:
    connection.open()
    connection.begin((Request("BW_UH3", ("SH?",), ("*_S_H_*",)),), {"BW_UH3": Begin(Start.NOW)})
    for count, packet in enumerate(connection.packets()):
        assert packet.payload
        assert count < MOST_PACKETS


def obspy(data: bytes) -> None:
    for life in (_lists, _streams):
        _connection(obspy_transport, obspy_transport.ObspyConnection, "seedlink://x?transport=obspy", data, life)


def seedlink_client(data: bytes) -> None:
    made = seedlink_transport.SeedLinkClientConnection
    for life in (_lists, _streams):
        _connection(seedlink_transport, made, "seedlink://x?transport=seedlink-client", data, life)


def record(data: bytes) -> None:
    station_of(data)
    item = decode(data, Cursor("server", "XX_ABC", 1), 0)
    if isinstance(item, Packet):
        assert 0 < len(item.samples) <= 8 * len(data)
        assert item.rate > 0


def records(data: bytes) -> None:
    """As the packets of a connection bring them, each of 512 bytes."""
    for begin in range(0, len(data), 512):
        record(data[begin : begin + 512])


# -- what SeedLink clients send


def commands(data: bytes) -> None:
    session = Session()
    for begin in range(0, len(data), 1_000):
        for action in session.receive(data[begin : begin + 1_000]):
            repr(action)
        assert len(session.lines.pending) <= MAX_LINE + 1
        assert session.selected <= MAX_SELECTORS
        assert session.state in State
    for request in session.stations.values():
        request.accepts("BW_UH3__S_H_Z")


# -- configuration, models, alerts


def configuration(data: bytes) -> None:
    text = data.decode("utf-8", errors="replace")
    with suppress(tomllib.TOMLDecodeError, RecursionError):
        content = tomllib.loads(text)
        with suppress(ConfigError):
            assert isinstance(resolve(content, Path("quake.toml")), Config)


def spec(data: bytes) -> None:
    with suppress(ModelError):
        parse_spec(Path("model.pt"), data)


def alert(data: bytes) -> None:
    with suppress(ValidationError):
        read = Alert.model_validate_json(data)
        read.summary()
        assert Alert.model_validate_json(read.model_dump_json()) == read or "NaN" in repr(read) or "nan" in repr(read)


# -- HTTP


@cache
def _face() -> Face:
    return Face(Metrics(max_stations=1), lambda: True, "a-token-of-enough-length")


def request(data: bytes) -> None:
    with spoken(data) as sock:
        handler(_face())(sock, ("127.0.0.1", 1), None)  # type: ignore[arg-type]


# -- seeds


def golden(name: str) -> list[bytes]:
    """Strings of a recording of a real server's answers, bytes as they were."""
    found: list[bytes] = []

    def walk(value: Any) -> None:
        if isinstance(value, str):
            found.append(value.encode("latin-1", errors="replace"))
        elif isinstance(value, (list, dict)):
            for inner in value.values() if isinstance(value, dict) else value:
                walk(inner)

    walk(json.loads((GOLDEN / name).read_text("utf-8")))
    return [text for text in found if text] or [b""]


def xml_seeds() -> list[bytes]:
    stream = '<stream location="" seedname="SHZ" type="D" end_time="2010/05/27 16:24:03.0000"/>'
    station = f'<station name="UH3" network="BW" begin_seq="000001" end_seq="0000FF">{stream}</station>'
    bomb = (
        '<!DOCTYPE a [<!ENTITY a "'
        + "a" * 99
        + '">'
        + "".join(f'<!ENTITY {b} "{f"&{a};" * 20}">' for a, b in zip("abcdefg", "bcdefgh", strict=True))
    )
    return [f"<seedlink>{station}</seedlink>".encode(), f"{bomb}]><seedlink>&h;</seedlink>".encode()]


def json_seeds() -> list[bytes]:
    stream = {"id": "_S_H_Z", "subformat": "D", "end_time": "2010-05-27T16:24:03.0Z"}
    return [
        json.dumps({"station": [{"id": "BW_UH3", "start_seq": 1, "end_seq": 9, "stream": [stream]}]}).encode(),
        b'{"station":' + b"[" * 100_000,
    ]


def record_seeds() -> list[bytes]:
    data = (GOLDEN / "records.mseed").read_bytes()
    return [data[:512], data[512:1024], data[-512:]]


def info_packet(text: bytes = b"<seedlink/>", last: bool = True) -> bytes:
    """SLINFO: XML as the samples of a record of type ASCII."""
    codes = b"000001D INFO   INFSL"
    begin = struct.pack(">HHBBBBH", 2010, 147, 16, 24, 3, 0, 0)
    fixed = codes + begin + struct.pack(">HhhBBBBiHH", len(text), 1, 1, 0, 0, 0, 1, 0, 64, 48)
    record = (fixed + struct.pack(">HHBBBB", 1000, 0, 0, 1, 9, 0)).ljust(64, b"\0") + text
    return b"SLINFO " + (b" " if last else b"*") + record.ljust(512, b"\0")[:512]


def greeting(version: bytes = b"v3.1 (2020.075) :: SLPROTO:3.1 CAP") -> bytes:
    return b"SeedLink " + version + b"\r\nquake\r\n" + NEXT


def v3_seeds() -> list[bytes]:
    accepted = b"OK\r\n" + NEXT
    data = b"".join(b"SL%06X" % n + one for n, one in enumerate(record_seeds()))
    listed = info_packet(b"<seedlink>", last=False) + info_packet(b"</seedlink>")
    return [
        greeting() + 3 * accepted + data,
        greeting() + 3 * accepted + data + info_packet() + data + b"END",
        greeting() + listed,
        greeting() + b"ERROR\r\n",
        b"GET / HTTP/1.1\r\n",
    ]


def v4_seeds() -> list[bytes]:
    fourth = greeting(b"v4.0 (quake) :: SLPROTO:4.0 SLPROTO:3.1")
    accepted = b"OK\r\n" + NEXT
    station = b"BW_UH3"
    packets = b"".join(
        b"SE2D" + len(one).to_bytes(4, "little") + n.to_bytes(8, "little") + bytes([len(station)]) + station + one
        for n, one in enumerate(record_seeds())
    )
    told = json_seeds()[0]
    listed = b"SEJI" + len(told).to_bytes(4, "little") + bytes(8) + b"\0" + told
    third = [seed.replace(accepted, 2 * accepted, 1) for seed in v3_seeds()]
    third.append(v3_seeds()[2].replace(NEXT, NEXT + accepted, 1))
    return [fourth + 5 * accepted + packets, fourth + 2 * accepted + listed, *third]


def command_seeds() -> list[bytes]:
    return [
        b"HELLO\r\nSTATION UH3 BW\r\nSELECT SH?\r\nDATA 0001FF 2010,05,27,16,24,30\r\nEND\r\n",
        b"BATCH\rCAPABILITIES EXTREPLY\rSTATION * *\rTIME 2010,05,27 2010,05,28\rINFO STREAMS\rBYE\r",
        b"STATION ********* *********\r\nSELECT !***\r\nFETCH 0x1000000\r\nENDFETCH\r\n",
    ]


def toml_seeds() -> list[bytes]:
    least = '[[source]]\nservers = ["seedlink://u:p@x:1?transport=obspy"]\nselect = ["BW.UH?.*"]\n'
    return [
        (
            least
            + '[model]\npath = "a.pt"\n[redis]\nurl = "redis://u:p@h"\n[places]\n"BW.UH3" = {latitude=1,longitude=2}'
        ).encode(),
        ("coincidence = false\n" + least + "[trigger]\non = 0.5\noff = 0.25\n[metrics]\nport = 1e3").encode(),
    ]


@cache
def model_content() -> bytes:
    """The shipped detector's file without its weights: a zip of its size would be mutated where nothing is looked at."""
    out = io.BytesIO()
    with zipfile.ZipFile(ROOT / "models" / "zoo" / "detector.pt") as source, zipfile.ZipFile(out, "w") as small:
        for item in source.infolist():
            if not re.search(r"/data/\d+$", item.filename):
                small.writestr(item.filename, source.read(item)[:20_000])
    return out.getvalue()


def spec_seeds() -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(model_content())) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/extra/quake.json"))
        text = archive.read(name)
    deep = io.BytesIO()
    with zipfile.ZipFile(deep, "w", zipfile.ZIP_DEFLATED) as small:
        small.writestr(name, b"[" * 500_000)
    plain = io.BytesIO()
    with zipfile.ZipFile(plain, "w") as small:
        small.writestr(name, text)
    field = b"\x0a\x0aquake.json\x12" + bytes([len(text) & 127 | 128, len(text) >> 7]) + text
    onnx = b"\x72" + bytes([len(field) & 127 | 128, len(field) >> 7]) + field if len(field) < 1 << 14 else b"\x72\1a"
    return [model_content(), plain.getvalue(), deep.getvalue(), onnx]


def alert_seeds() -> list[bytes]:
    return [json.dumps(ALERT).encode(), json.dumps({**ALERT, "onset": 10**30}).encode(), b'{"trace":' + b"[" * 10_000]


def request_seeds() -> list[bytes]:
    token = b"Authorization: Bearer a-token-of-enough-length\r\n"
    return [
        b"GET /metrics?a=b HTTP/1.1\r\nHost: x\r\n" + token + b"\r\n",
        b"GET /readyz HTTP/1.0\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\nContent-Length: 99999\r\nExpect: 100-continue\r\n\r\nabc",
    ]


TIME = "2010-05-27T16:24:33.000000Z"
ALERT: dict[str, Any] = {
    **{"id": "c0ffee", "revision": 0, "mode": "live", "kind": "event", "status": "open", "probability": 0.9},
    **{"onset": TIME, "on_time": TIME, "created": TIME, "complete": True, "unused": {"gap": 2}},
    "stations": [{"source_id": "FDSN:BW_UH3__S_H", "detection_id": "d", "onset": TIME, "probability": 0.5}],
    "model": {"name": "m", "version": "1.0.0", "sha256": "0" * 64},
    "latency": {"data_s": 1.5, "processing_s": 0.1},
    "characterisation": {"magnitude": {"Large": 0.5}, "azimuth": None},
    "trace": [{"window_start": TIME, "probability": 1.0}],
}

TARGETS = {
    "listing_xml": Target(listing_xml, xml_seeds),
    "listing_json": Target(listing_json, json_seeds),
    "obspy": Target(obspy, v3_seeds),
    "seedlink_client": Target(seedlink_client, v4_seeds),
    "record": Target(record, record_seeds),
    "records": Target(records, record_seeds),
    "commands": Target(commands, command_seeds),
    "configuration": Target(configuration, toml_seeds),
    "spec": Target(spec, spec_seeds),
    "alert": Target(alert, alert_seeds),
    "request": Target(request, request_seeds),
}


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGESIZE")
