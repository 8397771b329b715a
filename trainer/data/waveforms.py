"""Waveforms as ObsPy reads them, by sensor: which are there, where they are whole, and cut out of them as (3, N).

A sensor is one instrument at one site at one rate: network, station, location, band and instrument code. Horizontals 1
and 2 stand in the places of N and E, wherever they point. What is not here:
labels; resampling (`trainer.data.finding`); removal of an instrument's response.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from obspy import Stream, Trace, UTCDateTime
from obspy import read as obspy_read

from quake.data.seisbench import DataError
from trainer.data.finding import Raw, Unusable

ROWS = {"Z": 0, "N": 1, "E": 2, "1": 1, "2": 2, "3": 0}
"""Row of each orientation code; 3 is the vertical of a sensor that numbers its components."""
MOST_OPEN = 8
"""Files kept in memory: what is cut next mostly lies in the same ones."""


class Sensor(NamedTuple):
    network: str
    station: str
    location: str
    instrument: str
    """Band and instrument code: the first two letters of its channels."""
    rate_hz: float

    def __str__(self) -> str:
        return f"{self.network}.{self.station}.{self.location}.{self.instrument}"


class Span(NamedTuple):
    """A time without gaps, from its first sample to its last."""

    start: UTCDateTime
    end: UTCDateTime

    def within(self, start: UTCDateTime, end: UTCDateTime) -> Span:
        return Span(max(self.start, start), min(self.end, end))

    @property
    def duration_s(self) -> float:
        """Negative where nothing is left."""
        return float(self.end - self.start)


@dataclass(frozen=True, slots=True)
class Cut:
    """(3, N) of one sensor."""

    raw: Raw
    start: UTCDateTime
    channels: tuple[str, ...]
    """Codes of those that are in it."""


class Archive:
    """Waveforms by sensor, of files or of a stream in memory."""

    def __init__(self, headers: Iterable[tuple[Trace, Path | None]]) -> None:
        """``headers``: traces with or without samples, and the file to read the samples from; None: they are there."""
        self._traces: dict[Sensor, list[tuple[Trace, Path | None]]] = defaultdict(list)
        for trace, path in headers:
            if (sensor := sensor_of(trace)) is not None and trace.stats.npts:
                self._traces[sensor].append((trace, path))
        self._spans: dict[Sensor, Sequence[Span]] = {}
        self._open = lru_cache(maxsize=MOST_OPEN)(read_waveforms)

    @classmethod
    def of_stream(cls, stream: Stream) -> Archive:
        return cls((trace, None) for trace in stream)

    @classmethod
    def of_files(cls, paths: Iterable[Path]) -> Archive:
        """Only their headers are read here. DataError, naming the file, for one that ObsPy cannot read."""
        return cls((trace, path) for path in paths for trace in read_waveforms(path, headonly=True))

    @property
    def sensors(self) -> Sequence[Sensor]:
        return sorted(self._traces)

    def at(self, network: str, station: str, location: str | None = None) -> Sequence[Sensor]:
        """Of one site; an empty network and the location None match all."""
        return [
            sensor
            for sensor in self.sensors
            if sensor.station == station and network in {"", sensor.network} and location in {None, sensor.location}
        ]

    def channels(self, sensor: Sensor) -> Sequence[str]:
        """Codes of the components that it has."""
        return sorted({trace.stats.channel for trace, _ in self._traces[sensor]})

    def spans(self, sensor: Sensor) -> Sequence[Span]:
        """Where all components that the sensor has are there, in order."""
        if sensor not in self._spans:
            self._spans[sensor] = self._find_spans(sensor)
        return self._spans[sensor]

    def _find_spans(self, sensor: Sensor) -> Sequence[Span]:
        by_channel: dict[str, list[Span]] = defaultdict(list)
        for trace, _ in self._traces[sensor]:
            by_channel[trace.stats.channel].append(Span(trace.stats.starttime, trace.stats.endtime))
        common, *others = (_joined(spans, sensor.rate_hz) for spans in by_channel.values())
        for spans in others:
            common = [part for a in common for b in spans if (part := a.within(*b)).duration_s > 0]
        return common

    def files(self, sensor: Sensor, span: Span) -> Sequence[Path]:
        """That hold samples of a part of the sensor's time."""
        overlapping = (
            path
            for trace, path in self._traces[sensor]
            if trace.stats.starttime <= span.end and trace.stats.endtime >= span.start and path is not None
        )
        return sorted(set(overlapping))

    def around(self, sensor: Sensor, time: UTCDateTime) -> Span | None:
        """The span that holds ``time``."""
        return next((span for span in self.spans(sensor) if span.start <= time <= span.end), None)

    def cut(self, sensor: Sensor, span: Span) -> Cut:
        """Samples of a part of one of the sensor's `spans`; Unusable where the files do not hold what was announced."""
        stream = Stream()
        for trace, path in self._traces[sensor]:
            if trace.stats.starttime <= span.end and trace.stats.endtime >= span.start:
                stream += self._samples(trace, path).slice(*span)
        stream.merge(method=-1)  # joins what continues; a gap stays one
        return _assembled(stream, sensor, span)

    def _samples(self, trace: Trace, path: Path | None) -> Stream:
        """Of one channel."""
        whole = Stream([trace]) if path is None else self._open(path)
        return whole.select(id=trace.id, sampling_rate=trace.stats.sampling_rate)


