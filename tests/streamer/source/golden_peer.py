"""A server that says what ringserver 4.5.3 said, byte for byte, and closes on whatever the transcripts do not hold.

`Book` reads the transcripts (tests/streamer/golden), `Dialogue` is one connection without a socket, `RecordedServer`
puts it on loopback. It invents no reply. What it puts together itself is the data of several stations: the recorded
reply to their number (or time), less the packets of streams that were not asked for; `test_source_golden` holds that
against every transcript which it can be held against.
"""

from __future__ import annotations

import importlib.util
import json
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from source_peers import Script, ScriptedServer, _lines

GOLDEN = Path(__file__).parent.parent / "golden"
MARKS = {
    "@version@": "4.0 (RingServer/4.5.3) :: SLPROTO:4.0 SLPROTO:3.1 CAP WS:13",
    "@organisation@": "Golden",
    "@time@": "2026-11-22T06:36:49Z",
    "@host@": "127.0.0.1",
    "@port@": "40000",
}
"""What the transcripts leave out. The version is 4.5.3's own greeting; that the INFO answers come out as long as the
recorded ones (`counts`) is checked."""
VERSION_4 = "SLPROTO:4.0 "
"""Left out of the greeting for clients that would choose SeedLink 4: nothing of that is recorded."""
SAME = (
    (r"STATION UH[1-4] BW", "STATION UH1 BW"),
    (r"SELECT (--)?[SE]H[ZNE?]", r"SELECT \1SHZ"),
    (r"(DATA|FETCH) [0-9A-F]{1,6}", "FETCH 2"),
    (r"(DATA|FETCH) [0-9A-F]{1,6} (\d+,){5}\d+", "FETCH 00000C 2010,05,27,16,24,10"),
    (r"TIME (\d+,){5}\d+", "TIME 2010,05,27,16,24,30"),
    (r"USERAGENT .*", "USERAGENT test/1.0"),
)
"""Commands that are answered (with OK) as the recorded one is. ringserver 4.5.3 was asked each of them by hand, also
for dates without leading zeros, and answered so."""
SIMPLE = re.compile(r"(--)?([SE]H[ZNE?]|\?\?\?)")
"""Selectors whose meaning is known here."""
EXTENDED = "CAPABILITIES EXTREPLY"
Packet = tuple[str, int]
"""Header, and number of the record."""
Moment = tuple[int, ...]


class Unrecorded(Exception):  # noqa: N818 - not an error of the peer
    """Nobody has asked the real server that."""


def load_recorder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_record", GOLDEN / "record.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def filled(text: str) -> bytes:
    for mark, value in MARKS.items():
        text = text.replace(mark, value)
    return text.encode("latin-1")


def moment(text: str) -> Moment:
    """``2010,5,27,16,24`` -> (2010, 5, 27, 16, 24, 0)."""
    parts = tuple(int(part) for part in text.split(","))
    return parts + (0,) * (6 - len(parts))


