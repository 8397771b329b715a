"""SeedLink 3 as a server speaks it: bytes in, actions out. No sockets, no clock of its own, no packets.

Held against what ringserver 4.5.3 answers (tests/streamer/golden). To resume after packet n a client sends
``DATA n+1`` (hexadecimal, modulo 2^24), and may add the start time of packet n. It knows neither SeedLink 4, TLS,
authentication nor the DECOTL types of selectors; ``CAT`` answers with a list where ringserver has none.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, auto

from .ring import SEQUENCES, Numbering
from .selection import Request, Selector, StationRequest, selector, station_pattern

SOFTWARE = {
    Numbering.STATION: "SeedLink v3.1 (quake replay) :: SLPROTO:3.1 CAP EXTREPLY",
    Numbering.SERVER: "SeedLink v3.1 (quake replay, RingServer numbering) :: SLPROTO:3.1 CAP EXTREPLY",
}
"""Clients cut the version out between `` v`` and the next space; no SLPROTO:4.0, so they stay with version 3. The name
RingServer is all that tells a client which way of numbering it has to do with: ringserver 4.5.3 says ``(RingServer/4.5.3)``.
"""
HEADER_BYTES = 8
MAX_LINE = 4096
"""Bytes of a command; the longest real ones have about a hundred. A longer one ends the connection."""
MAX_STATIONS = 10_000
"""STATION commands of one connection: ringserver's limit."""
MAX_WILDCARDS = 100
"""STATION commands with wildcards of one connection: each may match every packet of the ring."""
MAX_SELECTORS = 1_000
"""SELECT commands of one connection: no real client sends a tenth, and each costs a match for every packet."""
NS = 1_000_000_000

LINE_END = re.compile(rb"\r\n|\r|\n")
SEQUENCE = re.compile(r"(0[xX])?[0-9A-Fa-f]{1,8}")
"""ObsPy writes ``0x``, and clients count past FFFFFF to 1000000, which means 000000."""
TIME_PARTS = re.compile(r"\d{4}([,/:T.-]\d{1,9}){0,6}Z?")


@dataclass(frozen=True, slots=True)
class Send:
    """Write these bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Inform:
    """Answer INFO."""

    level: str


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Answer CAT."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Send packets from now on."""

    request: Request


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection once everything is written."""


Action = Send | Inform | Catalogue | Stream | Close


class State(Enum):
    COMMAND = auto()
    STATION = auto()
    """After STATION: SELECT, DATA, FETCH and TIME are about that station."""
    STREAM = auto()
    CLOSED = auto()


class Refusal(Exception):  # noqa: N818  not an error of this program
    """A command is answered with ERROR; the code is said where the client asked for extended replies."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def packet(sequence: int, record: bytes) -> bytes:
    """A data packet: ``SL``, six hexadecimal digits, the record."""
    return b"SL%06X" % (sequence % SEQUENCES) + record


def parse_sequence(text: str) -> int:
    if not SEQUENCE.fullmatch(text):
        raise Refusal("ARGUMENTS", "Invalid sequence number")
    return int(text, 16) % SEQUENCES


def parse_time(text: str) -> int:
    """``2010,05,27,16,24,30[.5]`` or RFC 3339, as far as given, to ns."""
    if not TIME_PARTS.fullmatch(text):
        raise Refusal("ARGUMENTS", "Error parsing time")
    whole, _, fraction = text.rstrip("Z").partition(".")
    parts = [int(part) for part in re.findall(r"\d+", whole)]
    defaults = [1970, 1, 1, 0, 0, 0]
    try:
        moment = datetime(*(parts + defaults[len(parts) :])[:6], tzinfo=UTC)  # type: ignore[misc,arg-type]
    except (ValueError, OverflowError) as error:
        raise Refusal("ARGUMENTS", "Error parsing time") from error
    return int(moment.timestamp()) * NS + int(fraction.ljust(9, "0") or 0)


