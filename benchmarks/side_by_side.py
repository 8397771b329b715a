"""Ours beside what others use for the same, in one go, in turn, on one processor and one thread; ratios are what counts.

    python -m benchmarks.side_by_side [--quick] [--out FILE]

- ring and cutter against ObsPy's `Stream` (merge, slice, trim) and `RtTrace` (append, slice): the same windows of one station
- the transform against `scipy.signal.stft` and `torch.stft`, each with the same scaling and logarithm
- the daemon's stages from packet to trigger against SeisBench's `annotate`: the same stations and minutes
- both transports against the clients that they are made of: processor time a packet, from our server in a process of its own

SeisBench runs in the environment that ``scripts/peers`` makes, on weights in ../shared/peers; without them it is told so.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import obspy
import torch
from numpy.typing import NDArray
from obspy.realtime import RtTrace
from scipy.signal import stft as scipy_stft

from benchmarks.load import RATE, WINDOW, Load, Releases, ground
from benchmarks.results import Line, Part, number
from benchmarks.running import ROOT, BenchError, on_processor, processors
from benchmarks.stations import Subject, efficientnet, hybrid
from quake.artifact import CompiledModel
from quake.data.spectrogram import SpectrogramShape, normalise
from streamer.grid import Grid
from streamer.hooks import Hooks
from streamer.source.address import parse_address
from streamer.source.obspy_transport import ObspyConnection
from streamer.source.records import decode
from streamer.source.resume import Begin, Start
from streamer.source.seedlink_transport import SeedLinkClientConnection
from streamer.source.transport import Connection, Limits, Request
from streamer.stages import NS, Packet, Window
from streamer.station import Policy, Station
from streamer.trigger import ModelName, Thresholds, Trigger
from streamer.worker import Batcher, Worker

GRID = Grid(RATE, WINDOW, RATE)
KEPT_S = 60
"""Of data that ObsPy's ways keep, as little as they can do with: ours keeps three minutes."""
BEGIN_NS = 1_700_000_000 * NS
SHARED = ROOT.parent / "shared" / "peers"
PEERS = ROOT / "build" / "peers" / "venv" / "bin" / "python"
PEERS_S = 600.0
"""Longest time for making SeisBench's environment, and for one round of it."""


def packets(stations: int, seconds: float) -> list[Packet]:
    """As they are decoded, in the order of their ends."""
    releases = Releases(Load((stations,), seconds), BEGIN_NS)
    found = (decode(release.record.data, None, release.at_ns) for release in releases)
    return sorted((one for one in found if isinstance(one, Packet)), key=lambda one: (one.end_ns, one.channel))


