"""The replay server: listens, releases records by their own time, and keeps the connections.

asyncio, one thread; `ReplayServer` in threaded.py runs it for code that is not asynchronous. It reads no files, knows
no command line, neither authenticates nor encrypts, and is meant for loopback and laboratory networks.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass

from .client import YIELD_EVERY, Client, Sent
from .faults import NONE, Faults, plan
from .info import Facts
from .limits import ARRIVALS_A_SECOND, ARRIVALS_AT_ONCE, CLIENTS, Bucket
from .pacing import Schedule
from .protocol import SOFTWARE, wall_ns
from .records import Record
from .ring import Numbering, Ring

CAPACITY = 100_000
"""Packets held unless told otherwise: 51 MB, and INFO STREAMS, which looks at each, takes a tenth of a second."""
MAX_CLIENTS = CLIENTS


@dataclass(frozen=True, slots=True)
class Options:
    host: str = "127.0.0.1"
    port: int = 0
    """0: one that is free."""
    speed: float = 1.0
    """Seconds of data a second; 0: as fast as the clients read, and never over what one of them has not got."""
    faults: Faults = NONE
    wait_clients: int = 1
    """Time begins to count when so many connections have asked for data; 0: at once."""
    capacity: int = CAPACITY
    """Packets in the ring."""
    begin: int = 1
    """The first sequence number."""
    numbering: Numbering = Numbering.STATION
    linger_s: float | None = None
    """So long after the last packet the server ends by itself; None: never."""
    max_clients: int = MAX_CLIENTS
    organisation: str = "quake replay server"


@dataclass(slots=True)
class Counters:
    packets: int = 0
    """Written to clients; a packet that two clients got counts twice."""
    sent_bytes: int = 0
    connections: int = 0
    """Accepted."""
    rejected: int = 0
    """Closed at once because there were too many, or they came too fast."""
    given_up: int = 0
    """Closed because they asked for no data for too long."""
    overrun: int = 0
    """Packets that left the ring before a client had got to them."""
    breaks: int = 0
    """Connections that a fault stalled or closed."""


class Server:
    """Serves records once: `start`, then `run` until the end, or `stop`."""

    def __init__(
        self, records: Sequence[Record], options: Options, on_sent: Callable[[Sent], None] = lambda sent: None
    ) -> None:
        self.options, self.faults, self.on_sent = options, options.faults, on_sent
        self.schedule = Schedule(plan(records, options.faults), options.speed)
        self.ring = Ring(options.capacity, options.begin, options.numbering)
        self.counters = Counters()
        self.clients: set[Client] = set()
        self.port = options.port
        self._arrivals = Bucket(ARRIVALS_A_SECOND, ARRIVALS_AT_ONCE)
        self.finished = asyncio.Event()
        """Everything was released, and every client that is connected and answers has got its part."""
        self._known = tuple(
            {release.record.stream_id: release.record for release in self.schedule.releases[::-1]}.values()
        )
        self._started_ns, self._asked, self._furthest = wall_ns(), 0, 0
        self._begin, self._progress, self._stop = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._listener: asyncio.Server | None = None
        self._error: BaseException | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return f"seedlink://{self.options.host}:{self.port}"

    @property
    def everything_out(self) -> bool:
        """Without pacing the end of the ring is the end of the recording, otherwise it is what was released so far."""
        return self.options.speed > 0 or self.schedule.finished

    async def start(self) -> None:
        """Listen. Raises OSError when the port is taken."""
        if self.options.wait_clients <= 0:
            self._begin.set()
        await self._listen()
        refuse_s = self.faults.refuse_s
        if refuse_s and not self.faults.breaks:
            self.refuse(refuse_s)
        self._spawn(self._pace())

    async def run(self) -> None:
        """Serve until `stop`, or until the linger time is over. Raises what any part of it raised."""
        try:
            await self._until_end()
        finally:
            await self.close()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Ask `run` to end."""
        self._stop.set()

    async def close(self) -> None:
        """Stop listening, end all connections, wait until they are gone."""
        if self._listener is not None:
            self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _until_end(self) -> None:
        stopped = asyncio.ensure_future(self._stop.wait())
        finished = asyncio.ensure_future(self.finished.wait())
        try:
            await asyncio.wait({stopped, finished}, return_when=asyncio.FIRST_COMPLETED)
            if not stopped.done():
                await asyncio.wait({stopped}, timeout=self.options.linger_s)
        finally:
            stopped.cancel()
            finished.cancel()

    # -- connections

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._accept, self.options.host, self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrives = self._arrivals.may(asyncio.get_running_loop().time())
        if not arrives or len(self.clients) >= self.options.max_clients:
            self.counters.rejected += 1
            writer.close()
            return
        self.counters.connections += 1
        client = Client(self, reader, writer, self.options.organisation)
        self.clients.add(client)
        task = self._spawn(client.run())
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task})
        self.clients.discard(client)
        self._progress.set()
        self._check_finished()

    def disconnect(self) -> None:
        """Close every connection, as a server that is restarted does; the ring stays."""
        for client in self.clients:
            client.writer.close()

    def stall(self) -> None:
        """Go silent on every connection there is; the sockets stay open."""
        for client in self.clients:
            client.stalled = True
        self._check_finished()

    def refuse(self, seconds: float) -> None:
        """Let nobody in for so long; who is in stays."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            self._spawn(self._listen_again(seconds))

    async def _listen_again(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._listen()

    def renumber(self, begin: int = 1) -> None:
        """Lose the ring and number from ``begin`` again, as a server whose ring was deleted."""
        self.ring.renumber(begin)

    # -- what a client tells

    def facts(self) -> Facts:
        connections = tuple(client.connection for client in self.clients)
        software, organisation = SOFTWARE[self.options.numbering], self.options.organisation
        return Facts(self.ring, self._known, software, organisation, self._started_ns, connections)

    def streaming(self, client: Client) -> None:
        self._asked += 1
        if self._asked >= self.options.wait_clients:
            self._begin.set()
        self._progress.set()

    def progress(self, client: Client) -> None:
        if client.cursor is not None and client.cursor > self._furthest:
            self._furthest = client.cursor
        self._progress.set()
        if self.schedule.finished:
            self._check_finished()

    def sent(self, client: Client, sent: Sent, size: int) -> None:
        self.counters.packets += 1
        self.counters.sent_bytes += size
        self.on_sent(sent)

    def overrun(self, packets: int) -> None:
        self.counters.overrun += packets

    def gave_up(self) -> None:
        self.counters.given_up += 1

    def breaking(self) -> bool:
        """Whether a fault of connections may still happen."""
        return self.faults.breaks and (self.faults.times == 0 or self.counters.breaks < self.faults.times)

    def broke(self) -> None:
        self.counters.breaks += 1
        self._check_finished()
        if self.faults.refuse_s:
            self.refuse(self.faults.refuse_s)

    # -- releasing

    async def _pace(self) -> None:
        await self._begin.wait()
        self.schedule.begin(asyncio.get_running_loop().time())
        while (due_s := self.schedule.due_s()) is not None:
            await self._until(due_s)
            self.ring.append(self.schedule.take().record)
            for client in self.clients:
                client.wake.set()
            if self.schedule.done % YIELD_EVERY == 0:
                await asyncio.sleep(0)
        self._check_finished()

    async def _until(self, due_s: float) -> None:
        wait_s = due_s - asyncio.get_running_loop().time()
        if self.options.speed > 0 and wait_s > 0:
            await asyncio.sleep(wait_s)
        while self.options.speed == 0 and not self._room():
            self._progress.clear()
            await self._progress.wait()

    def _room(self) -> bool:
        """Whether one more packet may come without pushing out one that a client still has to get."""
        cursors = [c.cursor for c in self.clients if c.cursor is not None and not c.stalled]
        if not cursors:
            return self.options.wait_clients <= 0
        return self.ring.next_index - min(cursors) < self.options.capacity

    def _check_finished(self) -> None:
        reading = [c for c in self.clients if c.cursor is not None and not c.stalled]
        behind = any(c.cursor != self.ring.next_index for c in reading)
        unread = self._asked > 0 and self._furthest < self.ring.next_index
        if self.schedule.finished and not behind and not unread:
            self.finished.set()

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A task that failed ends the server: a replay that goes on without a part of it would prove nothing."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._error = error
            self._stop.set()
