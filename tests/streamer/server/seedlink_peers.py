"""The other side, for the tests of the replay server: raw sockets and the two real clients."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from obspy.clients.seedlink.client.seedlinkconnection import SeedLinkConnection
from obspy.clients.seedlink.slclient import SLClient
from obspy.clients.seedlink.slpacket import SLPacket
from seedlink_client import SeedLink

PACKET = 520
WAIT_S = 10.0
"""Longer than anything here takes; reached only when a test fails."""


@dataclass(frozen=True)
class Got:
    """A packet as a client saw it."""

    sequence: int
    data: bytes


class Raw:
    """A socket with the few things a SeedLink dialogue needs."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)

    def ask(self, *lines: str) -> None:
        self.socket.sendall("".join(f"{line}\r\n" for line in lines).encode())

    def line(self) -> str:
        text = b""
        while not text.endswith(b"\r\n"):
            text += self.exactly(1)
        return text.decode()

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise ConnectionError(f"closed after {len(data)} of {count} bytes")
            data += more
        return data

    def packet(self) -> Got:
        data = self.exactly(PACKET)
        assert data[:2] == b"SL", data[:20]
        return Got(int(data[2:8], 16), data[8:])

    def packets(self, count: int) -> list[Got]:
        return [self.packet() for _ in range(count)]

    def rest(self) -> bytes:
        """Everything until the server closes."""
        data = b""
        while more := self.socket.recv(65536):
            data += more
        return data

    def quiet(self, seconds: float = 0.05) -> bool:
        """Whether nothing comes for so long, with the connection open."""
        self.socket.settimeout(seconds)
        try:
            return self.socket.recv(1, socket.MSG_PEEK) is None
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(WAIT_S)


@contextmanager
def raw(port: int) -> Iterator[Raw]:
    peer = Raw(port)
    try:
        yield peer
    finally:
        peer.socket.close()


def fetched(port: int, *lines: str) -> list[Got]:
    """All packets of a request that ends with END and a close; every command before the last is answered OK."""
    with raw(port) as peer:
        for line in lines[:-1]:
            peer.ask(line)
            assert peer.line() == "OK\r\n", line
        peer.ask(lines[-1])
        data = peer.rest()
    assert data.endswith(b"END"), data[-20:]
    assert len(data) % PACKET == 3
    pieces = [data[at : at + PACKET] for at in range(0, len(data) - 3, PACKET)]
    return [Got(int(piece[2:8], 16), piece[8:]) for piece in pieces]


class _Connection(SeedLinkConnection):  # type: ignore[misc]
    """ObsPy 1.5.1 compares its timeout with a number even when it is None."""

    def is_connected_impl(self, sock: socket.socket, timeout: float | None) -> bool:
        return bool(super().is_connected_impl(sock, 1.0 if timeout is None else timeout))


class ObsPy:
    """ObsPy's client; ``take`` gives the next packets."""

    def __init__(self, port: int) -> None:
        self.client = SLClient()
        self.connection = _Connection()
        self.connection.set_sl_address(f"127.0.0.1:{port}")
        self.connection.set_net_delay(1)
        self.client.slconn = self.connection

    def take(self, done: Callable[[list[Got]], bool]) -> list[Got]:
        got: list[Got] = []

        def handle(_count: int, packet: Any) -> bool:
            if packet in (SLPacket.SLERROR, SLPacket.SLNOPACKET):
                return True
            got.append(Got(packet.get_sequence_number(), bytes(packet.msrecord)))
            return done(got)

        self.client.run(packet_handler=handle)
        return got

    def info(self, level: str) -> str:
        self.connection.request_info(level)
        while True:
            packet = self.connection.collect()
            if packet.get_type() == SLPacket.TYPE_SLINFT:
                self.connection.close()
                return str(self.connection.get_info_string())


def earthscope(port: int, streams: dict[str, str | None], count: int, resume: int | None = None) -> list[Got]:
    """So many packets by PyPI's seedlink-client."""
    got: list[Got] = []
    with SeedLink("127.0.0.1", port, timeout=WAIT_S) as client:
        for station, selector in streams.items():
            client.add_stream(station, selector, seqnum=resume)
        for packet in client.collect(reconnect=False):
            got.append(Got(packet.seqnum, packet.payload))
            if len(got) == count:
                break
    return got


def eventually(true: Callable[[], bool]) -> bool:
    """Whether something becomes true in time."""
    end_s = time.monotonic() + WAIT_S
    while not true() and time.monotonic() < end_s:
        time.sleep(0.005)
    return true()
