"""Record what a real SeedLink server answers, as the transcripts in this folder. README.md says how it is used.

Run by hand against a server that already holds the records of ``records.mseed``; it starts no server. The tests use
`described` to bring other servers' answers into the same form.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import socket
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Part = str | list[Any] | dict[str, Any]
HEAD, RECORD = 8, 512
QUIET_S = 0.6
"""A reply is over when nothing has come for so long: on loopback a thousand times a round trip."""

SLOW_S = 25.0
"""The same for time windows with an end: ringserver sleeps ever longer at packets that it skips before END."""

VOLATILE = (
    (re.compile(rb'started="[^"]*"'), b'started="@time@"'),
    (re.compile(rb'ctime="[^"]*"'), b'ctime="@time@"'),
    (re.compile(rb'host="[^"]*"'), b'host="@host@"'),
    (re.compile(rb'port="[^"]*"'), b'port="@port@"'),
    (re.compile(rb"SeedLink v[^\r\n\"]*"), b"SeedLink v@version@"),
    (re.compile(rb'organization="[^"]*"'), b'organization="@organisation@"'),
)
"""What differs from run to run or from site to site, and what stands for it."""

SESSIONS: dict[str, list[list[str]]] = {
    "greeting": [
        ["HELLO\r\n"],
        ["hello\r"],
        ["Hello\n"],
        ["HELLO\r\n", "BYE\r\n"],
        ["BYE\r\n"],
        ["CAT\r\n"],
        ["FOO\r\n", "HELLO\r\n"],
        ["\r\n", "HELLO\r\n"],
        ["FOO BAR\r\n"],
        ["CAPABILITIES EXTREPLY\r\n", "FOO\r\n"],
        ["BATCH\r\n", "STATION UH1 BW\r\n", "FETCH 2\r\n", "END\r\n"],
        ["USERAGENT test/1.0\r\n"],
        ["SLPROTO 3.1\r\n"],
        ["STATION UH1 BW\r\nSELECT SHZ\r\nFETCH 2\r\nEND\r\n"],
        ["x" * 600 + "\r\n", "HELLO\r\n"],
    ],
    "info": [
        [f"INFO {level}\r\n"]
        for level in ("ID", "CAPABILITIES", "STATIONS", "STREAMS", "CONNECTIONS", "GAPS", "ALL", "NONSENSE")
    ]
    + [
        ["INFO\r\n"],
        ["info id\r"],
        ["STATION UH1 BW\r\n", "INFO ID\r\n", "DATA 2\r\n"],
        ["DATA\r\n", "INFO ID\r\n", "INFO STREAMS\r\n", "HELLO\r\n", "BYE\r\n"],
    ],
    "sequence_fetch": [[f"FETCH {n:X}\r\n"] for n in (0, 1, 2, 3, 12)]
    + [
        ["FETCH @last\r\n"],
        ["FETCH @last+1\r\n"],
        ["FETCH @last+2\r\n"],
        ["FETCH FFFFFF\r\n"],
        ["FETCH\r\n"],
        ["FETCH 00000c\r\n"],
        ["FETCH 0xC\r\n"],
        ["FETCH 100000C\r\n"],
        ["FETCH XYZ\r\n"],
    ],
    "sequence_data": [
        ["DATA\r\n"],
        ["DATA 1\r\n"],
        ["DATA 2\r\n"],
        ["DATA 00000C\r\n"],
        ["DATA @last\r\n"],
        ["DATA @last+1\r\n"],
        ["DATA @last+2\r\n"],
        ["DATA 2 3 4\r\n"],
    ],
    "sequence_time": [
        ["FETCH 00000C @start-of-11\r\n"],
        ["FETCH 00000C @start-of-12\r\n"],
        ["FETCH 00000C 2010,05,27,16,24,30\r\n"],
        ["FETCH 00000C 2030,01,01,00,00,00\r\n"],
        ["STATION UH3 BW\r\n", "FETCH 00000C @start-of-11\r\n", "END\r\n"],
        ["STATION UH3 BW\r\n", "FETCH 00000C 2010,05,27,16,24,30\r\n", "END\r\n"],
        ["STATION UH3 BW\r\n", "FETCH FFFF00 2010,05,27,16,24,30\r\n", "END\r\n"],
        ["FETCH 2 nonsense\r\n"],
    ],
    "time": [
        ["TIME 2010,05,27,16,24,30\r\n"],
        ["TIME 2010,05,27,16,24,30 2010,05,27,16,24,31\r\n"],
        ["TIME 2010,05,27,16,20,00 2010,05,27,16,24,10\r\n"],
        ["TIME 2010,05,28,00,00,00\r\n"],
        ["TIME 2010-05-27T16:24:30 2010-05-27T16:24:31\r\n"],
        ["TIME 2010,05,27,16,24\r\n"],
        ["TIME nonsense\r\n"],
        ["TIME\r\n"],
        ["TIME 2040,01,01,00,00,00\r\n"],
        ["TIME 2010,05,27,16,24,30.500 2010,05,27,16,24,31\r\n"],
        ["STATION UH3 BW\r\n", "SELECT SHZ\r\n", "TIME 2010,05,27,16,24,30\r\n", "END\r\n"],
        [
            "STATION UH3 BW\r\n",
            "TIME 2010,05,27,16,24,30 2010,05,27,16,24,31\r\n",
            "STATION UH1 BW\r\n",
            "TIME 2010,05,27,16,24,20 2010,05,27,16,24,25\r\n",
            "END\r\n",
        ],
        ["STATION UH3 BW\r\n", "TIME 2010,05,27,16,20,00 2010,05,27,16,24,12\r\n", "END\r\n"],
    ],
    "stations": [
        ["STATION UH1 BW\r\n", "DATA\r\n", "END\r\n"],
        ["STATION UH1 BW\r\n", "DATA 2\r\n", "END\r\n"],
        ["STATION UH1 BW\r\n", "FETCH 2\r\n", "END\r\n"],
        ["STATION UH1 BW\r\n", "FETCH 2\r\n", "STATION UH4 BW\r\n", "FETCH C\r\n", "END\r\n"],
        ["STATION UH1 BW\r\n", "FETCH 2\r\n", "STATION UH4 BW\r\n", "DATA\r\n", "END\r\n"],
        ["STATION UH1\r\n", "FETCH 2\r\n", "END\r\n"],
        ["STATION * BW\r\n", "FETCH 2\r\n", "END\r\n"],
        ["STATION UH? BW\r\n", "FETCH 2\r\n", "END\r\n"],
        ["STATION * *\r\n", "FETCH 2\r\n", "END\r\n"],
        ["STATION NONE XX\r\n", "FETCH 2\r\n", "END\r\n"],
        ["STATION\r\n"],
        ["STATION UH1 BW 00 SHZ\r\n"],
        ["STATION UH$ BW\r\n"],
        ["STATION UH1 BW\r\n", "END\r\n"],
        ["END\r\n"],
        ["STATION UH1 BW\r\n", "FETCH 2\r\n", "ENDFETCH\r\n"],
        ["ENDFETCH\r\n"],
        ["STATION uh1 bw\r\n", "FETCH 2\r\n", "END\r\n"],
        ["STATION UH1 BW\r\n", "FETCH 2\r\n", "STATION UH1 BW\r\n", "SELECT SHE\r\n", "FETCH 2\r\n", "END\r\n"],
    ],
    "selectors": [
        ["STATION UH3 BW\r\n", *[f"SELECT {s}\r\n" for s in selectors.split("+")], "FETCH 2\r\n", "END\r\n"]
        for selectors in (
            "SHZ",
            "SH?",
            "??SHZ",
            "--SHZ",
            "00SHZ",
            "!SHE",
            "!SHE+!SHN",
            "SHZ+SHN",
            "SH?+!SHE",
            "!SHE+SH?",
            "SHZ.D",
            "SHZ.E",
            "S",
            "SHZZ",
            "SHZ SHN",
            "*",
            "S*",
            "???",
            "shz",
            "",
            "H?Z",
            "-SHZ",
            "?SHZ",
            "?????",
            "!SHZ.D",
            "..D",
        )
    ]
    + [
        ["SELECT SHZ\r\n", "FETCH 2\r\n"],
        ["SELECT !SHE\r\n", "FETCH 2\r\n"],
        ["SELECT SHZ\r\n", "SELECT SHN\r\n", "FETCH 2\r\n"],
        ["SELECT EHZ\r\n", "STATION UH3 BW\r\n", "FETCH 2\r\n", "END\r\n"],
    ],
}


def receive(connection: socket.socket, quiet_s: float) -> tuple[bytes, bool]:
    """(all bytes until the server is quiet, whether it closed)."""
    connection.settimeout(quiet_s)
    taken = b""
    while True:
        try:
            data = connection.recv(65536)
        except TimeoutError:
            return taken, False
        except ConnectionResetError:
            return taken, True
        if not data:
            return taken, True
        taken += data


def normalised(data: bytes) -> bytes:
    for pattern, text in VOLATILE:
        data = pattern.sub(text, data)
    return data


def described(data: bytes, records: dict[str, int]) -> list[Part]:
    """Text as it is, ``[header, number of the record]`` for a data packet, a dictionary for the packets of an INFO."""
    parts: list[Part] = []
    while data:
        at = next_packet(data)
        if at > 0:
            parts.append(normalised(data[:at]).decode("latin-1"))
            data = data[at:]
            continue
        head, record, data = data[:HEAD].decode(), data[HEAD : HEAD + RECORD], data[HEAD + RECORD :]
        if head.startswith("SLINFO"):
            add_info(parts, head, record)
        else:
            parts.append([head, records[hashlib.sha256(record).hexdigest()]])
    return [with_marks(part) for part in parts]


def next_packet(data: bytes) -> int:
    """Where the next packet begins; the end of the data if none does."""
    found = re.search(rb"SLINFO [ *]|SL[0-9A-F]{6}(?=[0-9]{6}D )", data)
    return found.start() if found else len(data)


def add_info(parts: list[Part], head: str, record: bytes) -> None:
    """Add an INFO packet to those of the same answer, so that volatile text cut by a packet's border can be marked."""
    count, begin = int.from_bytes(record[30:32], "big"), int.from_bytes(record[44:46], "big")
    last = parts[-1] if parts else None
    if not (isinstance(last, dict) and last["heads"][-1] == "SLINFO *"):
        last = {"heads": [], "headers": record[:begin].hex(), "counts": [], "text": ""}
        parts.append(last)
    last["heads"].append(head)
    last["counts"].append(count)
    last["text"] += record[begin : begin + count].decode("latin-1")


