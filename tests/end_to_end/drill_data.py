"""Bad data, made of one good station: each fault is a station of its own beside unharmed ones, so that one run shows all.

`Fault.make` turns a good trace into records as a broken digitiser, clock or line would send them. The times at which
records are released stay true, whatever their headers say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import obspy
from obspy import Stream, Trace, UTCDateTime

from quake.times import NS
from streamer.demo import recordings
from streamer.server import Record
from streamer.server.records import pack

BEGIN_S, END_S = 80.0, 110.0
"""Of the faults that have both, seconds into the recording: between its two earthquakes."""
HOUR_S = 3600.0
Made = Iterator[Record]
MISSED = "streamer/source/session.py: records of the second earthquake are handed on as zeros"


@dataclass(frozen=True, slots=True)
class Fault:
    station: str
    """Five characters at most."""
    name: str
    make: Callable[[Trace], Made]
    promised: str
    like_new: bool = False
    """The alerts are those of an unharmed station."""
    silent: bool = False
    """No alert at all is right."""
    deaf: bool = False
    """The earthquakes before and after need not be seen."""
    shift_s: float = 0.0
    """What the station's clock makes of the second earthquake."""
    sabotage: str = MISSED


def station(fault: Fault) -> list[Record]:
    """UH3, its three components each with the fault."""
    return [record for trace in good(fault.station) for record in fault.make(trace)]


def good(name: str) -> Stream:
    """UH3 under another name."""
    stream = Stream([t for file in recordings() for t in obspy.read(str(file)) if t.stats.station == "UH3"])
    for trace in stream:
        trace.data = np.asarray(trace.data, np.int32)
        trace.stats.station = name
    return stream


# -- small tools: a part of a trace, records released late, headers that lie


def part(trace: Trace, begin_s: float, end_s: float = 1e9) -> Trace:
    """Samples of [begin, end) seconds."""
    rate = trace.stats.sampling_rate
    first, last = (max(0, round(s * rate)) for s in (begin_s, min(end_s, len(trace) / rate)))
    cut = trace.copy()
    cut.data = trace.data[first:last].copy()
    cut.stats.starttime = trace.stats.starttime + first / rate
    return cut


def changed(trace: Trace, begin_s: float, end_s: float, change: Callable[[np.ndarray], np.ndarray]) -> Trace:
    """The trace with other samples in [begin, end)."""
    rate, copy = trace.stats.sampling_rate, trace.copy()
    here = slice(round(begin_s * rate), round(end_s * rate))
    copy.data[here] = change(copy.data[here]).astype(np.int32)
    return copy


def stamped(trace: Trace, off_s: float) -> Made:
    """Records whose headers are off by so much; they come when they should."""
    wrong = trace.copy()
    wrong.stats.starttime += off_s
    off_ns = round(off_s * NS)
    for record in pack(wrong):
        yield replace(record, start_ns=record.start_ns - off_ns, end_ns=record.end_ns - off_ns)


def later(records: Made, by_s: float) -> Made:
    """Released so much later."""
    for record in records:
        yield replace(record, end_ns=record.end_ns + round(by_s * NS))


# -- the faults


def one_sample_missing(trace: Trace) -> Made:
    yield from pack(part(trace, 0, BEGIN_S))
    yield from pack(part(trace, BEGIN_S + 0.02))


def half_a_minute_missing(trace: Trace) -> Made:
    yield from pack(part(trace, 0, BEGIN_S))
    yield from pack(part(trace, END_S))


def three_hours_missing(trace: Trace) -> Made:
    yield from pack(part(trace, 0, BEGIN_S))
    rest = part(trace, BEGIN_S)
    rest.stats.starttime += 3 * HOUR_S
    yield from pack(rest)


def tiny_gaps(trace: Trace) -> Made:
    """A sample in each ten seconds: 8,640 a day."""
    for begin_s in range(0, 240, 10):
        if begin_s < len(trace) / trace.stats.sampling_rate:
            yield from pack(part(trace, begin_s, begin_s + 9.98))


