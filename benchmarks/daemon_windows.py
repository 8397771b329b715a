"""The windows that the daemon cuts from a recording, changed or not, and when it can have them.

The recording goes as packets through the daemon's own station: ring, resampler, and what it does with gaps, missing
components and channels without data. What is not here: scores.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from benchmarks.perturbations import Perturbation
from quake.data.seisbench import DataError
from streamer.config import WindowConfig
from streamer.grid import Grid, ratio
from streamer.resample import resampler
from streamer.stages import NS, Packet, Window
from streamer.station import Policy, Station
from trainer.data.record import COMPONENTS, RATE_HZ, Record, Samples
from trainer.evaluation.protocol import WITHIN_S
from trainer.evaluation.scoring import HISTORY_S

SUBJECT = "FDSN:XX_MADE__H_H"
EPOCH_NS = 1_700_000_000 * NS
"""Where the first sample that a station gets lies: a whole second, so on the grid of every rate."""
PACKET_S = 1.0
MARGIN_S = 2.0
"""Samples before the first window, for the resampler."""
TAIL_S = 1.0
"""Samples beyond the last that is asked for, for the resampler."""
POLICY = Policy(bridge_ns=round(WindowConfig().bridge_s * NS))
"""The daemon's defaults."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What the daemon makes of a recording. n windows of the grid, from HISTORY_S before the lead's end on."""

    ends: NDArray[np.int64]
    """(n,) sample of the record, at RATE_HZ, at which each ends, this one excluded."""
    newest_s: NDArray[np.float64]
    """(n,) the newest sample that it depends on, from the start of the record's lead."""
    decided_s: NDArray[np.float64]
    """(n,) when it is decided on: later, where the daemon waits for what is missing."""
    windows: tuple[Samples | None, ...]
    """(3, N) of each; None where it is not scored."""


@dataclass(frozen=True, slots=True)
class Span:
    """Samples [begin, end) of a record, at RATE_HZ: what a station gets. The first lies at EPOCH_NS."""

    grid: Grid
    begin: int
    end: int

    @classmethod
    def of(cls, record: Record, grid: Grid) -> Span:
        """Of an event to shortly after WITHIN_S behind P. DataError for a lead that is shorter than a window."""
        begin = record.lead - round((HISTORY_S + MARGIN_S) * RATE_HZ) - grid.window
        if begin < 0:
            raise DataError(f"{record.name}: a lead of {record.lead / RATE_HZ:g} s is too short for its windows")
        length = record.samples.shape[1]
        wanted = record.p + round((WITHIN_S + TAIL_S) * RATE_HZ) if record.is_event else length
        return cls(grid, begin, min(wanted, length))

    @property
    def ks(self) -> range:
        """Numbers of its windows."""
        first = self.grid.first_at_or_after(EPOCH_NS + round(MARGIN_S * NS))
        return range(first, self.grid.first_ending_after(EPOCH_NS + (self.end - self.begin) * NS // RATE_HZ))

    def packets(self, samples: Samples, change: Perturbation) -> Iterator[Packet]:
        """PACKET_S of each component in turn; of what is NaN throughout there is none."""
        rate = Fraction(change.rate_hz)
        first, last = math.ceil(self.begin * rate / RATE_HZ), math.floor(self.end * rate / RATE_HZ)
        offset_ns = round((first / rate - Fraction(self.begin, RATE_HZ)) * NS) + round(change.late_s * NS)
        length = round(PACKET_S * rate)
        for at in range(first, min(last, samples.shape[1]), length):
            start_ns = EPOCH_NS + offset_ns + round((at - first) * NS / rate)
            for code, row in zip(COMPONENTS, samples[:, at : min(at + length, last)], strict=True):
                if not np.isnan(row).all():
                    end_ns = start_ns + round(len(row) * NS / rate)
                    yield Packet(f"{SUBJECT}_{code}", start_ns, rate, row.copy(), None, end_ns, 512)

    def afterwards(self, change: Perturbation) -> Packet:
        """One sample so much later that nothing is waited for: a station goes on where a record ends."""
        start_ns = EPOCH_NS + (self.end - self.begin) * NS // RATE_HZ + 2 * POLICY.max_wait_ns
        return Packet(
            f"{SUBJECT}_Z", start_ns, Fraction(change.rate_hz), np.zeros(1, np.float32), None, start_ns + NS, 512
        )


def through_daemon(change: Perturbation, record: Record, window_samples: int, hop_s: float) -> Heard:
    """The windows of a changed record; what is drawn hangs on the names of the change and of the record alone."""
    samples = change.apply(record, np.random.default_rng(zlib.crc32(f"{change.name} {record.name}".encode())))
    span = Span.of(record, Grid.of(RATE_HZ, window_samples, hop_s))
    there = frozenset(code for code, row in zip(COMPONENTS, samples, strict=True) if not np.isnan(row).all())
    station = Station(SUBJECT, span.grid, POLICY, expected=there, next_k=span.ks.start)
    cut: dict[int, Samples | None] = {}
    came_ns: dict[int, int] = {}
    for ks, window, at_ns in _decisions(station, [*span.packets(samples, change), span.afterwards(change)]):
        cut |= dict.fromkeys(ks, window)
        came_ns |= dict.fromkeys(ks, at_ns)
    ends = np.array([(span.grid.end_ns(k) - EPOCH_NS) * RATE_HZ // NS + span.begin for k in span.ks], np.int64)
    came_s = np.array([(came_ns.get(k, EPOCH_NS) - EPOCH_NS) / NS + span.begin / RATE_HZ for k in span.ks])
    # One that waited for nothing came with the packet of its last sample; one that did came with a later packet.
    newest_s = (ends - 1) / RATE_HZ + reach_s(change)
    decided_s = np.maximum.accumulate(np.maximum(newest_s, came_s))
    return Heard(ends, newest_s, decided_s, tuple(cut.get(k) for k in span.ks))


def _decisions(station: Station, packets: Iterable[Packet]) -> Iterator[tuple[range, Samples | None, int]]:
    """Numbers of windows, their samples, None where they are not scored, and the start of the packet that led to it."""
    for packet in packets:
        station.insert(packet, lambda reason, count: None)
        for item in station.cut():
            if isinstance(item, Window):
                yield range(item.k, item.k + 1), item.samples, packet.start_ns
            else:
                yield range(item.first, item.last + 1), None, packet.start_ns


def reach_s(change: Perturbation) -> float:
    """How far beyond its end a window depends on samples: by the daemon's resampler, and by what made the samples."""
    step = ratio(Fraction(change.rate_hz), RATE_HZ)
    assert step is not None, f"{change.rate_hz} Hz is no rate for the daemon"
    return resampler(step).half / (RATE_HZ * step.denominator) + change.read_ahead_s
