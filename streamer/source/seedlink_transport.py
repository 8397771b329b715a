"""SeedLink 3 and 4, with TLS and credentials, through EarthScope's seedlink-client.

The package's own reconnecting is off; its loop is used for one connection. Replaced are: the opening of the socket (it
could not be interrupted), the negotiation (it knows one begin time for all stations, ours may differ; it takes a
rejected selector for a wish for everything), and the cutting of SeedLink 3 records (one record that libmseed cannot
read would end the connection, and be the first to come again after it).

Secrets go to the server and nowhere else: neither errors nor logs of this module contain them. The package logs each
command on DEBUG, AUTH included, so its logger is held at INFO.
"""

from __future__ import annotations

import logging
import math
import ssl
import time
from collections.abc import Iterator, Mapping

from seedlink_client import Protocol, SeedLink, SeedLinkAuthError, SeedLinkError, SeedLinkResponse
from seedlink_client._commands import Command
from seedlink_client.protocol import (
    FORMAT_MSEED2,
    HEADSIZE_V3,
    HEADSIZE_V4,
    _RawFrame,
    decode_frame_v3,
    parse_header_v3,
    parse_reply,
)

from streamer.source.address import Address
from streamer.source.listing import Listing, ListingError, counts_for_all, parse_json, parse_xml
from streamer.source.resume import V3_NUMBERS, V4_NUMBERS, Begin, action_v3, action_v4
from streamer.source.transport import (
    MAX_LISTING_BYTES,
    TICK_S,
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
logging.getLogger("seedlink_client").setLevel(logging.INFO)
_USUAL_RECORD = 512
"""Bytes of a SeedLink 3 record whose own header cannot be read: all SeedLink 3 servers send this length by default."""
_NAME, _VERSION = "quake-streamer", "0.1"


class _Client(SeedLink):
    """seedlink-client's connection, interruptible, with our negotiation (see the module)."""

    def __init__(self, address: Address, life: Life) -> None:
        super().__init__(
            address.host,
            address.port,
            timeout=life.limits.connect_s,
            tls=address.tls,
            tls_noverify=not address.verify,
            keepalive=life.limits.silence_s / 2,
            idle_timeout=math.inf,  # `Life` watches
            clientname=_NAME,
            clientversion=_VERSION,
            auth=address.auth,
        )
        self._address = address
        self._life = life
        self._plan: list[tuple[str, list[str]]] = []
        self.received_ns = 0
        self._listed = 0

    def _connect_socket(self) -> None:
        sock = dial(self._address, self._life)
        sock.settimeout(self._life.limits.connect_s)
        try:
            if self._address.tls:
                sock = self._wrap(sock)
        except BaseException:
            sock.close()
            raise
        self._sock = self._life.sock = sock
        self._is_ssl = self._address.tls
        self._reset_recv_buf()

    def _wrap(self, sock: object) -> ssl.SSLSocket:
        context = ssl.create_default_context()
        if not self._address.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        try:
            return context.wrap_socket(sock, server_hostname=self._address.host)  # type: ignore[arg-type]
        except ssl.SSLCertVerificationError as error:
            detail = f"the certificate is not trusted: {error.verify_message}; ?verify=no takes it all the same"
            raise TransportError(Cause.CONNECT, detail) from None
        except OSError as error:
            raise TransportError(Cause.CONNECT, f"TLS: {error.strerror or error}") from None

    def negotiate(self) -> None:
        accepted = sum(self._ask(station, commands) for station, commands in self._plan)
        if not accepted:
            raise TransportError(Cause.NEGOTIATE, f"none of {len(self._plan)} stations is accepted")
        self._send_command(Command("END"))
        self._streaming = True
        self._life.listens()

    def _ask(self, station: str, commands: list[str]) -> bool:
        """STATION and the last command must be accepted, a selector may be refused."""
        for number, text in enumerate(commands):
            reply: SeedLinkResponse = self._send_command(Command(text, parse=parse_reply, terminator=b"\r"))
            if not reply:
                _log.warning("%s: %s of %s is not accepted: %s", self._address, text, station, reply.message or "ERROR")
                if number in {0, len(commands) - 1}:
                    return False
        return True

    def plan(self, commands: list[tuple[str, list[str]]]) -> None:
        self._plan = commands

    def _poll_readable(self, timeout: float) -> bool:
        if not self._has_buffered() and not self._waits():
            self._life.before_read()
        readable = super()._poll_readable(min(timeout, TICK_S))
        if not readable:
            self._life.check()
        return readable

    def _waits(self) -> bool:
        """Whether bytes wait in the kernel. Asked of TLS alone, which reads one record at a time, so one packet, however many wait."""
        return self._is_ssl and super()._poll_readable(0.0)

    def _recv_frame(self) -> _RawFrame | SeedLinkResponse | None:
        frame = super()._recv_frame()
        if self._streaming and not may_follow(self._following):
            raise TransportError(Cause.PROTOCOL, f"no packet where one must begin: {self._following!r}")
        if not self._streaming and isinstance(frame, _RawFrame):
            self._listed += len(frame.payload)  # INFO's reply would be gathered until memory ends
            if self._listed > MAX_LISTING_BYTES:
                raise TransportError(Cause.PROTOCOL, f"an INFO reply of more than {MAX_LISTING_BYTES} bytes")
        self._life.heard()
        self.received_ns = time.time_ns()
        return frame

    @property
    def _following(self) -> bytes:
        """The first bytes that have come behind the frames taken."""
        return bytes(self._recv_view[self._recv_start : min(self._recv_start + 2, self._recv_end)])

    def _recv_frame_v3(self) -> _RawFrame:
        header = parse_header_v3(self._take(HEADSIZE_V3))
        if header.is_info:
            return decode_frame_v3(header, self._read_mseed_payload())
        return _RawFrame("", header.seqnum, FORMAT_MSEED2, "D", self._record(), info_continues=False)

    def _record(self) -> bytes:
        try:
            return self._read_mseed_payload()
        except SeedLinkError:
            if not self.is_connected:
                raise
            return self._take(_USUAL_RECORD)


class SeedLinkClientConnection:
    """One SeedLink 3 or 4 connection."""

    def __init__(self, address: Address, limits: Limits) -> None:
        self._life = Life(limits)
        self._client = _Client(address, self._life)

    @property
    def numbers(self) -> int:
        return V4_NUMBERS if self._client.protocol is Protocol.V4 else V3_NUMBERS

    def open(self) -> str:
        try:
            self._client.connect()
        except SeedLinkAuthError as error:
            raise TransportError(Cause.AUTH, f"the server refuses the credentials: {error}") from None
        except (SeedLinkError, OSError) as error:
            raise self._fault(error, Cause.NEGOTIATE) from None
        return str(self._client.server_id)

    def listing(self) -> Listing:
        try:
            text = self._client.info("STREAMS")
        except (SeedLinkError, OSError, ValueError) as error:
            if self._life.stopping.is_set():
                raise Interrupted from None
            raise ListingError(f"INFO STREAMS is refused: {error}") from None
        parse = parse_json if self._client.protocol is Protocol.V4 else parse_xml
        return parse(text, counts_for_all(str(self._client.server_id)))

    def begin(self, requests: tuple[Request, ...], begins: Mapping[str, Begin]) -> None:
        v4 = self._client.protocol is Protocol.V4
        self._client.plan([_commands(request, begins[request.station], v4) for request in requests])
        try:
            self._client.negotiate()
        except (SeedLinkError, OSError, ValueError) as error:
            raise self._fault(error, Cause.NEGOTIATE) from None

    def packets(self) -> Iterator[RawPacket]:
        v4 = self._client.protocol is Protocol.V4
        try:
            for packet in self._client.collect(reconnect=False):
                yield RawPacket(
                    packet.seqnum or 0,
                    packet.station_id or None,
                    packet.payload,
                    self._client.received_ns,
                    len(packet.payload) + (HEADSIZE_V4 + len(packet.station_id) if v4 else HEADSIZE_V3),
                )
                self._life.listens()
        except (SeedLinkError, OSError, ValueError) as error:
            raise self._fault(error, Cause.CLOSED) from None
        self._life.check()
        raise TransportError(Cause.CLOSED, "the server ended the stream")

    def _fault(self, error: Exception, cause: Cause) -> TransportError | Interrupted:
        if self._life.stopping.is_set():
            return Interrupted()
        framing = str(error).startswith(("Unexpected data", "Unrecognized", "Invalid v3", "Declared"))
        return TransportError(Cause.PROTOCOL if framing else cause, str(error))

    def close(self) -> None:
        self._client.close()

    def interrupt(self) -> None:
        self._life.interrupt()


def _commands(request: Request, begin: Begin, v4: bool) -> tuple[str, list[str]]:
    if v4:
        selects = [f"SELECT {channel}" for channel in request.channels]
        return request.station, [f"STATION {request.station}", *selects, action_v4(begin)]
    network, _, station = request.station.partition("_")
    selects = [f"SELECT {selector}" for selector in request.selectors]
    return request.station, [f"STATION {station} {network}", *selects, action_v3(begin)]
