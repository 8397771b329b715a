"""An FDSN web service over records in memory: dataselect with and without a password, and the station service; with faults on demand."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from obspy import UTCDateTime

from streamer.server import Record

REALM, NONCE = "FDSN", "0123456789abcdef"


@dataclass(frozen=True)
class Fault:
    """Instead of an answer, or of its second half."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    text: str = ""
    cut: int = 0
    """Bytes that are left out at the end of the answer."""
    is_announced: bool = True
    """Whether the answer said how long it would be."""


class FdsnServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, records: Sequence[Record]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.records = list(records)
        self.asked: list[str] = []
        """Bodies of the requests to dataselect, in their order, those that came to nothing among them."""
        self.faults: list[Fault | None] = []
        """Of the next requests to dataselect."""
        self.closed: set[str] = set()
        """Stations whose data are for others."""
        self.users: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def found(self, request: str) -> bytes:
        """Whole records, as services send them."""
        lines = _lines(request)
        return b"".join(record.data for record in self.records if any(_matches(record, *line) for line in lines))

    def stations(self, request: str) -> str:
        lines = _lines(request)
        found = {(r.network, r.station) for r in self.records if any(_matches(r, *line) for line in lines)}
        rows = (f"{net}|{station}|48.0|11.0|500|Somewhere|2000-01-01T00:00:00|" for net, station in sorted(found))
        return "\n".join(["#Network|Station|Latitude|Longitude|Elevation|SiteName|StartTime|EndTime", *rows, ""])


def _lines(request: str) -> list[tuple[list[str], int, int]]:
    """Codes, begin and end of each."""
    rows = (line.split() for line in request.splitlines() if "=" not in line)
    return [(codes, int(UTCDateTime(begin).ns), int(UTCDateTime(end).ns)) for *codes, begin, end in rows]


def _matches(record: Record, wanted: list[str], begin_ns: int, end_ns: int) -> bool:
    codes = record.network, record.station, record.location or "--", record.channel
    is_of = all(map(fnmatchcase, codes, wanted))
    return is_of and record.start_ns <= end_ns and record.end_ns >= begin_ns


class _Handler(BaseHTTPRequestHandler):
    server: FdsnServer

    def do_GET(self) -> None:
        is_there = self.path == "/fdsnws/dataselect/1/version"
        self._answer(200 if is_there else 404, b"1.1.1" if is_there else b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        match self.path.removeprefix("/fdsnws/"):
            case "station/1/query":
                self._answer(200, self.server.stations(body).encode())
            case "dataselect/1/query":
                self._records(body)
            case "dataselect/1/queryauth" if self._is_known():
                self._records(body)
            case "dataselect/1/queryauth":
                told = f'Digest realm="{REALM}", nonce="{NONCE}", qop="auth", algorithm=MD5'
                self._answer(401, b"who are you?", {"WWW-Authenticate": told})
            case _:
                self._answer(404, b"")

    def _records(self, body: str) -> None:
        self.server.asked.append(body)
        fault = self.server.faults.pop(0) if self.server.faults else None
        content = self.server.found(body)
        if fault is not None and fault.status != 200:
            self._answer(fault.status, fault.text.encode(), fault.headers)
        elif body.split()[1] in self.server.closed:
            self._answer(403, b"restricted data")
        elif fault is not None:
            self._answer(200, fault.text.encode() or content, cut=fault.cut, is_announced=fault.is_announced)
        else:
            self._answer(200 if content else 204, content)

    def _is_known(self) -> bool:
        """RFC 7616 with qop=auth and MD5, as dataselect's queryauth has it."""
        told = dict(re.findall(r'(\w+)="?([^",]*)"?', self.headers.get("Authorization", "")))
        if told.get("username") not in self.server.users:
            return False
        secret = _md5(f"{told['username']}:{REALM}:{self.server.users[told['username']]}")
        request = _md5(f"{self.command}:{self.path}")
        return told["response"] == _md5(f"{secret}:{NONCE}:{told['nc']}:{told['cnonce']}:auth:{request}")

    def _answer(
        self, status: int, content: bytes, headers: Mapping[str, str] = {}, cut: int = 0, is_announced: bool = True
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if is_announced:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) - cut])

    def log_message(self, format: str, *args: object) -> None:
        pass


def _md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


@contextmanager
def serving(records: Sequence[Record]) -> Iterator[FdsnServer]:
    with FdsnServer(records) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
