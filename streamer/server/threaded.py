"""The replay server in a thread of its own, for tests, demonstrations and anything that is not asynchronous.

    with ReplayServer(files, speed=0) as server:
        client.connect(server.address)
        server.wait_sent(timeout_s=10)

All of its methods may be called from any thread. It adds nothing to what server.py does.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from .client import Sent
from .faults import NONE, Faults
from .records import Record, read
from .ring import Numbering
from .server import CAPACITY, MAX_CLIENTS, Counters, Options, Server

JOIN_S = 10.0
"""How long stopping may take before it counts as failed: connections are only closed, nothing is waited for."""


class ReplayServer:
    """Starts when it is made (or entered), stops when it is left."""

    def __init__(
        self,
        records_or_files: Sequence[Record] | Sequence[str | os.PathLike[str]],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        speed: float = 1.0,
        fill: float = 1.0,
        faults: Faults = NONE,
        wait_clients: int = 1,
        capacity: int = CAPACITY,
        begin: int = 1,
        numbering: Numbering = Numbering.STATION,
        linger_s: float | None = None,
        max_clients: int = MAX_CLIENTS,
        on_sent: Callable[[Sent], None] = lambda sent: None,
    ) -> None:
        """``fill`` counts for files only; ``on_sent`` is called in the server's thread.

        Raises what `records.read` does, and OSError when the port is taken.
        """
        self.records = _records(records_or_files, fill)
        self._options = Options(
            host, port, speed, faults, wait_clients, capacity, begin, numbering, linger_s, max_clients
        )
        self._on_sent = on_sent
        self.finished = threading.Event()
        """Everything was released, and every client that is connected and answers has got its part."""
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._server: Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="replay-server", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """``seedlink://127.0.0.1:PORT``."""
        return self.server.address

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def counters(self) -> Counters:
        return self.server.counters

    @property
    def server(self) -> Server:
        """The server itself; it belongs to its own thread, so only read from it."""
        assert self._server is not None
        return self._server

    def wait_sent(self, timeout_s: float | None = None) -> bool:
        """Until `finished`; False when the time is over first."""
        return self.finished.wait(timeout_s)

    def join(self, timeout_s: float | None = None) -> bool:
        """Until the server ended by itself (``linger_s``); False when the time is over first."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def stop(self) -> None:
        """End all connections and the thread; a second call does nothing. Raises what went wrong in the server."""
        self._call(self.server.stop)
        if not self.join(JOIN_S):
            raise TimeoutError(f"the replay server did not stop within {JOIN_S} s")
        if self._error is not None:
            raise self._error

    def disconnect(self) -> None:
        """Close every connection; clients may come back."""
        self._call(self.server.disconnect)

    def stall(self) -> None:
        """Go silent on every connection there is, sockets open."""
        self._call(self.server.stall)

    def refuse(self, seconds: float) -> None:
        """Let nobody in for so long."""
        self._call(self.server.refuse, seconds)

    def renumber(self, begin: int = 1) -> None:
        """Lose the ring and count from ``begin`` again."""
        self._call(self.server.renumber, begin)

    def _call(self, method: Callable[..., None], *arguments: Any) -> None:
        """Run a method in the server's thread and wait until it has returned; nothing once the server has ended."""
        done = threading.Event()

        def work() -> None:
            try:
                method(*arguments)
            finally:
                done.set()

        try:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(work)
        except RuntimeError:
            return  # the loop is closed
        while not done.wait(0.05) and self._thread.is_alive():
            pass

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # handed to the thread that made this
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = Server(self.records, self._options, self._on_sent)
        await self._server.start()
        watch = asyncio.ensure_future(self._server.finished.wait())
        watch.add_done_callback(lambda done: None if done.cancelled() else self.finished.set())
        self._ready.set()
        try:
            await self._server.run()
        finally:
            watch.cancel()


def _records(given: Sequence[Record] | Sequence[str | os.PathLike[str]], fill: float) -> list[Record]:
    records = [one for one in given if isinstance(one, Record)]
    if len(records) == len(given):
        return records
    return read([one for one in given if not isinstance(one, Record)], fill)
