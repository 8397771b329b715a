"""SeedLink 3 through ObsPy's client, corrected: the default transport.

What is kept of ObsPy 1.5.1's `SeedLinkConnection`: the greeting, the receive buffer, the cutting into packets and the
assembling of INFO replies (`collect`). What is replaced, and why:

- `connect`: raises whenever no time-out is set, and a set time-out later ends `collect`; knows IPv4 only.
- `receive_data`: takes the end of the stream for "no data yet" and sleeps; a close went unnoticed for minutes.
- `send_data`: one `recv` for a reply, so a greeting in two segments shifts all later replies by one.
- the negotiation: swallows every error, and knows no `TIME` for one station.
- `update_stream`: decodes each record once more, slower than all the rest, for resume points that we keep ourselves.
- `is_connected`: a `select` for each packet; here the end is seen where it happens, on reading.
- `SLPacket.get_string_payload`: copies as many bytes of an INFO reply as its header claims, past the record's end too.
- an INFO reply without end, which would be gathered until memory ends.

ObsPy's own reconnecting and its state file never run: `collect` is entered only when the connection stands, and every
end of it raises. Records are 512 bytes here, as ObsPy has it; other lengths need ``transport=seedlink-client``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

from obspy.clients.seedlink.client.seedlinkconnection import SeedLinkConnection
from obspy.clients.seedlink.client.slnetstation import SLNetStation
from obspy.clients.seedlink.client.slstate import SLState
from obspy.clients.seedlink.seedlinkexception import SeedLinkException
from obspy.clients.seedlink.slpacket import SLPacket
from pymseed import MiniSEEDError, MS3Record

from streamer.source.address import Address
from streamer.source.listing import Listing, ListingError, counts_for_all, parse_xml
from streamer.source.resume import V3_NUMBERS, Begin, action_v3
from streamer.source.transport import (
    MAX_LISTING_BYTES,
    Cause,
    Interrupted,
    Life,
    Limits,
    RawPacket,
    Request,
    TransportError,
    dial,
    may_follow,
)

_log = logging.getLogger(__name__)
_REPLY_BYTES = 1024
"""A reply is one short line; a server that writes more without an end of line is no SeedLink server."""
_NO_PACKET = "no packet where one must begin; records that are not 512 bytes need ?transport=seedlink-client"


class _Packet(SLPacket):  # type: ignore[misc]  # ObsPy has no types
    """A packet whose text is no longer than its record."""

    def get_string_payload(self) -> bytes:
        try:
            record = MS3Record.parse(bytes(self.msrecord), unpack_data=True)
            if record.sampletype == "t":
                return bytes(record.datasamples)
        except (MiniSEEDError, ValueError, BufferError) as error:
            raise SeedLinkException(f"an INFO reply that cannot be read: {error}") from None
        raise SeedLinkException("an INFO reply without text")


class _State(SLState):  # type: ignore[misc]  # ObsPy has no types
    """ObsPy's buffer of what was received."""

    listed = 0
    """Bytes of INFO replies on this connection, but for those to keep-alives."""

    def get_packet(self) -> _Packet:
        if self.packet_is_info():
            self.listed += SLPacket.SLRECSIZE
            if self.listed > MAX_LISTING_BYTES:
                raise TransportError(Cause.PROTOCOL, f"an INFO reply of more than {MAX_LISTING_BYTES} bytes")
        return _Packet(self.databuf, self.sendptr)


class _Client(SeedLinkConnection):  # type: ignore[misc]  # ObsPy has no types
    """ObsPy's connection with its faults corrected (see the module)."""

    def __init__(self, address: Address, life: Life) -> None:
        super().__init__(timeout=None)
        self.state = _State()
        self.sladdr = f"{address.host}:{address.port}"
        self.socket: Any = None
        self.netto = 0  # ours is the watchdog
        self.keepalive = 0
        self.resume = False
        self.multistation = True
        self.greeting = ""
        self.received_ns = 0
        self._address = address
        self._life = life

    def connect(self) -> None:
        """Open and greet. `collect` never gets here: it would be a reconnect, which is not ObsPy's to decide."""
        if self.socket is not None or self.greeting:
            raise TransportError(Cause.CLOSED, "ObsPy gave the connection up")
        self.socket = dial(self._address, self._life)
        self.say_hello()

    def is_connected(self, timeout: float = 1.0) -> bool:
        return self.socket is not None

    def update_stream(self, slpacket: SLPacket) -> None:
        """Resume points are kept by the source."""

    def buffered(self) -> SLPacket | None:
        """The next data packet that has been read already: as `collect` does, without its clocks and log."""
        state = self.state
        if not state.packet_available() or state.packet_is_info():
            return None
        packet = state.get_packet()
        state.increment_send_pointer()
        if not state.packet_available():
            state.pack_data_buffer()  # `collect` reads only into what is free behind the data
        return packet

    @property
    def following(self) -> bytes:
        """The first bytes that have come behind the packets taken."""
        state = self.state
        return bytes(state.databuf[state.sendptr : min(state.sendptr + 2, state.recptr)])

    def send_data(self, sendbytes: bytes, code: str, resplen: int) -> bytes | None:
        """Send a command; with `resplen` read its whole reply: one line, two for HELLO."""
        self.socket.sendall(sendbytes)
        if resplen <= 0:
            return None
        lines = 2 if sendbytes.startswith(b"HELLO") else 1
        reply = b""
        deadline_s = time.monotonic() + self._life.limits.connect_s
        while reply.count(b"\n") < lines:
            if len(reply) > _REPLY_BYTES:
                raise TransportError(Cause.NEGOTIATE, f"no SeedLink reply to {sendbytes!r}: {reply[:40]!r}")
            reply += self._receive(_REPLY_BYTES, deadline_s)
        if lines == 2:
            self.greeting = reply.decode("latin-1")
        return reply

    def receive_data(self, maxbytes: int, code: str) -> bytes:
        self._life.before_read()
        data = self._receive(maxbytes, None)
        self.received_ns = time.time_ns()
        return data

    def _receive(self, maxbytes: int, deadline_s: float | None) -> bytes:
        """At least one byte; raises at the end of the stream, when told to stop, and on silence."""
        while True:
            try:
                data: bytes = self.socket.recv(maxbytes)
            except TimeoutError:
                self._idle(deadline_s)
                continue
            except OSError as error:
                self._life.check()
                raise TransportError(Cause.CLOSED, error.strerror or str(error)) from None
            if not data:
                self._life.check()
                raise TransportError(Cause.CLOSED, "the server closed the connection")
            self._life.heard()
            return data

    def _idle(self, deadline_s: float | None) -> None:
        self._life.check()
        if deadline_s is not None and time.monotonic() > deadline_s:
            raise TransportError(Cause.NEGOTIATE, f"no reply within {self._life.limits.connect_s:g} s")
        if self.state.state == SLState.SL_DATA and self._life.may_ask():
            self.send_info_request("ID", 3)
            self.state.query_mode = SLState.KEEP_ALIVE_QUERY
            self.state.expect_info = True