@dataclass(slots=True)
class Lines:
    """Cuts what comes in into lines; CR, LF and CR LF all end one."""

    pending: bytes = b""

    def feed(self, data: bytes) -> Iterator[str | None]:
        """Each whole line; None once for one that is too long, after which nothing more comes."""
        *whole, rest = LINE_END.split(self.pending + data)
        self.pending = rest[: MAX_LINE + 1]
        for line in [*whole, *([rest] if len(rest) > MAX_LINE else [])]:
            if len(line) > MAX_LINE:
                yield None
                return
            yield line.decode("ascii", errors="replace")


def wall_ns() -> int:
    return time.time_ns()


@dataclass(slots=True)
class Session:
    """One connection's side of the conversation."""

    organisation: str = "quake replay server"
    numbering: Numbering = Numbering.STATION
    now_ns: Callable[[], int] = wall_ns
    state: State = State.COMMAND
    lines: Lines = field(default_factory=Lines)
    stations: dict[str, StationRequest] = field(default_factory=dict)
    selectors: list[Selector] = field(default_factory=list)
    """Of a request without STATION."""
    current: str = ""
    dialup: bool = False
    batch: bool = False
    extended: bool = False
    selected: int = 0
    wildcards: int = 0

    def receive(self, data: bytes) -> list[Action]:
        """What to do about these bytes; whatever they are, nothing is raised."""
        actions: list[Action] = []
        for line in self.lines.feed(data):
            if self.state is State.CLOSED:
                break
            actions += self._too_long() if line is None else self._line(line)
        return actions

    def _too_long(self) -> list[Action]:
        self.state = State.CLOSED
        return [Send(b"ERROR\r\n"), Close()]

    def _line(self, line: str) -> list[Action]:
        words = line.split()
        if not words:
            return []
        name, arguments = words[0].upper(), words[1:]
        if name in ("BYE", "INFO"):
            return self._always(name, arguments)
        if self.state is State.STREAM:
            return []  # as the real server does: once data flow only INFO and BYE are heard
        try:
            return self._command(name, arguments, line)
        except Refusal as refusal:
            return self._refuse(refusal)

    def _always(self, name: str, arguments: list[str]) -> list[Action]:
        if name == "BYE" or not arguments:
            self.state = State.CLOSED
            return [Close()]
        level = arguments[0].upper()
        if self.state is State.STREAM and level in ("STATIONS", "STREAMS", "GAPS", "ALL"):
            return []  # the real server leaves these without an answer while data flow
        return [Inform(level)]

    def _command(self, name: str, arguments: list[str], line: str) -> list[Action]:
        handler = HANDLERS.get(name)
        if handler is None:
            raise Refusal("UNSUPPORTED", f"Unrecognized command: {line[:50]}")
        return handler(self, name, arguments)

    def _ok(self) -> list[Action]:
        return [] if self.batch else [Send(b"OK\r\n")]

    def _refuse(self, refusal: Refusal) -> list[Action]:
        if self.batch and refusal.code != "UNSUPPORTED":
            return []
        if not self.extended:
            return [Send(b"ERROR\r\n")]
        return [Send(f"ERROR\r{refusal.code} {refusal}\r\n".encode("ascii", errors="replace"))]

    def hello(self, _name: str, _arguments: list[str]) -> list[Action]:
        return [Send(f"{SOFTWARE[self.numbering]}\r\n{self.organisation}\r\n".encode("ascii", errors="replace"))]

    def catalogue(self, _name: str, _arguments: list[str]) -> list[Action]:
        return [Catalogue()]

    def accept(self, name: str, arguments: list[str]) -> list[Action]:
        """BATCH, CAPABILITIES, USERAGENT and SLPROTO for version 3."""
        if name == "SLPROTO" and arguments[:1] not in (["3.0"], ["3.1"]):
            raise Refusal("UNSUPPORTED", "unsupported protocol version")
        self.extended |= name == "CAPABILITIES" and "EXTREPLY" in [a.upper() for a in arguments]
        reply: list[Action] = [Send(b"OK\r\n")] if name == "BATCH" else self._ok()
        self.batch |= name == "BATCH"
        return reply

    def station(self, _name: str, arguments: list[str]) -> list[Action]:
        if not 1 <= len(arguments) <= 2:
            raise Refusal("ARGUMENTS", "STATION requires 1 or 2 arguments")
        if len(self.stations) >= MAX_STATIONS:
            raise Refusal("LIMIT", "Station limit reached")
        try:
            self.current = station_pattern(arguments[0], arguments[1] if len(arguments) > 1 else None)
        except ValueError as error:
            raise Refusal("ARGUMENTS", str(error)) from error
        if self.current not in self.stations:
            self._add(StationRequest(self.current))
        self.state = State.STATION
        return self._ok()

    def _add(self, request: StationRequest) -> None:
        self.wildcards += not request.literal
        if self.wildcards > MAX_WILDCARDS:
            raise Refusal("LIMIT", "Wildcard limit reached")
        self.stations[request.station] = request

    def select(self, _name: str, arguments: list[str]) -> list[Action]:
        if len(arguments) != 1:
            raise Refusal("ARGUMENTS", "SELECT requires a single argument")
        if self.selected >= MAX_SELECTORS:
            raise Refusal("LIMIT", "Selector limit reached")
        try:
            chosen = selector(arguments[0])
        except ValueError as error:
            raise Refusal("ARGUMENTS", str(error)) from error
        self.selected += 1
        self._selectors().append(chosen)
        return self._ok()

    def _selectors(self) -> list[Selector]:
        return self.stations[self.current].selectors if self.state is State.STATION else self.selectors

    def data(self, name: str, arguments: list[str]) -> list[Action]:
        """DATA or FETCH: ``[number [start of the last packet]]``."""
        if len(arguments) > 2:
            raise Refusal("ARGUMENTS", "Too many arguments for DATA/FETCH")
        sequence = parse_sequence(arguments[0]) if arguments else None
        last_ns = parse_time(arguments[1]) if len(arguments) > 1 else None
        self.dialup |= name == "FETCH"
        if self.state is not State.STATION:
            return self._begin(StationRequest("*", self.selectors, sequence, None, last_ns))
        request = self.stations[self.current]
        if arguments:
            request.sequence, request.last_start_ns, request.begin_ns = sequence, last_ns, last_ns
        self.state = State.COMMAND
        return self._ok()

    def time(self, _name: str, arguments: list[str]) -> list[Action]:
        """TIME: ``begin [end]``."""
        if not 1 <= len(arguments) <= 2:
            raise Refusal("ARGUMENTS", "TIME command requires 1 or 2 arguments")
        begin_ns = parse_time(arguments[0])
        end_ns = parse_time(arguments[1]) if len(arguments) > 1 else None
        if begin_ns > self.now_ns():
            raise Refusal("ARGUMENTS", "Start time cannot be in the future")
        if self.state is not State.STATION:
            return self._begin(StationRequest("*", self.selectors, begin_ns=begin_ns, end_ns=end_ns))
        request = self.stations[self.current]
        request.begin_ns, request.end_ns = begin_ns, end_ns
        self.state = State.COMMAND
        return self._ok()

    def end(self, name: str, _arguments: list[str]) -> list[Action]:
        self.dialup |= name == "ENDFETCH"
        return self._begin(StationRequest("*", self.selectors))

    def _begin(self, without_stations: StationRequest) -> list[Action]:
        self.state = State.STREAM
        if not self.stations:
            return [Stream(Request((without_stations,), self.dialup))]
        return [Stream(Request(tuple(self.stations.values()), self.dialup))]


HANDLERS: dict[str, Callable[[Session, str, list[str]], list[Action]]] = {
    "HELLO": Session.hello,
    "CAT": Session.catalogue,
    "BATCH": Session.accept,
    "CAPABILITIES": Session.accept,
    "USERAGENT": Session.accept,
    "SLPROTO": Session.accept,
    "STATION": Session.station,
    "SELECT": Session.select,
    "DATA": Session.data,
    "FETCH": Session.data,
    "TIME": Session.time,
    "END": Session.end,
    "ENDFETCH": Session.end,
}