def with_marks(part: Part) -> Part:
    if isinstance(part, dict):
        part["text"] = normalised(part["text"].encode()).decode()
    return part


def filled(line: str, starts: list[str]) -> str:
    last = len(starts)
    for mark, value in (
        ("@last+2", f"{last + 2:06X}"),
        ("@last+1", f"{last + 1:06X}"),
        ("@last", f"{last:06X}"),
        ("@start-of-11", starts[10]),
        ("@start-of-12", starts[11]),
    ):
        line = line.replace(mark, value)
    return line


def start_of(record: bytes) -> str:
    year, day = int.from_bytes(record[20:22], "big"), int.from_bytes(record[22:24], "big")
    date = datetime.date(year, 1, 1) + datetime.timedelta(days=day - 1)
    return f"{date.year:04d},{date.month:02d},{date.day:02d},{record[24]:02d},{record[25]:02d},{record[26]:02d}"


def is_window(line: str) -> bool:
    """``TIME begin end``."""
    return line.startswith("TIME") and len(line.split()) == 3


def session(address: tuple[str, int], lines: list[str], records: dict[str, int]) -> dict[str, object]:
    exchanges = []
    closed = False
    windows = any(is_window(line) for line in lines)
    with socket.create_connection(address) as connection:
        for line in lines:
            try:
                connection.sendall(line.encode())
            except OSError:
                closed = True
                break
            data, closed = receive(
                connection, SLOW_S if is_window(line) or (line == "END\r\n" and windows) else QUIET_S
            )
            exchanges.append({"send": line, "reply": described(data, records)})
            if closed:
                break
    return {"exchanges": exchanges, "closed": closed}


def main(host: str, port: str, software: str, *names: str) -> None:
    raw = (HERE / "records.mseed").read_bytes()
    pieces = [raw[i : i + RECORD] for i in range(0, len(raw), RECORD)]
    records = {hashlib.sha256(piece).hexdigest(): number for number, piece in enumerate(pieces, 1)}
    starts = [start_of(piece) for piece in pieces]
    for name in names or SESSIONS:
        scripts = SESSIONS[name]
        sessions = [session((host, int(port)), [filled(line, starts) for line in lines], records) for lines in scripts]
        text = json.dumps({"server": software, "sessions": sessions}, indent=1)
        (HERE / f"{name}.json").write_text(text + "\n")
        sys.stdout.write(f"{name}: {len(sessions)} sessions, {len(text)} bytes\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
