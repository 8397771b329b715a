"""What breaks between a SeedLink server and the daemon: a relay in front of the server that can be told to, and a scene.

The relay knows nothing of SeedLink but the length of a packet: it breaks connections as a network or a dying server does.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from daemon_harness import Life, Place, revisions, wait_for
from test_same_alerts import ends

from quake.alerts import Alert, Kind
from streamer.server import Record, ReplayServer

PACKET = 520
STATION = slice(16, 21)
"""Of a packet: eight bytes of SeedLink's header, then the record's own."""
GARBAGE = bytes(range(7, 247, 3)) * 4
"""Longer than half a record, shorter than a whole one."""


class Relay:
    """Passes bytes on in both directions, until it is told otherwise. Each method but `target` may be called at any time."""

    def __init__(self, target: int) -> None:
        self.target = target
        """Port of the server that new connections are passed on to."""
        self.passed = 0
        """Data packets passed on."""
        self.began: list[tuple[float, float]] = []
        """Of each connection that got data: when it was let in and when its first packet was passed on, monotonic."""
        self.port = 0
        self._mute = False
        self._spoil: Callable[[socket.socket, bytes], bool] | None = None
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._stalled: set[socket.socket] = set()
        self._upstream: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self.open()

    @property
    def address(self) -> str:
        return f"seedlink://127.0.0.1:{self.port}"

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        for sock in self._sockets | self._stalled:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(5.0)

    def open(self) -> None:
        """Listen; always on the same port."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._start(self._accept, self._listener)

    def close_all(self) -> None:
        """End every connection; who comes back is let in."""
        with self._lock:
            for sock in self._sockets:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def refuse(self) -> None:
        """Let nobody in, until `open`."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.close_all()

    def stall(self) -> None:
        """The connections that stand stay open, and nothing comes any more; new ones are as ever."""
        with self._lock:
            clients = self._sockets - self._upstream
            self._stalled |= clients
            self._sockets -= clients
        self.close_all()  # what is left is the server's side, which knows that its clients are gone

    def mute(self) -> None:
        """End every connection; who comes back is let in, and hears nothing."""
        self._mute = True
        self.close_all()

    def speak(self) -> None:
        """As if restarted: who waits for a word is closed, and heard when coming back."""
        self._mute = False
        self.close_all()

    def spoil(self, how: Callable[[socket.socket, bytes], None], station: bytes = b"") -> threading.Event:
        """Give the next data packet (of one station) to ``how`` instead of sending it on; set once that happened."""
        done = threading.Event()

        def once(client: socket.socket, packet: bytes) -> bool:
            if not packet[STATION].startswith(station):
                return False
            self._spoil = None
            how(client, packet)
            done.set()
            return True

        self._spoil = once
        return done

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                self._let_in(client)

    def _let_in(self, client: socket.socket) -> None:
        if self._mute:
            with self._lock:
                self._sockets.add(client)
            return
        try:
            server = socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            client.close()
            return
        with self._lock:
            self._sockets |= {client, server}
            self._upstream.add(server)
        self._start(self._upward, client, server)
        self._start(self._downward, server, client)

    def _upward(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while (data := client.recv(65_536)) and self._stands(client):
                server.sendall(data)
        self._end(client, server)

    def _downward(self, server: socket.socket, client: socket.socket) -> None:
        since_s, got = time.monotonic(), 0
        with suppress(OSError):
            for data in self._pieces(server):
                if not self._stands(client):
                    break
                is_data = len(data) == PACKET and data.startswith(b"SL") and not data.startswith(b"SLINFO")
                spoil = self._spoil if is_data else None
                if spoil is None or not spoil(client, data):
                    client.sendall(data)
                    self.passed += is_data
                    got += is_data
                    if is_data and got == 1:
                        self.began.append((since_s, time.monotonic()))
        self._end(client, server)

    def _pieces(self, server: socket.socket) -> Iterator[bytes]:
        """Whole packets once packets come, and lines as they come."""
        held = b""
        while data := server.recv(65_536):
            held += data
            while held.startswith(b"SL") and len(held) >= PACKET:
                yield held[:PACKET]
                held = held[PACKET:]
            if held and not (held.startswith(b"SL") and b"\n" not in held[:8]):
                yield held
                held = b""

    def _stands(self, sock: socket.socket) -> bool:
        with self._lock:
            return sock in self._sockets

    def _end(self, *sockets: socket.socket) -> None:
        """Close both, unless they are stalled: those stay open to the end."""
        for sock in sockets:
            with self._lock:
                mine = sock in self._sockets
                self._sockets.discard(sock)
                self._upstream.discard(sock)
            if mine:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()


def garbage(client: socket.socket, packet: bytes) -> None:
    """Bytes of something else in the middle of a record; then the stream goes on as if nothing had been."""
    client.sendall(packet[: PACKET // 2] + GARBAGE + packet[PACKET // 2 :])


def half(client: socket.socket, packet: bytes) -> None:
    """Half a record, and the end."""
    client.sendall(packet[: PACKET // 2])
    client.shutdown(socket.SHUT_RDWR)


@dataclass
class Scene:
    """One daemon behind relays: its first server's, and its second's."""

    place: Place
    relays: Sequence[Relay]
    life: Life

    @property
    def relay(self) -> Relay:
        return self.relays[0]

    @property
    def passed(self) -> int:
        """Data packets that came to it."""
        return sum(relay.passed for relay in self.relays)

    @property
    def counted(self) -> float:
        """Records that the daemon has counted."""
        names = ("quake_packets_total", "quake_records_refused_total")
        return sum(sum(self.life.metric(name).values()) for name in names)

    def station(self, name: str) -> float:
        """Records of one station that the daemon has counted."""
        counts = self.life.metric("quake_packets_total")
        return sum(count for label, count in counts.items() if f"_{name}_" in label)

    @property
    def samples(self) -> float:
        """Different good samples that the daemon has had: a repeat lies over one that came, or comes after its windows."""
        unused = self.life.metric("quake_samples_unused_total")
        again = sum(unused[f'reason="{reason}"'] for reason in ("overlap", "late", "corrupt"))
        return sum(self.life.metric("quake_samples_total").values()) - again

    def wait_counted(self, at_least: float, timeout_s: float = 60.0) -> None:
        wait_for(f"{at_least:g} records", lambda: self.counted >= at_least, timeout_s)

    def said(self, text: str) -> int:
        return self.life.text().count(text)

    def flowing(self) -> None:
        """Until some more records have come."""
        self.wait_counted(self.counted + 3)

    def again(self, text: str, said: int, since_s: float, timeout_s: float = 90.0) -> float:
        """Until the daemon's log says ``text`` once more, and it has data of a connection made since; when those flowed."""
        wait_for(f"the log says {text!r}", lambda: self.said(text) > said, timeout_s)
        wait_for("data on a new connection", lambda: self.began_since(since_s), timeout_s)
        # What it counts beyond what had been passed on by now came after the fault.
        self.wait_counted(self.passed + 1, timeout_s)
        return min(self.began_since(since_s))

    def began_since(self, since_s: float) -> list[float]:
        """When the first packet came on each connection made since: on the wire, however busy the daemon is."""
        return [first_s for relay in self.relays for begun_s, first_s in relay.began if begun_s > since_s]

    def finish(self, records: list[Record], undisturbed: Sequence[Alert], *, waits: bool = True) -> Difference:
        """To the end of the recording; what is missing of the undisturbed run's alerts, and what is too much. Where a station
        stays away for longer than others are held for it (not ``waits``), an event's ids are the same and its revisions need not be.
        """
        self.life.wait_newest(ends(records), 120.0)
        wanted_samples = sum(record.samples for record in records)
        with suppress(
            AssertionError
        ):  # one component's end may come after its station's; what stays away is told below
            wait_for("every sample", lambda: self.samples >= wanted_samples, 10.0)
        missing = wanted_samples - self.samples
        assert self.life.stop() == 0
        published = self.place.published()
        if not waits:
            published, undisturbed = without_updates(published), without_updates(undisturbed)
        had, wanted = revisions(published), revisions(undisturbed)
        return Difference(wanted - had, had - wanted, missing)