class Book:
    """The transcripts: replies by what went before and command, packets by number and by time."""

    def __init__(self) -> None:
        raw = (GOLDEN / "records.mseed").read_bytes()
        self.records = [raw[at : at + 512] for at in range(0, len(raw), 512)]
        self.sessions: dict[str, list[dict[str, Any]]] = {
            path.stem: json.loads(path.read_text())["sessions"] for path in sorted(GOLDEN.glob("*.json"))
        }

    def wire(self, reply: list[Any]) -> bytes:
        """The bytes of a recorded reply."""
        return b"".join(self._part(part) for part in reply)

    def _part(self, part: Any) -> bytes:
        if isinstance(part, dict):
            return self._info(part)
        return filled(part) if isinstance(part, str) else self.packet(*part)

    def packet(self, head: str, number: int) -> bytes:
        return head.encode() + self.records[number - 1]

    def _info(self, part: dict[str, Any]) -> bytes:
        text, header, sent = filled(part["text"]), bytes.fromhex(part["headers"]), b""
        assert len(text) == sum(part["counts"])
        for number, (head, count) in enumerate(zip(part["heads"], part["counts"], strict=True), 1):
            own = b"%06d" % number + header[6:30] + count.to_bytes(2, "big") + header[32:]
            piece, text = text[:count], text[count:]
            sent += head.encode() + (own + piece).ljust(512, b"\0")
        return sent

    @cached_property
    def replies(self) -> dict[tuple[str, str], bytes]:
        """(``""``, ``station`` or ``stream``: what the connection is at, command) -> reply.

        At ``extended`` stand the replies to clients that asked for a reason beside ERROR.
        """
        found: dict[tuple[str, str], bytes] = {}
        for session in (one for sessions in self.sessions.values() for one in sessions):
            at = ""
            for exchange in session["exchanges"]:
                line = exchange["send"].strip()
                found.setdefault((at, line), self.wire(exchange["reply"]))
                at = following(at, line)
        return found

    @cached_property
    def rows(self) -> dict[int | Moment, list[Packet]]:
        """What all stations have from a number on, or from a time on."""
        found: dict[int | Moment, list[Packet]] = {}
        for session in [s for name in ("sequence_data", "sequence_fetch", "time") for s in self.sessions[name]]:
            exchange = session["exchanges"][0]
            verb, *words = exchange["send"].split()
            if verb in ("DATA", "FETCH") and len(words) == 1 and exchange["reply"] != ["ERROR\r\n"]:
                found[int(words[0], 16) % 2**24] = packets_of(exchange["reply"])
            elif verb == "TIME" and len(words) == 1 and words[0][0] == "2" and exchange["reply"] != ["ERROR\r\n"]:
                found[moment(words[0])] = packets_of(exchange["reply"])
        return found

    def row(self, action: str) -> list[Packet] | None:
        """What an action brings; None for DATA alone."""
        verb, *words = action.split()
        if not words:
            return None
        if verb == "TIME" and len(words) == 2:
            raise Unrecorded(f"a window: {action}")
        key: int | Moment = moment(words[0]) if verb == "TIME" else int(words[0], 16)
        if len(words) == 2 and moment(words[1]) != self._start(int(words[0], 16) - 1):
            key = moment(words[1])
        if key not in self.rows:
            raise Unrecorded(action)
        return self.rows[key]

    def _start(self, number: int) -> Moment | None:
        """When a record starts, to the second."""
        if not 1 <= number <= len(self.records):
            return None
        return moment(str(RECORDER.start_of(self.records[number - 1])))

    def stream(self, number: int) -> tuple[str, str]:
        """(``UH3``, ``SHZ``)."""
        header = self.records[number - 1]
        return header[8:13].decode().strip(), header[15:18].decode()


RECORDER = load_recorder()


def packets_of(reply: list[Any]) -> list[Packet]:
    return [(part[0], part[1]) for part in reply if isinstance(part, list)]


def following(at: str, line: str) -> str:
    """What a connection is at after a command."""
    verb = line.split(maxsplit=1)[0].upper() if line else ""
    if at == "extended" or line == EXTENDED:
        return "extended"
    if at == "batch" or verb == "BATCH":
        return "batch"  # commands are not answered any more
    if at == "stream" or verb in ("END", "ENDFETCH") or (at == "" and verb in ("DATA", "FETCH", "TIME")):
        return "stream"
    return "station" if verb == "STATION" else at


@dataclass
class Wanted:
    name: tuple[str, ...]
    """Station and network."""
    selectors: list[str] = field(default_factory=list)
    action: str = "DATA"

    def takes(self, station: str, channel: str) -> bool:
        codes = [selector.removeprefix("--") for selector in self.selectors]
        return (station, "BW") == self.name and (not codes or any(fnmatchcase(channel, code) for code in codes))


