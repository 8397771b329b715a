"""A scripted SeedLink server for what the replay server does not do: SeedLink 4, TLS, credentials, refusals, odd bytes.

One thread a connection; it forgets everything and checks nothing but what a test asks for.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

HELLO_3 = ("SeedLink v3.1 (test)", "Test")
HELLO_4 = ("SeedLink v4.0 (test) :: SLPROTO:4.0 SLPROTO:3.1", "Test")


@dataclass
class Script:
    hello: tuple[str, str] = HELLO_3
    hello_in_pieces: bool = False
    packets: tuple[bytes, ...] = ()
    """Whole packets, headers included, sent after the negotiation."""
    listing: str | None = None
    """INFO STREAMS as JSON (SeedLink 4); None refuses."""
    auth: str | None = None
    """The AUTH command that is accepted."""
    answers_keepalives: bool = False
    close: bool = False
    """After the packets."""
    commands: list[str] = field(default_factory=list)


class ScriptedServer:
    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self._listener, *self._open):
            with suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._open.append(sock)
                thread = threading.Thread(target=self._serve, args=(sock,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, suppress(OSError):
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
            with sock:
                self._talk(sock)

    def _talk(self, sock: socket.socket) -> None:
        for text in _lines(sock):
            self.script.commands.append(text)
            if text == "END":
                for packet in self.script.packets:
                    sock.sendall(packet)
                if self.script.close:
                    return
            else:
                self._reply(sock.sendall, text)

    def _reply(self, send: Callable[[bytes], None], text: str) -> None:
        script = self.script
        if text == "HELLO":
            for piece in script.hello if script.hello_in_pieces else ["\r\n".join(script.hello)]:
                send(f"{piece}\r\n".encode())
                threading.Event().wait(0.05 if script.hello_in_pieces else 0)
        elif text == "INFO ID":
            if script.answers_keepalives:
                send(packet_4(b"{}", 0, "", kind=b"JI"))
        elif text.startswith("INFO"):
            send(packet_4(script.listing.encode(), 0, "", kind=b"JI") if script.listing else b"ERROR\r\n")
        elif text.startswith("AUTH") and text != script.auth:
            send(b"ERROR AUTH no\r\n")
        else:
            send(b"OK\r\n")


def _lines(sock: socket.socket):  # type: ignore[no-untyped-def]
    kept = b""
    while data := sock.recv(4096):
        *whole, kept = (kept + data).replace(b"\r", b"\n").split(b"\n")
        yield from (line.decode() for line in whole if line)


def packet_3(record: bytes, sequence: int) -> bytes:
    return b"SL%06X" % sequence + record


def packet_4(payload: bytes, sequence: int, station: str, kind: bytes = b"2D") -> bytes:
    return b"SE" + kind + struct.pack("<IQB", len(payload), sequence, len(station)) + station.encode() + payload


def listing_4(stations: dict[str, tuple[list[str], int, int]]) -> str:
    """``{"BW_UH3": (["_S_H_Z"], first, after the last)}``."""
    return json.dumps(
        {
            "station": [
                {"id": name, "start_seq": first, "end_seq": end, "stream": [{"id": i, "subformat": "D"} for i in ids]}
                for name, (ids, first, end) in stations.items()
            ]
        }
    )
