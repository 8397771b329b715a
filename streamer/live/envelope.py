"""The helicorder's data: the least and the most of a vertical in every five seconds, in four letters. For the eye alone; pure.

The letters of an hour lie one after the other, so that whoever writes them replaces some in place and reads nothing before.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

import numpy as np
from numpy.typing import NDArray

from streamer.stages import NS, Packet

BIN_S = 5
BINS = 3600 // BIN_S
"""In an hour."""
LEAST_HZ = 1
"""A slower channel is nothing to see, and one record of it may be long."""
LETTERS = 4
KEPT = 60
"""Bins that the next packets still widen: five minutes."""
BASELINE_S = 60.0
"""Of the running mean that is taken away: a sensor's offset and drift are no ground motion."""
ALPHABET = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", np.uint8)
ZERO, STEPS = 2048, 66
"""A number of 12 bits: zero, and steps in an octave, so that 2**31 counts fit and a step is one per cent."""


class Envelope:
    """Of one channel."""

    def __init__(self) -> None:
        self._baseline: float | None = None
        self._end_ns = 0
        self._bins: dict[int, tuple[float, float]] = {}
        """Number since 1970 -> least, most; the one that changed last comes last."""
        self._fresh: set[int] = set()

    def push(self, packet: Packet) -> None:
        samples, rate_hz = packet.samples, float(packet.rate)
        mean = float(samples.mean())
        if not np.isfinite(mean) or rate_hz < LEAST_HZ:
            return
        duration_s = len(samples) / rate_hz
        if self._baseline is None or abs(packet.start_ns - self._end_ns) > BASELINE_S * NS:
            self._baseline = mean
        self._baseline += (mean - self._baseline) * min(1.0, duration_s / BASELINE_S)
        self._end_ns = packet.start_ns + round(duration_s * NS)
        first, last = packet.start_ns // (BIN_S * NS), (self._end_ns - round(NS / rate_hz)) // (BIN_S * NS)
        ahead_s = [(number * BIN_S * NS - packet.start_ns) / NS for number in range(first, last + 1)]
        edges = [min(max(0, ceil(s * rate_hz)), len(samples) - 1) for s in ahead_s]
        least, most = np.minimum.reduceat(samples, edges), np.maximum.reduceat(samples, edges)
        for number, low, high in zip(range(first, last + 1), least.tolist(), most.tolist(), strict=True):
            self._widen(number, low - self._baseline, high - self._baseline)

    def _widen(self, number: int, low: float, high: float) -> None:
        before = self._bins.pop(number, (low, high))
        self._bins[number] = min(low, before[0]), max(high, before[1])
        self._fresh.add(number)
        if len(self._bins) > BINS:  # nobody takes them: Redis is away
            oldest = next(iter(self._bins))
            del self._bins[oldest]
            self._fresh.discard(oldest)

    def take(self) -> Iterator[tuple[int, int, str]]:
        """What changed since it was taken last: the hour since 1970, the place of its first letter, and letters."""
        fresh, self._fresh = sorted(self._fresh), set()
        begin = 0
        for end in range(1, len(fresh) + 1):
            if end == len(fresh) or fresh[end] != fresh[end - 1] + 1 or fresh[end] % BINS == 0:
                run = fresh[begin:end]
                yield run[0] // BINS, run[0] % BINS * LETTERS, letters(np.array([self._bins[n] for n in run]))
                begin = end
        self._bins = dict(list(self._bins.items())[-KEPT:])


def letters(extremes: NDArray[np.float64]) -> str:
    """(bins, 2) counts, packed."""
    size = np.rint(STEPS * np.log2(1.0 + np.abs(extremes))).clip(max=ZERO - 1)
    codes = (ZERO + np.copysign(size, extremes)).astype(np.int64).ravel()
    return bytes(ALPHABET[np.stack([codes >> 6, codes & 63], axis=1)]).decode("ascii")
