"""A load: any number of stations at real speed, from our SeedLink server in a process of its own.

Three channels a station at 100 Hz, in full records of 512 bytes: minutes of BW.UH3 (a recording that ObsPy carries, 50 Hz,
doubled), over and over, each station at a place of its own. One station in `LOUD_EACH` hears a local earthquake a minute,
the others what lay between two. Records are packed once; for another station or minute the header alone is written anew,
so that the server costs little. It counts the windows that its packets complete, and knows when it wrote each packet of
the loud stations.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import struct
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from typing import overload

import numpy as np
import obspy
from numpy.typing import NDArray
from scipy.signal import resample_poly

from streamer.demo import recordings
from streamer.server import Record, ReplayServer, Sent
from streamer.server.faults import Release
from streamer.server.records import pack
from streamer.stages import NS

RATE = 100
"""Hertz."""
CYCLE_S = 60
QUIET_S, LOUD_S = 97, 10
"""Where a quiet minute of the recording begins, and one with an earthquake 20 s into it."""
ROTATIONS = 12
"""Places in the minute at which a station's data can begin."""
LOUD_EACH = 10
PREROLL_S = 20.0
"""Data that a station brings along as it joins: just not a window."""
WINDOW = 2080
"""Samples."""


@dataclass(frozen=True, slots=True)
class Load:
    steps: tuple[int, ...]
    """Stations of each step, no fewer than in the one before."""
    step_s: float
    connections: int = 1
    """SeedLink connections that share them; see `select`."""
    hop_s: float = 1.0
    cpu: int | None = None
    """That the server keeps to."""

    @property
    def joins_s(self) -> list[float]:
        """When each station joins."""
        return [next(i for i, count in enumerate(self.steps) if s < count) * self.step_s for s in range(self.steps[-1])]

    def station(self, number: int) -> str:
        """SEED's five characters: the first tells the connection."""
        return f"{chr(ord('A') + number % self.connections)}{number:04d}"

    @property
    def select(self) -> list[str]:
        """The daemon's, one for each connection."""
        return [f"XX.{chr(ord('A') + number)}*" for number in range(self.connections)]


def is_loud(number: int) -> bool:
    return number % LOUD_EACH == LOUD_EACH // 2


@dataclass(frozen=True, slots=True)
class Piece:
    """A record of the minute."""

    first: int
    """Sample of the minute, from where it begins."""
    samples: int
    data: bytes


@cache
def ground() -> dict[bool, NDArray[np.int32]]:
    """Loud or not -> (3, CYCLE_S x RATE) Z, N, E in counts."""
    files = [file for file in recordings() if ".UH3." in f".{file.name.split('.')[1]}."]
    traces = {str(trace.stats.channel)[-1]: trace.data for file in files for trace in obspy.read(str(file))}
    whole = resample_poly(np.stack([traces[code] for code in "ZNE"]).astype(float), 2, 1, axis=1)
    return {
        loud: np.rint(whole[:, begin * RATE : (begin + CYCLE_S) * RATE]).astype(np.int32)
        for loud, begin in ((False, QUIET_S), (True, LOUD_S))
    }


