"""The replay server against what a real ringserver answered, byte by byte where bytes do not depend on the day."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from seedlink_peers import Raw, eventually, raw

from streamer.server import Numbering, Record, ReplayServer

GOLDEN = Path(__file__).parent.parent / "golden"
DIALOGUES = sorted(GOLDEN.glob("*.json"))

OURS: dict[tuple[str, ...], str] = {
    ("CAT\r\n",): "a list of stations, where ringserver has none",
    ("INFO GAPS\r\n",): "gaps, where ringserver answers ID on channel ERR",
    ("INFO ALL\r\n",): "everything, where ringserver answers ID on channel ERR",
    ("FETCH 1\r\n",): "ringserver cannot resume at the first packet of its ring",
    ("DATA 1\r\n",): "ringserver cannot resume at the first packet of its ring",
    ("TIME 2010,05,27,16,24\r\n",): "ringserver leaves out the first packet of its ring",
    ("TIME 2010,05,27,16,20,00 2010,05,27,16,24,10\r\n",): "ringserver leaves out the first packet of its ring",
}
"""Where the answers differ on purpose."""


def _recorder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_record", GOLDEN / "record.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RECORDER = _recorder()


@pytest.fixture(scope="module")
def server(golden_records: list[Record]) -> Iterator[ReplayServer]:
    with ReplayServer(golden_records, speed=0, wait_clients=0, numbering=Numbering.SERVER) as replay:
        assert replay.wait_sent(10)
        yield replay


def sessions() -> list[Any]:
    found = []
    for path in DIALOGUES:
        for number, session in enumerate(json.loads(path.read_text())["sessions"]):
            lines = tuple(exchange["send"] for exchange in session["exchanges"])
            if lines not in OURS:
                found.append(pytest.param(session, id=f"{path.stem}-{number}"))
    return found


@pytest.mark.parametrize("session", sessions())
def test_answers_as_the_real_server(
    session: dict[str, Any], server: ReplayServer, golden_records: list[Record]
) -> None:
    numbers = {hashlib.sha256(record.data).hexdigest(): n for n, record in enumerate(golden_records, 1)}
    assert eventually(lambda: not server.server.clients)  # or CONNECTIONS names the last test's too
    with raw(server.port) as peer:
        for position, exchange in enumerate(session["exchanges"]):
            peer.socket.sendall(exchange["send"].encode())
            last = position == len(session["exchanges"]) - 1
            data = taken(peer, exchange["reply"], closes=last and session["closed"])
            assert comparable(RECORDER.described(data, numbers)) == comparable(exchange["reply"])


def taken(peer: Raw, expected: list[Any], *, closes: bool) -> bytes:
    """As much as is expected, and whatever else comes."""
    data = b""
    if any(isinstance(part, dict) for part in expected):
        while not data.rpartition(b"SLINFO")[2].startswith(b"  "):
            data += peer.exactly(520)
    elif any(isinstance(part, str) and "@" in part for part in expected):
        data = peer.line().encode() + peer.line().encode()
    else:
        data = peer.exactly(sum(len(part) if isinstance(part, str) else 520 for part in expected))
    if closes:
        return data + peer.rest()
    assert peer.quiet(0.01)
    return data


def comparable(reply: list[Any]) -> list[Any]:
    """INFO without how long it is and what the server calls itself; the rest as it is."""
    out = []
    for part in reply:
        if isinstance(part, dict):
            out.append((elements(part["text"]), part["headers"][12:40], part["headers"][84:]))
        else:
            out.append(part.replace("Golden", "quake replay server") if isinstance(part, str) else part)
    return out


def elements(text: str) -> list[tuple[str, dict[str, str]]]:
    import xml.etree.ElementTree as ET

    ours = ("info:gaps", "info:all")
    found = [(element.tag, dict(element.attrib)) for element in ET.fromstring(text.encode()).iter()]
    for _, attributes in found:
        attributes["description"] = attributes.get("description", "").replace("Ringserver Client", "Client")
    return [(tag, attributes) for tag, attributes in found if attributes.get("name") not in ours]


def test_resumes_at_the_first_packet_too(server: ReplayServer) -> None:
    with raw(server.port) as peer:
        peer.ask("FETCH 1")
        assert peer.packet().sequence == 1


def test_names_its_stations(server: ReplayServer) -> None:
    with raw(server.port) as peer:
        peer.ask("CAT")
        assert [peer.line().split() for _ in range(5)] == [["BW", f"UH{n}"] for n in (1, 2, 3, 4)] + [["END"]]


def test_transcripts_are_small_and_name_no_machine() -> None:
    assert DIALOGUES
    for path in [*DIALOGUES, GOLDEN / "records.mseed"]:
        data = path.read_bytes()
        assert len(data) < 100_000
        assert b"/tmp" not in data
        assert b"127.0.0.1" not in data