class ObspyConnection:
    """One SeedLink 3 connection."""

    def __init__(self, address: Address, limits: Limits) -> None:
        self._life = Life(limits)
        self._address = address
        self._client = _Client(address, self._life)

    @property
    def numbers(self) -> int:
        return V3_NUMBERS

    def open(self) -> str:
        try:
            self._client.connect()
        except SeedLinkException as error:
            raise TransportError(Cause.NEGOTIATE, str(error.value)) from None
        except (OSError, ValueError) as error:
            raise _fault(self._life, error) from None
        return str(self._client.greeting)

    def listing(self) -> Listing:
        client = self._client
        try:
            client.request_info("STREAMS")
            client.state.state = SLState.SL_UP
            while isinstance(packet := client.collect(), SLPacket):
                if packet.get_type() == SLPacket.TYPE_SLINFT:
                    return parse_xml(client.get_info_string(), counts_for_all(client.greeting))
        except (SeedLinkException, OSError) as error:
            raise ListingError(f"INFO STREAMS is refused: {_text(error)}") from None
        raise ListingError("INFO STREAMS is refused")

    def begin(self, requests: tuple[Request, ...], begins: Mapping[str, Begin]) -> None:
        try:
            self._negotiate(requests, begins)
        except (SeedLinkException, OSError, ValueError) as error:
            raise _fault(self._life, error) from None
        self._client.state.state = SLState.SL_DATA
        self._life.listens()

    def packets(self) -> Iterator[RawPacket]:
        try:
            while True:
                packet = self._packet(self._client.buffered() or self._client.collect())
                if not may_follow(self._client.following):
                    raise TransportError(Cause.PROTOCOL, _NO_PACKET)
                yield packet
                self._life.listens()
        except (SeedLinkException, OSError) as error:
            raise _fault(self._life, error) from None

    def _negotiate(self, requests: tuple[Request, ...], begins: Mapping[str, Begin]) -> None:
        accepted = [request for request in requests if self._ask(request, begins[request.station])]
        if not accepted:
            raise TransportError(Cause.NEGOTIATE, f"none of {len(requests)} stations is accepted")
        # `collect` refuses to run without a list; it is otherwise unused here.
        self._client.streams = [SLNetStation(*request.station.split("_", 1), None, -1, None) for request in accepted]
        self._client.socket.sendall(b"END\r")

    def _ask(self, request: Request, begin: Begin) -> bool:
        network, _, station = request.station.partition("_")
        if not self._command(f"STATION {station} {network}"):
            _log.warning("%s: station %s is not accepted", self._address, request.station)
            return False
        for selector in request.selectors:
            if not self._command(f"SELECT {selector}"):
                _log.warning("%s: selector %s of %s is not accepted", self._address, selector, request.station)
        if not self._command(action_v3(begin)):
            _log.warning("%s: %s of %s is not accepted", self._address, action_v3(begin), request.station)
            return False
        return True

    def _command(self, text: str) -> bool:
        reply = self._client.send_data(text.encode("ascii") + b"\r", "", _REPLY_BYTES)
        return bool(reply is not None and reply.startswith(b"OK"))

    def _packet(self, packet: Any) -> RawPacket:
        if not isinstance(packet, SLPacket):
            reason = "the server reported an error" if packet == SLPacket.SLERROR else "the server ended the stream"
            raise TransportError(Cause.CLOSED, reason)
        sequence = packet.get_sequence_number()
        if sequence < 0 or packet.slhead[:2] != SLPacket.SIGNATURE:
            raise TransportError(Cause.PROTOCOL, _NO_PACKET)
        payload = bytes(packet.msrecord)
        return RawPacket(sequence, None, payload, self._client.received_ns, len(payload) + SLPacket.SLHEADSIZE)

    def close(self) -> None:
        self._client.disconnect()

    def interrupt(self) -> None:
        self._life.stopping.set()
        self._client.terminate()
        self._life.interrupt()


def _fault(life: Life, error: Exception) -> TransportError | Interrupted:
    if life.stopping.is_set():
        return Interrupted()
    return TransportError(Cause.CLOSED, _text(error))


def _text(error: Exception) -> str:
    return str(getattr(error, "value", None) or error)