def overlap_that_agrees(trace: Trace) -> Made:
    yield from pack(trace)
    yield from pack(part(trace, BEGIN_S, END_S))


def overlap_that_differs(trace: Trace) -> Made:
    """Through the second earthquake, and later than any record lasts, so that there is no doubt which came first: what is louder
    packs into shorter records, which are out sooner."""
    yield from pack(trace)
    other = changed(part(trace, 195.0, 225.0), 0, 30.0, lambda samples: 7 * samples[::-1])
    yield from later(pack(other), 15.0)


def out_of_order(trace: Trace) -> Made:
    """Half a minute of data comes two minutes late: after all the windows that needed it."""
    yield from pack(part(trace, 0, BEGIN_S))
    yield from later(pack(part(trace, BEGIN_S, END_S)), 120.0)
    yield from pack(part(trace, END_S))


def clock_jumps(trace: Trace) -> Made:
    """Five hours ahead for half a minute, and back."""
    yield from pack(part(trace, 0, BEGIN_S))
    yield from stamped(part(trace, BEGIN_S, END_S), 5 * HOUR_S)
    yield from pack(part(trace, END_S))


def clock_jumps_back(trace: Trace) -> Made:
    """Five hours back, for good."""
    yield from pack(part(trace, 0, BEGIN_S))
    yield from stamped(part(trace, BEGIN_S), -5 * HOUR_S)


def clock_creeps(trace: Trace) -> Made:
    """200 parts in a million: each record's header is off by some more."""
    for begin_s in range(0, 240, 5):
        if begin_s < len(trace) / trace.stats.sampling_rate:
            yield from stamped(part(trace, begin_s, begin_s + 5), 2e-4 * begin_s)


def future_times(trace: Trace) -> Made:
    """Records of the year 2099 between the good ones."""
    yield from pack(trace)
    ahead_s = UTCDateTime(2099, 1, 1) - trace.stats.starttime
    yield from stamped(part(trace, BEGIN_S, END_S), ahead_s)


def leap_second_unknown(trace: Trace) -> Made:
    """The digitiser learns of the second half a minute late: a second too early until then."""
    yield from pack(part(trace, 0, BEGIN_S))
    yield from stamped(part(trace, BEGIN_S, END_S), -1.0)
    yield from pack(part(trace, END_S))


def leap_second_written(trace: Trace) -> Made:
    """Records that begin with a minute, in headers that write its first second as the sixtieth of the one before, flagged
    as a leap second is."""
    start = trace.stats.starttime
    full = [60.0 * k - start.second - start.microsecond / 1e6 for k in range(1, 5)]
    begins = [0.0, *(begin_s + 0.1 for begin_s in full), 1e9]
    for begin_s, end_s in pairwise(begins):
        if begin_s < len(trace) / trace.stats.sampling_rate:
            yield from map(sixtieth, pack(part(trace, begin_s, end_s)))


def sixtieth(record: Record) -> Record:
    """BTIME: year, day, hour, minute, second. A minute's first second has another way to be written."""
    data = bytearray(record.data)
    minute, second = data[25], data[26]
    if second == 0 and minute > 0:
        data[25], data[26] = minute - 1, 60
        data[36] |= 1 << 4  # activity flags: a positive leap second lies in this record
    return replace(record, data=bytes(data))


def other_rate(trace: Trace) -> Made:
    """50 Hz, then 100 Hz."""
    yield from pack(part(trace, 0, BEGIN_S))
    rest = part(trace, BEGIN_S)
    places = np.arange(0, len(rest) - 1, 0.5)
    rest.data = np.interp(places, np.arange(len(rest)), rest.data).astype(np.int32)
    rest.stats.sampling_rate = 2 * trace.stats.sampling_rate
    yield from pack(rest)


def dead(trace: Trace) -> Made:
    yield from pack(changed(trace, 0, 1e6, np.zeros_like))


