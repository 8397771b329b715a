"""The grid: integer arithmetic that turns times into sample numbers and window numbers.

Sample number n of a rate lies at n / rate seconds since 1970; window k of a grid begins at k hops. Nothing here
depends on when the daemon started. Pure; knows no packets.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from streamer.stages import NS

MAX_TERM = 1_000
"""Largest numerator or denominator of a resampling ratio: above it the polyphase filter is no longer small."""
NOMINAL = Fraction(1, 100_000)
"""A rate within this share of a nominal one is that one: digitisers state 99.9999 Hz and mean 100."""
PHASE_MARGIN = Fraction(1, 20)
"""Samples. An offset this close to one half may round differently after a packet boundary."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Windows of ``window`` samples at ``rate`` hertz that begin every ``hop`` samples since the epoch."""

    rate: int
    """Hertz, the model's."""
    window: int
    """Samples."""
    hop: int
    """Samples."""

    @staticmethod
    def of(rate_hz: float, window: int, hop_s: float) -> Grid:
        """Raises ValueError where a hop is not a whole number of samples."""
        rate, hop = Fraction(str(rate_hz)), Fraction(str(hop_s)) * Fraction(str(rate_hz))
        if rate.denominator != 1 or hop.denominator != 1 or hop < 1:
            raise ValueError(
                f"a hop of {hop_s} s is {float(hop):g} samples at {rate_hz:g} Hz: it must be a whole number"
            )
        return Grid(int(rate), window, int(hop))

    @property
    def window_ns(self) -> int:
        return self.window * NS // self.rate

    @property
    def hop_ns(self) -> int:
        return self.hop * NS // self.rate

    def first_sample(self, k: int) -> int:
        return k * self.hop

    def start_ns(self, k: int) -> int:
        return k * self.hop * NS // self.rate

    def end_ns(self, k: int) -> int:
        """Just after the window's last sample."""
        return (k * self.hop + self.window) * NS // self.rate

    def first_at_or_after(self, time_ns: int) -> int:
        """The first window that begins at ``time_ns`` or later."""
        return -(-time_ns * self.rate // (self.hop * NS))

    def first_ending_after(self, time_ns: int) -> int:
        """The first window that still needs a sample later than ``time_ns``."""
        return (time_ns * self.rate - self.window * NS) // (self.hop * NS) + 1


def sample_number(time_ns: int, rate: Fraction) -> tuple[int, bool]:
    """Nearest sample number, halves up, and whether the offset lies too near one half to be sure."""
    unit = 2 * NS * rate.denominator
    number, rest = divmod(2 * time_ns * rate.numerator + NS * rate.denominator, unit)
    return number, min(rest, unit - rest) * PHASE_MARGIN.denominator < unit * PHASE_MARGIN.numerator


def sample_ns(number: int, rate: Fraction) -> int:
    return number * NS * rate.denominator // rate.numerator


@lru_cache(maxsize=1024)
def ratio(rate: Fraction, model_rate: int) -> Fraction | None:
    """model_rate / rate in lowest terms, both at most `MAX_TERM`; None if there is no such ratio near enough."""
    if rate <= 0:
        return None
    exact = Fraction(model_rate) / rate
    near = exact.limit_denominator(MAX_TERM)
    if near == 0 or near.numerator > MAX_TERM or abs(near / exact - 1) > NOMINAL:
        return None
    return near
