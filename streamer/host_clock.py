"""Whether this machine's clock is disciplined: stamps, latencies and the refusal of future times rest on it.

The kernel knows (adjtimex(2)): NTP daemons tell it. Elsewhere than on Linux nothing is known.
"""

from __future__ import annotations

import ctypes
import logging
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from streamer.hooks import Hooks

EVERY_S = 60.0
log = logging.getLogger(__name__)

STA_UNSYNC = 0x0040
"""Of the kernel's status bits: nobody disciplines the clock."""
_LONG = ctypes.c_long


class _Timex(ctypes.Structure):
    """``struct timex`` of Linux, whose first fields are all that is read; the rest is room."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", _LONG),
        ("freq", _LONG),
        ("maxerror", _LONG),
        ("esterror", _LONG),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


@dataclass(frozen=True, slots=True)
class ClockState:
    is_synchronised: bool
    largest_error_s: float
    """The kernel's bound; it grows by 0.5 ms a second from the last correction on."""


def clock_state() -> ClockState | None:
    """None where the system does not say."""
    if not sys.platform.startswith("linux"):
        return None
    timex = _Timex()  # modes 0: nothing is set
    try:
        if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex)) < 0:
            return None
    except (OSError, AttributeError):
        return None
    return ClockState(not timex.status & STA_UNSYNC, timex.maxerror / 1e6)


class HostClock(Hooks):
    """Looks now and then; tells the log when it changes, the metrics always."""

    def __init__(
        self,
        told: Hooks,
        look: Callable[[], ClockState | None] = clock_state,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._told, self._look, self._now_s = told, look, now_s
        self._due_s = -math.inf
        self._was: bool | None = None

    def tick(self) -> None:
        if self._now_s() < self._due_s:
            return
        self._due_s = self._now_s() + EVERY_S
        state = self._look()
        if state is None:
            return
        self._told.host_clock(state.is_synchronised, state.largest_error_s)
        if state.is_synchronised != self._was:
            self._tell(state)
        self._was = state.is_synchronised

    def _tell(self, state: ClockState) -> None:
        if not state.is_synchronised:
            text = (
                "this machine's clock is not synchronised (off by up to %.3g s as far as is known): latencies and the "
            )
            log.warning(text + "refusal of future times rest on it; onsets do not", state.largest_error_s)
        elif self._was is False:
            log.info("this machine's clock is synchronised again, to %.3g s", state.largest_error_s)