class Dialogue:
    """One connection."""

    def __init__(self, book: Book, instead: Mapping[str, str] = {}) -> None:
        """`instead`: command -> the one whose recorded reply is given for it."""
        self._book, self._instead = book, instead
        self._at, self._extended = "", False
        self._wanted: list[Wanted] = []

    def answer(self, line: str) -> bytes:
        """Raises Unrecorded."""
        line = self._instead.get(line, line)
        if line == "END" and self._wanted:
            self._at = "stream"
            return b"".join(self._book.packet(*packet) for packet in self.data())
        reply = self._reply(line)
        if reply.startswith(b"OK"):
            self._note(line)
        if line == EXTENDED:
            self._extended = True
        else:
            self._at = following(self._at, line)
        return reply

    def _reply(self, line: str) -> bytes:
        known = [line, *(re.sub(pattern, same, line) for pattern, same in SAME if re.fullmatch(pattern, line))]
        if self._extended and ("extended", line) in self._book.replies:
            return self._book.replies["extended", line]
        for name in known:
            if (self._at, name) in self._book.replies:
                return self._book.replies[self._at, name]
        raise Unrecorded(line)

    def _note(self, line: str) -> None:
        verb, *words = line.split()
        if verb == "STATION":
            again = [wanted for wanted in self._wanted if wanted.name == tuple(words)]
            self._wanted = [wanted for wanted in self._wanted if wanted not in again]
            self._wanted += again or [Wanted(tuple(words))]
        elif verb == "SELECT" and self._wanted:
            self._wanted[-1].selectors.append(words[0])
        elif self._wanted and verb in ("DATA", "FETCH", "TIME"):
            self._wanted[-1].action = line

    def data(self) -> list[Packet]:
        """What comes after END: one row for all, from the newest number that any station asks for."""
        unknown = [one for wanted in self._wanted for one in wanted.selectors if not SIMPLE.fullmatch(one)]
        unknown += [
            str(wanted.name) for wanted in self._wanted if len(wanted.name) != 2 or set("*?") & set(wanted.name[0])
        ]
        if unknown:
            raise Unrecorded(f"meaning of {unknown[0]}")
        counted = [wanted.action for wanted in self._wanted if not wanted.action.startswith("TIME")]
        rows = [row for row in map(self._book.row, counted) if row is not None]
        if not rows:
            timed = {wanted.action for wanted in self._wanted} - set(counted)
            if len(timed) > 1:
                raise Unrecorded(str(sorted(timed)))
            rows = [self._book.row(action) or [] for action in timed]
        row: list[Packet] = min(rows, key=len, default=[])
        return [(head, number) for head, number in row if self._wants(number)]

    def _wants(self, number: int) -> bool:
        return any(wanted.takes(*self._book.stream(number)) for wanted in self._wanted)


class RecordedServer(ScriptedServer):
    """`Dialogue` on loopback, with one thread for each connection."""

    def __init__(
        self,
        book: Book,
        *,
        version_4: bool = True,
        instead: Mapping[str, str] = {},
        close_after: int | None = None,
        end: bool = False,
    ) -> None:
        """`close_after` packets the first stream is closed; with `end` it is closed with END, as after FETCH."""
        self.book, self.instead = book, instead
        self.version_4, self.close_after, self.end = version_4, close_after, end
        self.sessions: list[list[str]] = []
        """The commands of each connection."""
        self.unrecorded: list[str] = []
        super().__init__(Script())

    def _talk(self, sock: socket.socket) -> None:
        dialogue, said = Dialogue(self.book, self.instead), list[str]()
        self.sessions.append(said)
        for line in self._heard(sock):
            said.append(line)
            try:
                reply = dialogue.answer(line)
            except Unrecorded as error:
                self.unrecorded.append(str(error))
                return
            if line == "HELLO" and not self.version_4:
                reply = reply.replace(VERSION_4.encode(), b"")
            if line == "END" and (self.close_after is not None or self.end):
                sock.sendall(self._last_words(reply))
                return
            sock.sendall(reply)

    def _heard(self, sock: socket.socket) -> Iterator[str]:
        return (line for line in _lines(sock) if line != "BYE")

    def _last_words(self, data: bytes) -> bytes:
        """Once; the next connection stays."""
        whole = data if self.close_after is None else data[: self.close_after * 520]
        said = whole + (b"END" if self.end else b"")
        self.close_after, self.end = None, False
        return said

    def asked(self) -> list[list[str]]:
        """The commands between the greeting and END of each connection that asked for data."""
        return [
            said[next(at for at, line in enumerate(said) if line.startswith("STATION")) : said.index("END")]
            for said in self.sessions
            if "END" in said
        ]
