"""What the supervisor needs of a transport, the reasons why one fails, and the opening of sockets.

A transport is one connection: open, then either list or stream, then close. It never reconnects by itself and keeps no
state on disk. `interrupt` may be called from any thread at any time and ends whatever the connection is doing.
"""

from __future__ import annotations

import math
import select
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from streamer.source.address import Address
from streamer.source.listing import Listing
from streamer.source.resume import Begin

MAX_LISTING_BYTES = 1 << 26
"""Of an INFO reply: some hundred for each channel, and the largest servers list a hundred thousand."""
TICK_S = 0.5
"""How often a waiting connection looks at its stop flag and its watchdog; well under the 2 s in which both must act."""


class Cause(StrEnum):
    """Why a connection failed or ended: the label ``cause`` of the metrics."""

    CONNECT = "connect"
    """Name not found, refused, unreachable, no answer, TLS not agreed."""
    NEGOTIATE = "negotiate"
    """The server answered, but not as SeedLink, or accepted no station."""
    AUTH = "auth"
    INFO = "info"
    """INFO STREAMS is refused or unreadable, and the configured list needs it."""
    EMPTY = "empty"
    """No station of the server matches the selection."""
    CLOSED = "closed"
    """By the server."""
    SILENT = "silent"
    """Not a byte for `silence_s`, nor an answer to a keep-alive: half open, or hung."""
    STALLED = "stalled"
    """Keep-alives are answered, but no data for `stall_s`."""
    PROTOCOL = "protocol"
    """What came cannot be cut into packets."""
    INTERNAL = "internal"
    """A fault of this program; the log holds its trace."""


class TransportError(Exception):
    """A connection failed; `detail` holds no secrets."""

    def __init__(self, cause: Cause, detail: str) -> None:
        super().__init__(f"{cause}: {detail}")
        self.cause = cause
        self.detail = detail


class Interrupted(Exception):  # noqa: N818 - not an error: somebody asked for it
    """`interrupt` was called."""


@dataclass(frozen=True, slots=True)
class Limits:
    connect_s: float = 10.0
    """For name, TCP, TLS and each reply of the negotiation: each much slower than any server in use."""
    silence_s: float = 60.0
    stall_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Request:
    """One station of a connection."""

    station: str
    """``NET_STA``."""
    selectors: tuple[str, ...]
    """SeedLink 3's."""
    channels: tuple[str, ...]
    """SeedLink 4's."""


@dataclass(frozen=True, slots=True)
class RawPacket:
    sequence: int
    station: str | None
    """``NET_STA`` where the packet itself says it (SeedLink 4)."""
    payload: bytes
    received_ns: int
    size: int
    """Bytes on the wire, SeedLink's header included."""


class Connection(Protocol):
    """One connection to one server. Every method but `interrupt` belongs to one thread."""

    def open(self) -> str:
        """Connect and greet; returns the server's greeting. Raises TransportError, Interrupted."""

    @property
    def numbers(self) -> int:
        """How many sequence numbers there are before they wrap; known once open."""

    def listing(self) -> Listing:
        """INFO STREAMS. Raises ListingError where the server refuses, TransportError, Interrupted."""

    def begin(self, requests: tuple[Request, ...], begins: Mapping[str, Begin]) -> None:
        """Negotiate: after this the server sends. Raises TransportError, Interrupted."""

    def packets(self) -> Iterator[RawPacket]:
        """Endless; every end raises TransportError or Interrupted."""

    def close(self) -> None: ...

    def interrupt(self) -> None: ...


_STARTS = (b"SL", b"SE", b"EN", b"ER")
"""Of a packet of version 3 and 4, of END and of ERROR."""


def may_follow(data: bytes) -> bool:
    """Whether what came behind a packet, if anything has, can be the next one. If not, the packet itself may be torn, and is
    asked for once more: FLOAT32 records carry no check of their own."""
    return any(start.startswith(data[:2]) for start in _STARTS)


READ_S = 0.02
"""From one read to the next, where few packets come with each: a network's packets trickle in one by one, and waking up for each
costs more than to decode it."""
BUSY = 25.0
"""Packets a second on a connection from which on that is so: some thirty stations. Fewer are read as they come."""
MANY = 12
"""Packets of one read from which on the next follows at once: what waits is to be fetched."""


