"""One connection: reads commands, answers them, and writes packets from the ring until either side ends it.

What bytes mean is decided in protocol.py, what is held in ring.py; this is the shell that moves them. Packets are
written one by one, each as soon as it is released. It does not decide when that is.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass
from typing import Protocol

from .faults import Faults
from .info import Connection, Facts, answer, catalogue
from .limits import (
    ASKING_S,
    BYTES_A_SECOND,
    BYTES_AT_ONCE,
    LISTINGS_A_SECOND,
    LISTINGS_AT_ONCE,
    Bucket,
)
from .protocol import Action, Catalogue, Close, Inform, Send, Session, Stream, packet, wall_ns
from .records import RECORD_BYTES, Record
from .ring import Held, Ring
from .selection import Request

READ_BYTES = 4096
WRITE_BUFFER_BYTES = 64 * 1024
"""So much may wait for a slow client in this process before its stream pauses: 126 packets."""
FLUSH_S = 2.0
"""How long what is written may take to leave for a client that reads no more, once the connection is to be closed."""
CHEAP = ("ID", "CAPABILITIES")
"""INFO's levels that look through neither the ring nor the connections."""
YIELD_EVERY = 64
"""Packets in a row before other connections get their turn."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A packet was handed to the system for one client."""

    record: Record
    sequence: int
    sent_ns: int
    """This machine's clock, UTC."""


@dataclass(frozen=True, slots=True)
class Route:
    """What one stream means to one client."""

    first_index: int
    """Packets before this place in the ring are not sent."""
    end_ns: int | None
    """Packets that start later are not sent."""


class Hub(Protocol):
    """What a client needs of its server."""

    ring: Ring
    faults: Faults

    @property
    def everything_out(self) -> bool:
        """Whether a client that wants no more than there is may be told END."""

    def facts(self) -> Facts: ...
    def streaming(self, client: Client) -> None: ...
    def progress(self, client: Client) -> None: ...
    def sent(self, client: Client, sent: Sent, size: int) -> None: ...
    def overrun(self, packets: int) -> None: ...
    def gave_up(self) -> None: ...
    def breaking(self) -> bool: ...
    def broke(self) -> None: ...


