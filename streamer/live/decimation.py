"""One channel, thinned out to about 20 Hz and packed into 16 bits: for the eye alone. Nothing is detected on it.

Pure; keeps the few samples that the filter needs from one packet to the next.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.stages import NS, Packet

TARGET_HZ = 20
"""What a screen shows of a minute."""
WIDTH = 4
"""Half length of the filter, in samples that come out."""
PASSED = 0.8
"""Of the new Nyquist frequency."""
LARGEST = 32_767
ROUNDING = 1e-12
"""Relative: what the filter leaves of a constant is no signal."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples in a row: ``zero + scale * integer``, in counts."""

    component: str
    start_ns: int
    rate_hz: float
    zero: float
    scale: float
    count: int
    data: str
    """Base64 of little-endian int16."""

    @property
    def end_ns(self) -> int:
        return self.start_ns + round(self.count * NS / self.rate_hz)

    def message(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "component": self.component,
            "start_s": round(self.start_ns / NS, 4),
            "rate_hz": self.rate_hz,
            "zero": self.zero,
            "scale": self.scale,
            "data": self.data,
        }


class Decimator:
    """Of one channel. A gap, or a packet that does not follow the one before, begins anew."""

    def __init__(self) -> None:
        self._rate_hz, self._factor = 0.0, 1
        self._tail: NDArray[np.float64] = np.empty(0)
        self._end_ns = 0

    def push(self, packet: Packet) -> Piece | None:
        """None while too few samples have come, and for what no screen can show."""
        rate_hz = float(packet.rate)  # fractions are slow, and a nanosecond is nothing to see
        step_ns = NS / rate_hz
        if rate_hz != self._rate_hz or abs(packet.start_ns - self._end_ns) > step_ns / 2:
            self._rate_hz, self._factor, self._tail = rate_hz, max(1, round(rate_hz / TARGET_HZ)), np.empty(0)
        start_ns = packet.start_ns - round(len(self._tail) * step_ns)
        self._end_ns = packet.start_ns + round(len(packet.samples) * step_ns)
        taps, factor = _taps(self._factor), self._factor
        samples = np.concatenate([self._tail, packet.samples])
        count = max(0, (len(samples) - len(taps)) // factor + 1)
        self._tail = samples[count * factor :]
        if not count:
            return None
        thin = np.correlate(samples, taps, "valid")[::factor]
        first_ns = start_ns + round((len(taps) // 2) * step_ns)
        return _packed(packet.component, first_ns, rate_hz / factor, thin)


@lru_cache
def _taps(factor: int) -> NDArray[np.float64]:
    """A windowed sinc of odd length that passes constants unchanged."""
    if factor == 1:
        return np.ones(1)
    at = np.arange(-WIDTH * factor, WIDTH * factor + 1)
    taps = np.sinc(PASSED * at / factor) * np.hamming(len(at))
    return np.asarray(taps / taps.sum())


def _packed(component: str, start_ns: int, rate_hz: float, samples: NDArray[np.float64]) -> Piece | None:
    low, high = float(samples.min()), float(samples.max())
    if not np.isfinite(high - low):  # NaN too
        return None
    zero = (low + high) / 2
    scale = max((high - low) / 2 / LARGEST, abs(zero) * ROUNDING) or 1.0
    integers = np.rint((samples - zero) / scale).astype("<i2")
    data = base64.b64encode(integers.tobytes()).decode()
    return Piece(component, start_ns, rate_hz, zero, scale, len(integers), data)
