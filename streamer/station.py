"""One station: its rings, its data clock, and the windows that become ready on the grid.

A window is ready when every expected component has come, or when the station's own data clock stands more than
``max_wait`` past the window's end: no other station and no wall clock has a say. The clock is the start of the newest
packet, since a packet's own length is no disorder: a 20 Hz channel's record spans 20 s, and its siblings' records
come right after it. Windows leave in the order of their numbers, each once.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from quake.data.offset import without_offset
from quake.times import span_ns
from streamer.bridge import bridge
from streamer.clock_guard import ClockGuard
from streamer.components import Components
from streamer.grid import Grid, ratio, sample_ns, sample_number
from streamer.orientation import ROWS, Orientation
from streamer.resample import Resampler, resampler
from streamer.ring import Ring, Samples
from streamer.stages import NS, Packet, Unscored, Unused, Window

Count = Callable[[Unused, int], None]
"""Called with a reason and how many samples were not used for it."""
LARGEST = 1e15
"""A floating-point sample above this is no measurement, and its power would not fit the spectrogram's float32."""
LONGEST_RECORD = 1 << 18
"""Samples. A ring grows with its channel's records up to this; longer ones (no miniSEED record is) go in as pieces."""
RATES = 2
"""Rings of one channel: a packet of the old rate may come after the first one of the new."""
VERTICAL = 0
"""Row of Z."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What happens to late, missing and broken data of a station."""

    max_wait_ns: int = 10 * NS
    ring_ns: int = 180 * NS
    """At least; a ring is never too short for a window, its wait and a long packet."""
    future_ns: int = 60 * NS
    """A packet that ends this much ahead of this machine's clock is refused."""
    jump_ns: int = 150 * NS
    """A packet further than this from the station's clock waits until a second one agrees."""
    score_incomplete: bool = True
    """Score a window with the components that are whole or bridged, if the vertical is among them."""
    bridge_ns: int = 0
    """Once a window is not waited for any longer, this much missing of a component, in all its gaps, is bridged; nothing is
    where incomplete windows are not scored."""


@dataclass(slots=True)
class _Row:
    """One channel of the station at one rate, and the way from its samples to the model's."""

    ring: Ring
    resampler: Resampler

    @property
    def end_ns(self) -> int:
        return 0 if self.ring.end is None else sample_ns(self.ring.end, self.ring.rate)