def without_updates(alerts: Sequence[Alert]) -> list[Alert]:
    """Detections, and the openings of events."""
    return [alert for alert in alerts if alert.kind is Kind.DETECTION or alert.revision == 0]


@dataclass(frozen=True)
class Difference:
    """Between a daemon's alerts and those of an undisturbed run."""

    lost: Counter[tuple[str, str, int, str]]
    repeated: Counter[tuple[str, str, int, str]]
    missing: float
    """Samples that the servers had and the daemon never placed."""


def broken(scenes: Sequence[Scene], said: str, break_it: Callable[[], float | None]) -> float:
    """Break it with the data flowing. ``break_it`` returns when the server is back, on the monotonic clock, or None for
    now; the seconds from there until data flow again to the slowest daemon, whose log must say ``said``."""
    for scene in scenes:
        scene.flowing()
    before, since_s = [scene.said(said) for scene in scenes], time.monotonic()
    back_s = break_it()
    back_s = time.monotonic() if back_s is None else back_s
    flowed_s = [scene.again(said, count, since_s) for scene, count in zip(scenes, before, strict=True)]
    return max(0.0, *flowed_s, back_s) - back_s


def configured(place: Place, servers: Sequence[str], **source: float) -> Path:
    """The harness' configuration with these servers, and numbers of the source."""
    path = place.configure('", "'.join(servers))
    extra = "".join(f"{name} = {value}\n" for name, value in source.items())
    path.write_text(path.read_text().replace('select = ["*.*"]\n', f'select = ["*.*"]\n{extra}'))
    return path


def lose_ring(server: ReplayServer, begin: Callable[[], int], clients: int) -> None:
    """The server loses what it holds, counts from ``begin`` on and closes all connections; so many clients have all it had."""
    done: list[bool] = []

    def when_read() -> None:
        inner = server.server
        if [client.cursor for client in inner.clients] == [inner.ring.next_index] * clients:
            inner.renumber(begin())
            inner.disconnect()
            done.append(True)

    def look() -> bool:
        server._call(when_read)
        return bool(done)

    wait_for("every client has everything", look, 60.0)


def hurry(server: ReplayServer) -> None:
    """The faults are over: the rest of the recording at once."""
    server.server.schedule.speed = 1e6