class Pace:
    """How soon a connection is read again. Knows no clock."""

    def __init__(self, now_s: float) -> None:
        self._read_s, self._taken = -math.inf, 0
        self._second_s, self._count, self._busy = now_s, 0, False

    def took(self) -> None:
        """A packet was taken out of what was read."""
        self._taken += 1

    def pause_s(self, now_s: float) -> float:
        """Of the read that is to come now: on a busy connection until packets that come one after the other have become some, so
        that data are `READ_S` later at most. 0 where the last read completed no packet: a listing, or a packet in pieces."""
        taken, self._taken = self._taken, 0
        self._count += taken
        if now_s - self._second_s >= 1.0:
            self._busy = self._count >= BUSY * (now_s - self._second_s)
            self._second_s, self._count = now_s, 0
        waits = self._busy and 0 < taken < MANY
        pause_s = max(0.0, self._read_s + READ_S - now_s) if waits else 0.0
        self._read_s = now_s + pause_s
        return pause_s


class Life:
    """The stop flag, the watchdog's clocks and the socket of one connection: what both transports share."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.stopping = threading.Event()
        self.sock: socket.socket | None = None
        self._pace = Pace(time.monotonic())
        self.listens()

    def heard(self) -> None:
        """A byte has come."""
        self.heard_s = time.monotonic()
        self.asked = False

    def listens(self) -> None:
        """The reader is back for more: its own pauses, with a full queue, are not the server's silence."""
        if self.stopping.is_set():
            raise Interrupted
        self.heard()
        self.data_s = self.heard_s
        self._pace.took()

    def before_read(self) -> None:
        """Waits as `Pace` says."""
        if pause_s := self._pace.pause_s(time.monotonic()):
            time.sleep(pause_s)

    def check(self) -> None:
        """Raises when the connection is to end."""
        now_s = time.monotonic()
        if self.stopping.is_set():
            raise Interrupted
        if now_s - self.heard_s > self.limits.silence_s:
            raise TransportError(Cause.SILENT, f"not a byte for {self.limits.silence_s:g} s")
        if now_s - self.data_s > self.limits.stall_s:
            raise TransportError(
                Cause.STALLED, f"no data for {self.limits.stall_s:g} s, though keep-alives are answered"
            )

    def may_ask(self) -> bool:
        """True once in each silence, half way to its limit: time to ask the server whether it lives."""
        due = not self.asked and time.monotonic() - self.heard_s > self.limits.silence_s / 2
        self.asked = self.asked or due
        return due

    def interrupt(self) -> None:
        """Any thread. Shutting the socket wakes the thread that waits on it; that thread closes it."""
        self.stopping.set()
        sock = self.sock
        if sock is not None:
            with suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # under TLS too: the plain socket's, no goodbye


def dial(address: Address, life: Life) -> socket.socket:
    """A connected TCP socket, IPv4 or IPv6. Raises TransportError, or Interrupted within a tick."""
    deadline_s = time.monotonic() + life.limits.connect_s
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise TransportError(Cause.CONNECT, f"{address.host}: {error.strerror or error}") from None
    reason = "no address"
    for family, kind, protocol, _, target in found:
        sock = socket.socket(family, kind, protocol)
        try:
            _connect(sock, target, deadline_s, life)
        except OSError as error:
            sock.close()
            reason = error.strerror or str(error)
        except BaseException:
            sock.close()
            raise
        else:
            life.sock = sock
            return sock
    raise TransportError(Cause.CONNECT, f"{address.host}:{address.port}: {reason}")


def _connect(sock: socket.socket, target: tuple[object, ...], deadline_s: float, life: Life) -> None:
    """`socket.connect` with a stop flag: it would hold a stopping daemon for the whole time-out."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # the negotiation is many small commands
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    with suppress(BlockingIOError):
        sock.connect(target)
    poller = select.poll()
    poller.register(sock, select.POLLOUT)
    while not poller.poll(TICK_S * 1_000):
        if life.stopping.is_set():
            raise Interrupted
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"no answer within {life.limits.connect_s:g} s")
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, "connection refused" if code == 111 else f"connect failed (errno {code})")
    sock.settimeout(TICK_S)