class Station:
    """All channels of one sensor that share a band: one subject of detections."""

    def __init__(
        self,
        subject: str,
        grid: Grid,
        policy: Policy,
        *,
        expected: frozenset[str] = frozenset(),
        orient: Callable[[dict[int, str], int], Orientation] | None = None,
        next_k: int | None = None,
        seen: Mapping[str, int] | None = None,
    ) -> None:
        """``expected``: the SEED orientation codes that are known to come; others join once they do. ``next_k``: the
        first window not yet decided, from an earlier run. ``seen``: code -> time of its first sample, of what came long ago: a
        packet is far from it."""
        self.subject = subject
        self.next_k = next_k
        """The first window not yet cut; None until there are data."""
        self.newest_ns = 0
        """Just after the newest sample of any component."""
        self.received_ns = 0
        self._grid, self._policy, self._orient = grid, policy, orient
        self._components = Components(expected & ROWS.keys(), policy.max_wait_ns + grid.window_ns)
        self._begun = next_k is not None and self._components.announced
        self._given = next_k is not None
        self._clock_ns: int | None = 0 if seen else None
        self._rows: dict[str, list[_Row]] = {}
        self._guard = ClockGuard(max(policy.jump_ns, 2 * policy.max_wait_ns))
        self._ready: deque[Window | Unscored] = deque()
        for code, first_ns in (seen or {}).items():
            self._components.seen(code, first_ns)

    @property
    def fill(self) -> float:
        return min((max(row.ring.fill for row in rows) for rows in self._rows.values()), default=0.0)

    @property
    def reach_ns(self) -> int:
        """How long before a window's start its first needed sample may lie: the resampling filter's half length, and
        half a sample of the channel for its offset, taken as a whole one."""
        return max((self._reach_ns(row) for row in self._all_rows()), default=0) + 2 * NS // self._grid.rate

    def insert(self, packet: Packet, count: Count) -> list[Packet]:
        """Place a packet; the packets that turn out not to belong anywhere come back, counted."""
        reason = self._refusal(packet)
        if reason is not None:
            count(reason, len(packet.samples))
            return [packet]
        verdict = self._guard.judge(packet, self._clock_ns, self.newest_ns)
        for stray in verdict.refused:
            count(Unused.CLOCK, len(stray.samples))
        if verdict.went_back:
            self._restart(verdict.accepted[0].start_ns)
        return [*verdict.refused, *(p for p in verdict.accepted if not self._place(p, count))]

    def cut(self) -> Iterator[Window | Unscored]:
        """The windows that have become ready, in order."""
        self._collect()
        while self._ready:
            yield self._ready.popleft()

    def advance(self, clock_ns: int) -> None:
        """As a packet does that begins then."""
        self._tick(clock_ns)

    # -- packets -------------------------------------------------------------------------------------------------------

    def _refusal(self, packet: Packet) -> Unused | None:
        if packet.component not in ROWS:
            return Unused.COMPONENT
        if ratio(packet.rate, self._grid.rate) is None:
            return Unused.RATE
        if packet.end_ns > packet.received_ns + self._policy.future_ns:
            return Unused.FUTURE
        return None

    def _restart(self, time_ns: int) -> None:
        """The station's clock went back for good: give up what had not been decided, and begin again there."""
        self._collect()
        if self.next_k is not None and self._begun:
            last = self._grid.first_at_or_after(self.newest_ns) - 1
            if last >= self.next_k:
                self._ready.append(Unscored(self.subject, self.next_k, last, Unused.CLOCK))
        self._rows.clear()
        self.newest_ns, self._clock_ns = 0, None
        self._begun = self._given = False
        self.next_k = self._grid.first_at_or_after(time_ns)

    def _place(self, packet: Packet, count: Count) -> bool:
        """Store its samples; False where none was of use."""
        valid = self._valid(packet.samples)
        if valid is not None:
            count(Unused.CORRUPT, len(valid) - int(valid.sum()))
        # What the new clock forces is cut before the ring moves on, or an outage would take its samples away.
        self._tick(packet.start_ns)
        row = self._row(packet)
        first, doubtful = sample_number(packet.start_ns, row.ring.rate)
        if doubtful:
            count(Unused.PHASE, len(packet.samples))
        used = False
        for at in range(0, len(packet.samples), self._longest(row)):
            part = slice(at, at + self._longest(row))
            self._tick(packet.start_ns + span_ns(at, packet.rate))
            if self._store(row, first + at, packet.samples[part], None if valid is None else valid[part], count):
                self._arrived(packet, sample_ns(first + at, row.ring.rate))
                used = True
        return used

    def _tick(self, start_ns: int) -> None:
        if self._clock_ns is None or start_ns > self._clock_ns:
            self._clock_ns = start_ns
            self._collect()

    def _store(self, row: _Row, first: int, samples: Samples, valid: NDArray[np.bool_] | None, count: Count) -> bool:
        placed = row.ring.insert(first, samples, valid=valid, floor=self._floor(row))
        if placed.overlap:
            count(Unused.OVERLAP, placed.overlap)
        if placed.late:
            count(Unused.LATE, placed.late)
        self.newest_ns = max(self.newest_ns, row.end_ns)
        return placed.stored > 0

    def _arrived(self, packet: Packet, start_ns: int) -> None:
        self._components.seen(packet.component, start_ns)
        self.received_ns = max(self.received_ns, packet.received_ns)
        if not self._begun and not self._given:  # nothing was cut yet: an earlier packet may still move the start back
            k = self._grid.first_at_or_after(start_ns)
            self.next_k = k if self.next_k is None else min(k, self.next_k)

    @staticmethod
    def _valid(samples: Samples) -> NDArray[np.bool_] | None:
        """Which samples are numbers that can be measured; None where all are."""
        if samples.dtype.kind != "f":
            return None
        valid = np.abs(samples) <= LARGEST  # False for NaN
        return None if valid.all() else np.asarray(valid)

    def _floor(self, row: _Row) -> int | None:
        """The oldest sample number that a window still to come can need."""
        if self.next_k is None or not (self._begun or self._given):
            return None
        return self._needs(row, self.next_k)[0]

    def _row(self, packet: Packet) -> _Row:
        """The packet's row, made anew where the channel's sampling rate changed."""
        step = ratio(packet.rate, self._grid.rate)
        assert step is not None  # `_refusal` has looked
        nominal = self._grid.rate / step
        rows = self._rows.setdefault(packet.component, [])
        for row in rows:
            if row.ring.rate == nominal:
                return row
        if len(rows) == RATES:
            rows.remove(min(rows, key=lambda row: row.end_ns))
        filter_ = resampler(step)
        rows.append(
            _Row(Ring(nominal, self._capacity(nominal, filter_, len(packet.samples)), packet.samples.dtype), filter_)
        )
        rows.sort(key=lambda row: row.ring.rate)
        return next(row for row in rows if row.ring.rate == nominal)

    def _capacity(self, rate: Fraction, filter_: Resampler, record: int) -> int:
        """Samples. Three quarters hold a window, its wait and the filter; the last is for the ``record`` that comes."""
        least_ns = 2 * (self._grid.window_ns + self._policy.max_wait_ns + 2 * self._grid.hop_ns)
        kept = int(max(self._policy.ring_ns, least_ns) * rate / NS) + 4 * filter_.half // filter_.ratio.numerator + 8
        return max(kept, 4 * min(record, LONGEST_RECORD))

    @staticmethod
    def _longest(row: _Row) -> int:
        """Samples placed at once: a longer packet is taken in pieces, lest it overwrite what it completes."""
        return row.ring.capacity // 4

    # -- windows -------------------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        while self.next_k is not None and self._has_begun(self.next_k):
            item = self._decide(self.next_k)
            if item is None:
                return
            self.next_k = (item.last if isinstance(item, Unscored) else item.k) + 1
            self._ready.append(item)

    def _has_begun(self, first_k: int) -> bool:
        """Whether all packets that could move the first window, or add a component to it, must have come."""
        if self._begun or self._clock_ns is None:
            return self._begun
        spare_ns = max(0, self._grid.window_ns - self._policy.max_wait_ns) // 2
        until_ns = max(self._grid.start_ns(first_k), self._components.first_ns) + spare_ns
        settled_ns = until_ns + self._policy.max_wait_ns
        # By the newest sample too, lest a recording in one long packet wait for another: no record is that long.
        if self._clock_ns >= settled_ns or self.newest_ns >= settled_ns + 3 * self._grid.window_ns:
            self._components.begin(until_ns)
            self._begun = True
        return self._begun

    def _decide(self, k: int) -> Window | Unscored | None:
        """Window k if nothing more is to be waited for."""
        codes = self._components.of(self._grid.start_ns(k))
        whole: dict[int, _Row] = {}
        for index, code in codes.items():
            row = self._whole(code, k)
            if row is not None:
                whole[index] = row
        if codes and len(whole) == len(codes):
            return self._window(k, codes, whole)
        waited_ns = self._waited_until_ns
        if waited_ns <= self._grid.end_ns(k):
            return None
        usable = whole | self._bridged(k, {index: code for index, code in codes.items() if index not in whole})
        return self._window(k, codes, usable, is_whole=False) if usable else self._gap(k, waited_ns)

    def _bridged(self, k: int, codes: Mapping[int, str]) -> dict[int, _Row]:
        """Of the components that lack samples, those that lack few enough, and none at the window's end: what is newest is
        never made up."""
        few: dict[int, _Row] = {}
        for index, code in codes.items() if self._policy.score_incomplete else ():
            lacking = [(self._lacks_ns(row, k), row) for row in self._rows.get(code, ())]
            least_ns, row = min(lacking, key=lambda pair: pair[0], default=(None, None))
            if row is not None and least_ns is not None and least_ns <= self._policy.bridge_ns:
                few[index] = row
        return few

    def _lacks_ns(self, row: _Row, k: int) -> float:
        """How much of window k is missing; infinite where its end is."""
        present = row.ring.read(*self._needs(row, k))[1]
        return float((~present).sum() * NS / row.ring.rate) if present[-1] else math.inf

    @property
    def _waited_until_ns(self) -> int:
        """No window that ends before this is waited for: by the clock, less the wait and what a filter needs after it."""
        ahead_ns = max((self._filter_ns(row) for row in self._all_rows()), default=0)
        return (self._clock_ns or 0) - self._policy.max_wait_ns - ahead_ns

    def _gap(self, k: int, waited_ns: int) -> Unscored:
        """No component is whole: one entry for as long as there is nothing at all, however long the outage was."""
        seen = [(row, row.ring.next_present(self._needs(row, k)[0])) for row in self._all_rows()]
        resumes_ns = min((sample_ns(n, row.ring.rate) for row, n in seen if n is not None), default=waited_ns)
        forced = self._grid.first_ending_after(waited_ns - 1) - 1
        empty = self._grid.first_ending_after(resumes_ns - self.reach_ns) - 1
        return Unscored(self.subject, k, max(k, min(forced, empty)), Unused.GAP)

    def _window(
        self, k: int, codes: Mapping[int, str], usable: Mapping[int, _Row], *, is_whole: bool = True
    ) -> Window | Unscored:
        rows, varies = self._model_samples(usable, k)
        here = {index: codes[index] for index in usable if varies[index]}
        present = [index in here for index in range(3)]
        if self._orient is not None:
            rows, present = self._orient(here, self._grid.start_ns(k)).turn(rows, present)
        complete = is_whole and sum(present) == len(codes)
        if not present[VERTICAL] or not (complete or self._policy.score_incomplete):
            return Unscored(self.subject, k, k, Unused.FLAT if len(here) < len(usable) else Unused.COMPONENT)
        names = "".join(name for name, there in zip("ZNE", present, strict=True) if there)
        return Window(self.subject, k, rows.astype(np.float32), names, complete, self.received_ns)

    def _model_samples(self, usable: Mapping[int, _Row], k: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """(3, N) at the model's rate, mean removed, and which of them vary: the others, and those not there, are zeros.

        All at once: for two thousand samples NumPy's calls take longer than what they do."""
        rows = np.zeros((3, self._grid.window))
        for index, row in usable.items():
            needs = self._needs(row, k)
            if row.resampler.is_idle and row.ring.complete(*needs):
                row.ring.copy(*needs, rows[index])
            else:
                rows[index] = self._mended(row, k)
        low, high = rows.min(axis=-1, keepdims=True), rows.max(axis=-1, keepdims=True)
        varies = (low < high)[:, 0]
        level = without_offset(rows, extremes=(low, high))
        level[~varies] = 0.0
        return level, varies

    def _mended(self, row: _Row, k: int) -> NDArray[np.float64]:
        """(N,) at the model's rate, gaps bridged."""
        samples, came = row.ring.read(*self._needs(row, k))
        if not came.all():
            samples = bridge(samples, came)
        if row.resampler.is_idle:
            return np.asarray(samples, np.float64)
        if samples.min() == samples.max():  # a filter's rounding would make something of it
            return np.zeros(self._grid.window)
        return row.resampler(without_offset(samples), self._grid.first_sample(k), self._grid.window)

    def _whole(self, code: str, k: int) -> _Row | None:
        for row in self._rows.get(code, ()):
            if row.ring.complete(*self._needs(row, k)):
                return row
        return None

    def _needs(self, row: _Row, k: int) -> tuple[int, int]:
        return row.resampler.needs(self._grid.first_sample(k), self._grid.window)

    def _reach_ns(self, row: _Row) -> int:
        return self._filter_ns(row) + sample_ns(1, row.ring.rate)

    def _filter_ns(self, row: _Row) -> int:
        return row.resampler.half * NS // (self._grid.rate * row.resampler.ratio.denominator)

    def _all_rows(self) -> Iterator[_Row]:
        return (row for rows in self._rows.values() for row in rows)