@cache
def pieces(loud: bool, rotation: int, component: int) -> tuple[Piece, ...]:
    """The minute's records, where it begins at this place."""
    samples = np.roll(ground()[loud][component], -rotation * CYCLE_S * RATE // ROTATIONS)
    header = {"network": "XX", "station": "A0000", "channel": f"HH{'ZNE'[component]}", "sampling_rate": RATE}
    records = pack(obspy.Trace(samples, header))
    return tuple(Piece(round(r.start_ns * RATE / NS), r.samples, r.data) for r in records)


@cache
def btime(second: int) -> bytes:
    """Of a miniSEED 2 header, without its fractions."""
    moment = datetime.fromtimestamp(second, UTC)
    return struct.pack(">HHBBBx", moment.year, moment.timetuple().tm_yday, moment.hour, moment.minute, moment.second)


def record(station: str, component: int, piece: Piece, start_ns: int) -> Record:
    """The piece under another station and time, a whole number of hundredths of a second."""
    second, rest_ns = divmod(start_ns, NS)
    when = btime(second) + struct.pack(">H", rest_ns // 100_000)
    data = piece.data[:8] + station.encode() + piece.data[13:20] + when + piece.data[30:]
    end_ns = start_ns + (piece.samples - 1) * NS // RATE
    return Record("XX", station, "", f"HH{'ZNE'[component]}", start_ns, end_ns, Fraction(RATE), piece.samples, data)


class Releases(Sequence[Release]):
    """Of all stations of a load in order of release; each record is made when it is asked for."""

    def __init__(self, load: Load, begin_ns: int, seed: int = 0) -> None:
        self._load = load
        self.first_ns: list[int] = []
        """When each station's data begin."""
        entries: list[tuple[int, int, int, int, Piece]] = []
        self._places = random.Random(seed)
        for number, join_s in enumerate(load.joins_s):
            entries += self._of(number, begin_ns + round(join_s * NS), begin_ns + self.seconds * NS)
        self._entries = sorted(entries, key=lambda entry: (entry[0], entry[1], entry[3], entry[2]))
        self._made: tuple[int, Release] | None = None

    @property
    def seconds(self) -> int:
        return round(self._load.step_s * len(self._load.steps))

    def _of(self, number: int, join_ns: int, end_ns: int) -> Iterator[tuple[int, int, int, int, Piece]]:
        """(release, station, component, start, piece): what is older than the join comes with it."""
        ago = round(PREROLL_S * RATE) + self._places.randrange(
            4 * RATE
        )  # records of four seconds: no two stations in step
        first_ns = join_ns - ago * NS // RATE
        self.first_ns.append(first_ns)
        rotation = self._places.randrange(ROTATIONS)
        for component in range(3):
            minute = pieces(is_loud(number), rotation, component)
            for cycle in range((end_ns - first_ns) // (CYCLE_S * NS) + 1):
                for piece in minute:
                    start_ns = first_ns + cycle * CYCLE_S * NS + piece.first * NS // RATE
                    at_ns = max(join_ns, start_ns + (piece.samples - 1) * NS // RATE)
                    if at_ns < end_ns:
                        yield at_ns, number, component, start_ns, piece

    def known(self) -> list[Record]:
        """One of each channel, for the server's list."""
        places = {entry[1:3]: place for place, entry in reversed(list(enumerate(self._entries)))}
        return [self[place].record for place in places.values()]

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, at: int) -> Release: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Release]: ...
    def __getitem__(self, at: int | slice) -> Release | Sequence[Release]:
        if isinstance(at, slice):
            return [self[place] for place in range(*at.indices(len(self)))]
        if self._made is None or self._made[0] != at:  # the schedule asks when, then takes it
            at_ns, number, component, start_ns, piece = self._entries[at]
            self._made = at, Release(at_ns, record(self._load.station(number), component, piece, start_ns))
        return self._made[1]


@dataclass(slots=True)
class Tally:
    """Windows that what was sent completes, and when the loud stations' packets were written."""

    hop: int
    """Samples."""
    windows: int = 0
    packets: int = 0
    ends: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0]))
    """Station -> one past the newest sample of each component, numbered since 1970."""
    first: dict[str, int] = field(default_factory=dict)
    """Station -> number of its first window."""
    loud: dict[str, list[tuple[int, int, int]]] = field(default_factory=lambda: defaultdict(list))
    """Loud station -> (component, one past its last sample, when it was written)."""

    def sent(self, one: Record, at_ns: int) -> None:
        component, ends = "ZNE".index(one.channel[-1]), self.ends[one.station]
        start = one.start_ns * RATE // NS
        self.first.setdefault(one.station, -(-start // self.hop))
        before = self._windows(one.station)
        ends[component] = max(ends[component], start + one.samples)
        self.windows += self._windows(one.station) - before
        self.packets += 1
        if is_loud(int(one.station[1:])):
            self.loud[one.station].append((component, start + one.samples, at_ns))

    def _windows(self, station: str) -> int:
        return max(0, (min(self.ends[station]) - WINDOW) // self.hop - self.first[station] + 1)


def completed_ns(written: Sequence[tuple[int, int, int]], end: int) -> int | None:
    """When the last packet was written of those that a window ending before sample ``end`` needs; None if none was yet."""
    times: dict[int, int] = {}
    for component, one_past, at_ns in written:
        if one_past >= end:
            times.setdefault(component, at_ns)
    return max(times.values()) if len(times) == 3 else None


@dataclass(slots=True)
class Server:
    """The load's process, seen from here."""

    address: str
    pid: int
    _counts: Synchronized[float]
    _pipe: Connection

    @property
    def windows(self) -> int:
        """That the packets written so far complete."""
        return int(self._counts[0])  # type: ignore[index]

    @property
    def begun_s(self) -> float:
        """When the first packet was written, on the clock of `time.time`; 0 before."""
        return float(self._counts[2])  # type: ignore[index]

    @property
    def packets(self) -> int:
        return int(self._counts[1])  # type: ignore[index]

    def loud(self) -> dict[str, list[tuple[int, int, int]]]:
        """As of `Tally`."""
        self._pipe.send("loud")
        return self._pipe.recv()  # type: ignore[no-any-return]


@contextmanager
def serving(load: Load) -> Iterator[Server]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    counts = context.Array("d", 3)
    process = context.Process(target=_serve, args=(load, there, counts), daemon=True)
    process.start()
    try:
        if not here.poll(120):
            raise TimeoutError("the load's server did not start")
        yield Server(here.recv(), process.pid or 0, counts, here)
    finally:
        process.terminate()
        process.join()


def _serve(load: Load, pipe: Connection, counts: Synchronized[float]) -> None:
    """Time begins when every connection has asked for data."""
    if load.cpu is not None:
        os.sched_setaffinity(0, {load.cpu})
    tally = Tally(round(load.hop_s * RATE))

    def on_sent(sent: Sent) -> None:
        tally.sent(sent.record, sent.sent_ns)
        counts[0], counts[1] = tally.windows, tally.packets  # type: ignore[index]
        counts[2] = counts[2] or sent.sent_ns / NS  # type: ignore[index]

    releases = Releases(load, time.time_ns() // NS * NS)
    with ReplayServer(releases.known(), speed=1.0, wait_clients=load.connections, on_sent=on_sent) as server:
        server.server.schedule.releases = releases
        pipe.send(server.address)
        while pipe.recv() == "loud":
            pipe.send(dict(tally.loud))