def in_turn(calls: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of what each returns, each once a round, after a round that does not count."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for number_ in range(rounds + 1):
        for name, call in calls.items():
            value = call()
            if number_:
                found[name].append(value)
    return {name: statistics.median(values) for name, values in found.items()}


def beside(what: str, unit: str, ours: str, found: Mapping[str, float], *, more_is_better: bool = False) -> list[Line]:
    """Each of the others against ours; the ratio says how many times better ours is."""
    lines = []
    for name, value in found.items():
        if name != ours:
            ratio = found[ours] / value if more_is_better else value / found[ours]
            figures = f"{number(found[ours])} against {number(value)} {unit}: {number(ratio)} times"
            lines.append(Line(f"{what}: {ours} against {name}", figures))
    return lines


# -- ring and cutter


def by_station(came: Sequence[Packet]) -> int:
    """Windows cut."""
    station = Station(came[0].subject, GRID, Policy(), expected=frozenset("ZNE"))
    count = 0
    for packet in came:
        station.insert(packet, lambda reason, count: None)
        count += sum(isinstance(item, Window) for item in station.cut())
    return count


def traces(came: Sequence[Packet]) -> list[obspy.Trace]:
    found = []
    for packet in came:
        network, station, *_, code = packet.channel.removeprefix("FDSN:").split("_")
        header = {"network": network, "station": station, "channel": f"HH{code}", "sampling_rate": float(packet.rate)}
        found.append(obspy.Trace(packet.samples, {**header, "starttime": obspy.UTCDateTime(ns=packet.start_ns)}))
    return found


class Due:
    """Which windows on the grid are complete: the same bookkeeping for both of ObsPy's ways."""

    def __init__(self) -> None:
        self.ends: dict[str, int] = {}
        self.next_k: int | None = None

    def after(self, trace: obspy.Trace) -> Iterator[obspy.UTCDateTime]:
        """Beginnings of those that this trace completes."""
        if self.next_k is None:
            self.next_k = GRID.first_at_or_after(int(trace.stats.starttime.ns))
        self.ends[trace.stats.channel] = int(trace.stats.endtime.ns)
        while len(self.ends) == 3 and min(self.ends.values()) >= GRID.end_ns(self.next_k) - NS // RATE:
            yield obspy.UTCDateTime(ns=GRID.start_ns(self.next_k))
            self.next_k += 1


def by_stream(came: Sequence[obspy.Trace]) -> int:
    stream, due, count = obspy.Stream(), Due(), 0
    for trace in came:
        stream.append(trace.copy())
        stream.merge(method=1)
        for begin in due.after(trace):
            count += _whole([one.data for one in stream.slice(begin, begin + (WINDOW - 1) / RATE)])
        stream.trim(starttime=trace.stats.endtime - KEPT_S)
    return count


def by_rttrace(came: Sequence[obspy.Trace]) -> int:
    rows: dict[str, RtTrace] = {}
    due, count = Due(), 0
    for trace in came:
        rows.setdefault(trace.stats.channel, RtTrace(max_length=KEPT_S)).append(trace)
        for begin in due.after(trace):
            count += _whole([row.slice(begin, begin + (WINDOW - 1) / RATE).data for row in rows.values()])
    return count


def _whole(rows: Sequence[NDArray[Any]]) -> int:
    """1 for a window of three whole components, ready for a transform."""
    return int(np.stack([row - row.mean() for row in rows]).shape == (3, WINDOW))


def cutting(seconds: float, rounds: int) -> list[Line]:
    came = packets(1, seconds)
    others = traces(came)
    counts = {by_station(came), by_stream(others), by_rttrace(others)}
    if max(counts) - min(counts) > 2:
        raise BenchError(f"not the same windows: {counts}")

    def us(way: Callable[[Any], int], given: Sequence[Any]) -> Callable[[], float]:
        def call() -> float:
            begun_ns = time.thread_time_ns()
            way(given)
            return (time.thread_time_ns() - begun_ns) / 1000 / len(given)

        return call

    ways = {
        "quake": us(by_station, came),
        "obspy.Stream": us(by_stream, others),
        "obspy.realtime.RtTrace": us(by_rttrace, others),
    }
    return beside("ring and cutter", "us a packet", "quake", in_turn(ways, rounds))


# -- transform


def transform_ways(batch: int) -> dict[str, Callable[[], NDArray[Any]]]:
    """Name -> what makes (batch, 3, 33, 64) of the same windows."""
    model = CompiledModel.load(hybrid().path, "cpu", threads=1)
    shape = model.spec.spectrogram
    first = [100 * number for number in range(batch)]
    windows = np.stack([ground()[False][:, at : at + WINDOW] for at in first]).astype(np.float32)
    taper = torch.from_numpy(shape.taper().copy())

    def by_scipy() -> NDArray[Any]:
        level = np.log1p(shape.gain * np.abs(_by_scipy(normalise(windows, shape.normalisation), shape)))
        if shape.representation == "log1p_contrast":
            level -= level.mean(axis=-1, keepdims=True)
        return np.asarray(level, np.float32)

    def by_torch() -> NDArray[Any]:
        signal = torch.from_numpy(normalise(windows, shape.normalisation)).reshape(-1, WINDOW)
        found = torch.stft(signal, shape.nperseg, shape.hop, window=taper, center=False, return_complex=True)
        level = torch.log1p(shape.gain * found.abs())
        if shape.representation == "log1p_contrast":
            level = level - level.mean(dim=-1, keepdim=True)
        return np.asarray(level.float().reshape(batch, 3, *level.shape[-2:]).numpy())

    return {"quake": lambda: model.transform(windows), "scipy.signal.stft": by_scipy, "torch.stft": by_torch}


def transforms(batch: int, calls: int, rounds: int) -> list[Line]:
    def us(call: Callable[[], object]) -> Callable[[], float]:
        def timed() -> float:
            begun_ns = time.thread_time_ns()
            for _ in range(calls):
                call()
            return (time.thread_time_ns() - begun_ns) / 1000 / calls / batch

        return timed

    found = in_turn({name: us(way) for name, way in transform_ways(batch).items()}, rounds)
    return beside(f"transform, batches of {batch}", "us a window", "quake", found)


def _by_scipy(signal: NDArray[np.float64], shape: SpectrogramShape) -> NDArray[np.complex128]:
    overlap = shape.nperseg - shape.hop
    _, _, found = scipy_stft(
        signal, RATE, shape.window, shape.nperseg, overlap, boundary=None, padded=False, scaling="spectrum"
    )
    return np.asarray(found * shape.taper().sum())


# -- windows


def scored(subject: Subject) -> Callable[[Sequence[Packet]], int]:
    """The daemon's stages from packet to trigger; windows scored."""
    model = CompiledModel.load(subject.path, "cpu", threads=1)
    worker = Worker(model, 16, Hooks())
    model.warm_up(worker.shapes)
    limits = Thresholds(on=0.9, off=0.5, in_a_row=2, release=3, dead_k=15, longest_k=300)

    def score(came: Sequence[Packet]) -> int:
        batcher, count = Batcher(16, 0), 0
        stations: dict[str, Station] = {}
        triggers: dict[str, Trigger] = {}
        for packet in came:
            name = packet.subject
            if name not in stations:
                stations[name] = Station(name, GRID, Policy(), expected=frozenset("ZNE"))
                triggers[name] = Trigger(name, GRID, limits, ModelName("bench", 0))
            stations[name].insert(packet, lambda reason, count: None)
            batcher.add(stations[name].cut(), 0)
            while batcher.windows >= 16:
                count += _decided(worker.score(batcher.take(0)), triggers)
        return count + _decided(worker.score(batcher.take(0)), triggers)

    return score


def _decided(items: Sequence[Any], triggers: Mapping[str, Trigger]) -> int:
    for item in items:
        triggers[item.subject].decide(item)
    return len(items)


@contextmanager
def seisbench(file: Path) -> Iterator[Callable[[], dict[str, tuple[float, int]]]]:
    """Picker -> seconds for all of the file, and windows. BenchError where it is not there."""
    if not SHARED.is_dir():
        raise BenchError(f"SeisBench was not asked: no weights in {SHARED.relative_to(ROOT.parent)}")
    if not PEERS.exists():
        made = subprocess.run(["scripts/peers"], cwd=ROOT, capture_output=True, text=True, timeout=PEERS_S, check=False)
        if made.returncode:
            raise BenchError(f"SeisBench was not asked: scripts/peers failed: {made.stderr.strip().splitlines()[-1:]}")
    command = [str(PEERS), "-W", "ignore", "benchmarks/annotate.py", str(SHARED), str(file)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def ask() -> dict[str, tuple[float, int]]:
        process.stdin.write("go\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise BenchError("SeisBench's process ended")
        return json.loads(line)  # type: ignore[no-any-return]

    try:
        yield ask
    finally:
        process.kill()
        process.wait()


def scoring(stations: int, seconds: float, rounds: int) -> tuple[list[Line], list[str]]:
    """Seconds of three-component data a second of one core, and windows a second."""
    came, notes = packets(stations, seconds), []
    covered_s = sum(len(packet.samples) for packet in came) / 3 / RATE
    ways: dict[str, Callable[[], float]] = {}
    windows: dict[str, int] = {}
    for subject in (hybrid(), efficientnet()):
        score, name = scored(subject), f"quake, {subject.name}"
        windows[name] = score(came)
        ways[name] = lambda score=score: covered_s / _taken_s(lambda: score(came))  # type: ignore[misc]
    ours = list(ways)
    with tempfile.TemporaryDirectory() as folder, suppress_absent(notes), ExitStack() as stack:
        file = Path(folder) / "made.mseed"
        obspy.Stream(traces(came)).merge(method=1).write(str(file), format="MSEED")
        ask = stack.enter_context(seisbench(file))
        latest: dict[str, tuple[float, int]] = {}

        def theirs(name: str) -> float:
            if name == "PhaseNet":  # the first of the two asks for both
                latest.update(ask())
            windows[f"SeisBench {name}"] = latest[name][1]
            return covered_s / latest[name][0]

        both = {f"SeisBench {name}": partial(theirs, name) for name in ("PhaseNet", "EQTransformer")}
        return _scoring_lines(ours, in_turn({**ways, **both}, rounds), windows, covered_s), notes
    return _scoring_lines(ours, in_turn(ways, rounds), windows, covered_s), notes


def _taken_s(call: Callable[[], object]) -> float:
    begun_s = time.perf_counter()
    call()
    return time.perf_counter() - begun_s


@contextmanager
def suppress_absent(notes: list[str]) -> Iterator[None]:
    try:
        yield
    except BenchError as error:
        notes.append(str(error))


def _scoring_lines(
    ours: Sequence[str], found: Mapping[str, float], windows: Mapping[str, int], covered_s: float
) -> list[Line]:
    a_second = {name: found[name] * count / covered_s for name, count in windows.items()}
    hops_s = {name: covered_s / count for name, count in windows.items()}
    lines = [
        Line(
            f"packet to trigger: {name}, a window each {hops_s[name]:.0f} s of data",
            f"{number(a_second[name])} windows/s, {number(found[name])} s of data a second",
        )
        for name in windows
    ]
    for name in ours:
        mine = {other: value for other, value in a_second.items() if other == name or other not in ours}
        lines += beside("packet to trigger", "windows/s", name, mine, more_is_better=True)
    return lines


# -- transports


@contextmanager
def replaying(file: Path, cpu: int) -> Iterator[str]:
    """Our server with a file, as fast as it is read, in a process of its own."""
    command = [sys.executable, "-m", "streamer", "replay", str(file), "--port", "0", "--speed", "0"]
    with on_processor(cpu):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


STATION = "XX_A0000"
REQUEST = Request(STATION, ("HH?",), ("*",))


def _through(connection: Connection, *, decoding: bool) -> Iterator[object]:
    connection.open()
    connection.begin((REQUEST,), {STATION: Begin(Start.NOW)})
    for raw in connection.packets():
        yield decode(raw.payload, None, raw.received_ns, raw.size) if decoding else raw
    connection.close()


def ours_on_obspy(url: str) -> Iterator[object]:
    return _through(ObspyConnection(parse_address(url), Limits()), decoding=True)


def ours_on_seedlink_client(url: str) -> Iterator[object]:
    return _through(
        SeedLinkClientConnection(parse_address(f"{url}?transport=seedlink-client"), Limits()), decoding=True
    )


def obspys(url: str) -> Iterator[object]:
    """With a time-out, without which its connect raises."""
    from obspy.clients.seedlink.client.seedlinkconnection import SeedLinkConnection
    from obspy.clients.seedlink.slpacket import SLPacket

    client = SeedLinkConnection(timeout=120)
    client.set_sl_address(url.removeprefix("seedlink://"))
    client.add_stream(*STATION.split("_"), "HH?", -1, None)
    while isinstance(packet := client.collect(), SLPacket):
        yield packet.get_trace()


def seedlink_clients(url: str) -> Iterator[object]:
    """Its records decoded as ours are: it hands on bytes."""
    from seedlink_client import SeedLink

    host, port = url.removeprefix("seedlink://").split(":")
    client = SeedLink(host, int(port))
    client.add_stream(STATION, "HH?")
    client.connect()
    for packet in client.collect(reconnect=False):
        yield decode(packet.payload, None, 0)


def packet_us(client: Callable[[str], Iterator[object]], file: Path, count: int, cpu: int) -> float:
    """Processor time of this thread for each of so many packets, from the second one on."""
    with replaying(file, cpu) as url:
        stream = client(url)
        next(stream)
        begun_ns = time.thread_time_ns()
        for _ in range(count - 1):
            next(stream)
        taken_ns = time.thread_time_ns() - begun_ns
        with suppress(Exception):
            stream.close()  # type: ignore[attr-defined]
    return taken_ns / 1000 / (count - 1)


def transports(seconds: float, rounds: int, cpu: int) -> list[Line]:
    """To samples, in all four."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "one.mseed"
        repeats = int(seconds / 60) + 1
        rows = [np.tile(ground()[False][component], repeats) for component in range(3)]
        header = {"network": "XX", "station": "A0000", "sampling_rate": RATE}
        obspy.Stream(
            [obspy.Trace(row, {**header, "channel": f"HH{code}"}) for row, code in zip(rows, "ZNE", strict=True)]
        ).write(str(file), format="MSEED", reclen=512, encoding="STEIM2")
        count = int(Fraction(seconds) * 3 / 6)  # records hold four seconds: fewer than there are

        def us(client: Callable[[str], Iterator[object]]) -> Callable[[], float]:
            return lambda: packet_us(client, file, count, cpu)

        ours, others = {"quake on ObsPy's client": us(ours_on_obspy)}, {"ObsPy's client": us(obspys)}
        third, fourth = (
            {"quake on seedlink-client": us(ours_on_seedlink_client)},
            {"seedlink-client": us(seedlink_clients)},
        )
        found = in_turn({**ours, **others, **third, **fourth}, rounds)
    lines = []
    for mine, other in ((ours, others), (third, fourth)):
        pair = {name: found[name] for name in (*mine, *other)}
        lines += beside("transport, socket to samples", "us a packet", next(iter(mine)), pair)
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="seconds of data, once: does it run?")
    parser.add_argument("--out", type=Path, help="the lines as JSON")
    chosen = parser.parse_args(arguments)
    quick: bool = chosen.quick
    rounds = 1 if quick else 3
    mine, other = processors()
    torch.set_num_threads(1)
    with on_processor(mine):
        lines = cutting(60.0 if quick else 300.0, rounds)
        lines += transforms(4 if quick else 16, 2 if quick else 50, rounds)
        lines += transports(60.0 if quick else 3000.0, rounds, other)
        with_peers, notes = scoring(2 if quick else 8, 60.0 if quick else 180.0, rounds)
    part = Part("Side by side", (*lines, *with_peers), tuple(notes))
    part.tell(chosen.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