def constant_for_a_while(trace: Trace) -> Made:
    yield from pack(changed(trace, BEGIN_S, END_S, lambda samples: np.full_like(samples, 8_388_607)))


def one_component_dead(trace: Trace) -> Made:
    yield from dead(trace) if trace.stats.channel.endswith("N") else pack(trace)


def clipped(trace: Trace) -> Made:
    """At a twentieth of its largest sample."""
    most = int(np.abs(trace.data - trace.data.mean()).max() / 20)
    middle = int(trace.data.mean())
    yield from pack(changed(trace, 0, 1e6, lambda samples: np.clip(samples, middle - most, middle + most)))


def calibration(trace: Trace) -> Made:
    """A step of a million counts for five seconds, three times."""
    pulsed = trace
    for begin_s in (BEGIN_S, BEGIN_S + 10, BEGIN_S + 20):
        pulsed = changed(pulsed, begin_s, begin_s + 5, lambda samples: samples + 1_000_000)
    yield from pack(pulsed)


SCAN = "the alerts of a scan of the same records; earthquakes before and after are seen, other stations are untouched"
NEW = "the alerts of an unharmed station"
WHOLE = "streamer/composition.py: score_incomplete is false"
FIRST = "streamer/ring.py: what comes later takes the place of what is there"
GUARD = "streamer/clock_guard.py: no new time is ever agreed on"
FLAT = "streamer/station.py: a constant channel is as good as any"
FUTURE = "streamer/station.py: no time is in the future"
FAULTS: Sequence[Fault] = (
    Fault("NEW", "none: an unharmed station beside the others", pack, NEW, like_new=True),
    Fault("GAP1", "a gap of one sample", one_sample_missing, SCAN),
    Fault("GAP30", "a gap of 30 s", half_a_minute_missing, SCAN),
    Fault("GAP3H", "a gap of three hours", three_hours_missing, SCAN, shift_s=3 * HOUR_S, sabotage=GUARD),
    Fault("TINY", "a sample missing every ten seconds: 8,640 gaps a day", tiny_gaps, SCAN, sabotage=WHOLE),
    Fault("SAME", "overlaps that agree", overlap_that_agrees, NEW, like_new=True),
    Fault(
        "DIFF", "overlaps that differ: what came first stays", overlap_that_differs, NEW, like_new=True, sabotage=FIRST
    ),
    Fault("ORDER", "packets out of order by two minutes", out_of_order, SCAN),
    Fault("JUMP", "a clock that jumps five hours ahead, and back", clock_jumps, SCAN),
    Fault(
        "BACK",
        "a clock that jumps five hours back, for good",
        clock_jumps_back,
        SCAN,
        shift_s=-5 * HOUR_S,
        sabotage=GUARD,
    ),
    Fault("CREEP", "a clock that creeps by 200 ppm", clock_creeps, SCAN, sabotage=WHOLE),
    Fault("AHEAD", "times in the future (2099) between the others", future_times, NEW, like_new=True, sabotage=FUTURE),
    Fault("LEAP", "a leap second learnt of late: 30 s of times a second too early", leap_second_unknown, SCAN),
    Fault("SIXTY", "a leap second written as second 60", leap_second_written, NEW, like_new=True),
    Fault("RATE", "a sampling rate that changes from 50 to 100 Hz", other_rate, SCAN),
    Fault(
        "DEAD",
        "a dead station: zeros on every channel",
        dead,
        "no alert, nothing scored",
        silent=True,
        deaf=True,
        sabotage=FLAT,
    ),
    Fault("CONST", "a constant full-scale channel for 30 s", constant_for_a_while, SCAN, sabotage=FLAT),
    Fault("DEADN", "one dead component of three", one_component_dead, SCAN),
    Fault("CLIP", "a clipped channel", clipped, SCAN),
    Fault("CALIB", "calibration pulses", calibration, SCAN),
)