class Client:
    """One connection of one server."""

    def __init__(self, hub: Hub, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, organisation: str) -> None:
        self.hub, self.reader, self.writer = hub, reader, writer
        self.session = Session(organisation, hub.ring.numbering)
        self.cursor: int | None = None
        """The place in the ring of the next packet to look at; None before data are asked for."""
        self.stalled = False
        self.packets, self.sent_bytes, self.last_sequence, self.since_ns = 0, 0, 0, wall_ns()
        self.wake = asyncio.Event()
        self._bytes = Bucket(BYTES_A_SECOND, BYTES_AT_ONCE)
        self._listings = Bucket(LISTINGS_A_SECOND, LISTINGS_AT_ONCE)
        self._requests: Request | None = None
        self._positions: list[int] = []
        self._routes: dict[str, Route | None] = {}
        self._seen: set[str] = set()
        self._ended: set[str] = set()
        self._stream: asyncio.Task[None] | None = None

    @property
    def connection(self) -> Connection:
        host, port = (self.writer.get_extra_info("peername") or ("", 0))[:2]
        return Connection(host, port, self.since_ns, self.last_sequence, self.packets, self.sent_bytes)

    async def run(self) -> None:
        """Until the connection is over, whoever ends it."""
        self._configure()
        waiting = asyncio.get_running_loop().call_later(ASKING_S, self._give_up)
        try:
            await self._converse()
        except OSError:
            pass  # the client went away; there is nobody to tell
        finally:
            waiting.cancel()
            await self._finish()

    def _give_up(self) -> None:
        if self.cursor is None:
            self.hub.gave_up()
            self.writer.transport.abort()  # it may not be reading either

    def _configure(self) -> None:
        transport = self.writer.transport
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def _converse(self) -> None:
        while data := await self.reader.read(READ_BYTES):
            await _held_back(self._bytes, len(data))
            if self.stalled:
                continue  # read and forget, so that the client's own close is still noticed
            for action in self.session.receive(data):
                if isinstance(action, Close):
                    return
                await self._do(action)

    async def _do(self, action: Action) -> None:
        match action:
            case Send(data):
                self.writer.write(data)
            case Inform(level):
                await _held_back(self._listings, level not in CHEAP)
                self.writer.write(answer(level, self.hub.facts(), wall_ns()))
            case Catalogue():
                await _held_back(self._listings, 1)
                self.writer.write(catalogue(self.hub.facts()))
            case Stream(request):
                self._begin(request)
            case Close():
                return
        await self.writer.drain()

    def _begin(self, request: Request) -> None:
        self._requests, self._positions = request, self.hub.ring.positions(request)
        self.cursor = min(self._positions)
        self.hub.streaming(self)
        self._stream = asyncio.create_task(self._send_all(request.dialup))

    async def _finish(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await self._stream
        self.writer.close()
        try:
            async with asyncio.timeout(FLUSH_S):
                await self.writer.wait_closed()
        except OSError:
            self.writer.transport.abort()

    async def _send_all(self, dialup: bool) -> None:
        try:
            await self._packets(dialup)
        finally:
            self.writer.close()  # so the reader ends too, and the connection with it

    async def _packets(self, dialup: bool) -> None:
        """Returns when the connection is to be closed."""
        turn = 0
        while True:
            self.wake.clear()
            held = self._next()
            if held is None:
                if self._over(dialup):
                    self.writer.write(b"END")
                    return
                await self.wake.wait()
                continue
            if self.hub.breaking() and self._break(held):
                return
            if not self.stalled:
                self._send(held)
            await self.writer.drain()
            turn += 1
            if turn % YIELD_EVERY == 0:
                await asyncio.sleep(0)

    def _over(self, dialup: bool) -> bool:
        return not self.stalled and (self._window_over() or (dialup and self.hub.everything_out))

    def _next(self) -> Held | None:
        """The next packet this client wants; None when the ring has no more of them."""
        ring, found = self.hub.ring, None
        if self.stalled or self.cursor is None:
            return None
        if self.cursor < ring.first_index:
            self.hub.overrun(ring.first_index - self.cursor)
            self.cursor = ring.first_index
        while found is None and not self._window_over() and (held := ring.get(self.cursor)) is not None:
            found = held if self._wants(held) else None
            self.cursor += 1
        self.hub.progress(self)
        return found

    def _wants(self, held: Held) -> bool:
        name = held.record.stream_id
        if name not in self._routes:
            self._routes[name] = self._route(name)
        route = self._routes[name]
        if route is None or held.index < route.first_index:
            return False
        if route.end_ns is None:
            return True
        self._seen.add(name)
        if held.record.start_ns > route.end_ns:
            self._ended.add(name)
        return name not in self._ended

    def _route(self, name: str) -> Route | None:
        assert self._requests is not None
        pairs = zip(self._requests.stations, self._positions, strict=True)
        matching = [(station, position) for station, position in pairs if station.accepts(name)]
        if not matching:
            return None
        ends = [station.end_ns for station, _ in matching]
        end_ns = None if None in ends else max(end for end in ends if end is not None)
        return Route(min(position for _, position in matching), end_ns)

    def _window_over(self) -> bool:
        """Whether every stream that came has passed the end of its window."""
        return bool(self._seen) and self._seen == self._ended

    def _send(self, held: Held) -> None:
        data = packet(held.sequence, held.record.data)
        self.writer.write(data)
        self.packets += 1
        self.sent_bytes += len(data)
        self.last_sequence = held.sequence
        self.hub.sent(self, Sent(held.record, held.sequence, wall_ns()), len(data))

    def _break(self, held: Held) -> bool:
        """Carry out a fault that is due on this connection; whether the connection is to be closed."""
        faults = self.hub.faults
        if faults.stall_after is not None and self.packets >= faults.stall_after:
            self.stalled = True
            self.hub.broke()
            return False
        if faults.truncate_after is not None and self.packets >= faults.truncate_after:
            self.writer.write(packet(held.sequence, held.record.data[: RECORD_BYTES // 2]))
            self.hub.broke()
            return True
        if faults.close_after is not None and self.packets >= faults.close_after:
            self.hub.broke()
            return True
        return False


async def _held_back(bucket: Bucket, count: float) -> None:
    wait_s = bucket.take(count, asyncio.get_running_loop().time())
    if wait_s > 0:
        await asyncio.sleep(wait_s)