def sensor_of(trace: Trace) -> Sensor | None:
    """None for a channel that is no component of a seismometer."""
    stats = trace.stats
    if len(stats.channel) != 3 or stats.channel[-1] not in ROWS:
        return None
    return Sensor(stats.network, stats.station, stats.location, stats.channel[:2], round(stats.sampling_rate, 4))


def waveform_files(folder: Path) -> Sequence[Path]:
    """All miniSEED files below a folder, or the file itself; DataError where there is none."""
    paths = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if _is_miniseed(path))
    if not paths:
        raise DataError(f"{folder}: holds no miniSEED file")
    return paths


def read_waveforms(path: Path, headonly: bool = False) -> Stream:
    """DataError, naming the file, where it cannot be read as miniSEED."""
    try:
        return obspy_read(path, format="MSEED", headonly=headonly, check_compression=False)
    except Exception as error:  # ObsPy raises bare ones
        raise DataError(f"{path}: cannot be read as miniSEED: {error}") from error


def apart(times: Iterable[tuple[UTCDateTime, UTCDateTime]], span: Span) -> Iterator[Span]:
    """What is left of a span without the given times."""
    begin = span.start
    for start, end in sorted(times):
        if start > begin:
            yield Span(begin, min(start, span.end))
        begin = max(begin, end)
        if begin >= span.end:
            return
    yield Span(begin, span.end)


def chunks(span: Span, length_s: float, shortest_s: float) -> Iterator[Span]:
    """A span in parts of ``length_s``, one after the other; the last one may be shorter."""
    count = max(int(-(-span.duration_s // length_s)), 1)
    edges = [span.start + number * length_s for number in range(count)] + [span.end]
    yield from (Span(start, end) for start, end in pairwise(edges) if end - start >= shortest_s)


def by_path_as_given(paths: Iterable[Path], folder: Path) -> Mapping[str, Path]:
    return {str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path): path for path in paths}


def compact(time: UTCDateTime) -> str:
    """For names: 20191224T190000.018393."""
    return str(time.strftime("%Y%m%dT%H%M%S.%f"))


def _is_miniseed(path: Path) -> bool:
    """By its content: names say little. A record begins with six digits and a quality code, or with MS and 3."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(7)
    return head[:3] == b"MS\x03" or (head[:6].isdigit() and head[6:7] in b"DRQM" and len(head) == 7)


def _joined(spans: Iterable[Span], rate_hz: float) -> list[Span]:
    """One channel's, those that continue each other within a sample as one."""
    whole: list[Span] = []
    for span in sorted(spans):
        if whole and span.start - whole[-1].end < 1.5 / rate_hz:
            whole[-1] = Span(whole[-1].start, max(whole[-1].end, span.end))
        else:
            whole.append(span)
    return whole


def _assembled(stream: Stream, sensor: Sensor, span: Span) -> Cut:
    """Traces of a span without gaps -> (3, N), zeros where a component is not there."""
    length = min((trace.stats.npts for trace in stream), default=0)
    channels = [trace.stats.channel for trace in stream]
    if not length or len(set(channels)) != len(channels) or length < span.duration_s * sensor.rate_hz - 1.5:
        raise Unusable("no_waveform", f"{sensor} from {span.start} to {span.end} is not whole")
    samples = np.zeros((3, length), np.float64)
    for trace in stream:
        samples[ROWS[trace.stats.channel[-1]]] = np.asarray(trace.data[:length], np.float64)
    start: Any = min(trace.stats.starttime for trace in stream)
    return Cut(Raw(samples, sensor.rate_hz), start, tuple(sorted(channels)))
