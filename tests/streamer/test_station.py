"""The cutter held to a brute-force reading of its contract: the windows depend on the samples, not on how they came."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_packets import EPOCH_S, SUBJECT, noise, packet
from numpy.typing import NDArray
from scipy.signal import resample_poly

from quake.data.offset import without_offset
from quake.data.resampling import taps
from streamer.bridge import bridge
from streamer.clock_guard import ClockGuard
from streamer.grid import Grid
from streamer.orientation import orientation
from streamer.resample import resampler
from streamer.stages import NS, Packet, Unscored, Unused, Window
from streamer.station import Policy, Station

RATE = 20
GRID = Grid(RATE, 40, 10)  # 2 s windows every half second
POLICY = Policy(max_wait_ns=NS, ring_ns=10 * NS)
LENGTH = 240
K0 = EPOCH_S * 2
"""The window that begins with the recordings."""
ZNE = frozenset("ZNE")

Outcome = tuple[str, bool, bytes] | Unused


def run(station: Station, packets: Iterable[Packet], counts: Counter[Unused] | None = None) -> dict[int, Outcome]:
    """Every window's outcome; that each comes once and in order is checked on the way."""
    counts = Counter() if counts is None else counts
    found: dict[int, Outcome] = {}
    for one in packets:
        station.insert(one, lambda reason, n: counts.update({reason: n}))
        for item in station.cut():
            first, last = (item.first, item.last) if isinstance(item, Unscored) else (item.k, item.k)
            assert not found or first == max(found) + 1
            for k in range(first, last + 1):
                found[k] = item.reason if isinstance(item, Unscored) else said(item)
    return found


def said(window: Window) -> Outcome:
    return window.components, window.complete, window.samples.tobytes()


@dataclass(frozen=True)
class Recording:
    """LENGTH samples of each channel at the grid's rate, some missing."""

    samples: dict[str, NDArray[np.int32]]
    present: dict[str, NDArray[np.bool_]]

    def runs(self, code: str) -> list[tuple[int, int]]:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], self.present[code].astype(int), [0]])))
        return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]

    def expected(self, *, score_incomplete: bool, bridged: int = 0) -> dict[int, Outcome]:
        """By reading the contract literally, from the first window that a sample allows to the last that is forced."""
        first = min(int(np.flatnonzero(p)[0]) for p in self.present.values() if p.any())
        start, found = -(-first // GRID.hop), {}
        for n in range(start, 1000):
            begin, end = n * GRID.hop, n * GRID.hop + GRID.window
            if (end + RATE * POLICY.max_wait_ns // NS) >= LENGTH + 200:  # not forced by the last packet
                break
            found[K0 + n] = self._window(begin, end, score_incomplete, bridged)
        return found

    def _window(self, begin: int, end: int, score_incomplete: bool, bridged: int) -> Outcome:
        came = {c: np.pad(self.present[c], (0, 200))[begin:end] for c in "ZNE"}
        cut = {
            c: bridge(np.pad(self.samples[c], (0, 200))[begin:end], came[c])
            for c in "ZNE"
            if (~came[c]).sum() <= (bridged if score_incomplete and came[c][-1] else 0)
        }
        if not cut:
            return Unused.GAP
        moving = {c: x for c, x in cut.items() if x.min() < x.max()}
        complete = len(moving) == 3 and all(present.all() for present in came.values())
        if "Z" not in moving or not (complete or score_incomplete):
            return Unused.FLAT if len(moving) < len(cut) else Unused.COMPONENT
        rows = np.zeros((3, GRID.window), np.float32)
        for c, x in moving.items():
            rows["ZNE".index(c)] = without_offset(x).astype(np.float32)
        return "".join(c for c in "ZNE" if c in moving), complete, rows.tobytes()


@st.composite
def recordings(draw: st.DrawFn) -> Recording:
    samples, present = {}, {}
    for number, code in enumerate("ZNE"):
        samples[code] = noise(LENGTH, draw(st.integers(0, 99)) * 3 + number)
        present[code] = np.ones(LENGTH, np.bool_)
        for begin, size in draw(st.lists(st.tuples(st.integers(0, LENGTH - 1), st.integers(1, 90)), max_size=3)):
            present[code][begin : begin + size] = False
        flat = draw(st.integers(0, 3 * LENGTH))
        samples[code][flat : flat + 70] = 7
    if not present["Z"].any():
        present["Z"][:5] = True
    return Recording(samples, present)


@st.composite
def deliveries(draw: st.DrawFn, recording: Recording) -> list[Packet]:
    """The recording in packets of any size, some twice or overlapping, out of order within ``max_wait``."""
    chance = random.Random(draw(st.integers(0, 2**32)))
    largest, disorder_ns = draw(st.integers(1, 40)), draw(st.sampled_from([0, NS // 4, POLICY.max_wait_ns - NS // 10]))
    packets = []
    for code in "ZNE":
        for begin, end in recording.runs(code):
            at = begin
            while at < end:
                low = max(begin, at - chance.choice([0, 0, 0, 5]))
                high = min(end, at + chance.randint(1, largest))
                shift_ns = chance.randint(-20, 20) * 1_000_000  # up to 0.4 sample
                one = packet(code, low, recording.samples[code][low:high], RATE, shift_ns=shift_ns)
                packets += [one] * chance.choice([1, 1, 1, 2])
                at = high
    packets.sort(key=lambda p: p.start_ns + chance.randint(0, disorder_ns))
    return [*packets, packet("Z", LENGTH + 200, noise(1), RATE)]


@settings(max_examples=150, deadline=None)
@given(st.data(), st.booleans(), st.integers(0, 60))
def test_windows_are_those_of_the_contract(data: st.DataObject, score_incomplete: bool, bridged: int) -> None:
    recording = data.draw(recordings())
    policy = replace(POLICY, score_incomplete=score_incomplete, bridge_ns=bridged * NS // RATE)
    found = run(Station(SUBJECT, GRID, policy, expected=ZNE), data.draw(deliveries(recording)))
    assert found == recording.expected(score_incomplete=score_incomplete, bridged=bridged)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_unannounced_components_join_at_the_same_window_in_any_order(data: st.DataObject) -> None:
    recording = data.draw(recordings())
    first, second = data.draw(deliveries(recording)), data.draw(deliveries(recording))
    assert run(Station(SUBJECT, GRID, POLICY), first) == run(Station(SUBJECT, GRID, POLICY), second)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_sample_is_stored_or_counted(data: st.DataObject) -> None:
    recording = data.draw(recordings())
    packets, counts = data.draw(deliveries(recording)), Counter()
    run(Station(SUBJECT, GRID, POLICY, expected=ZNE), packets, counts)
    stored = sum(int(p.sum()) for p in recording.present.values()) + 1
    came = sum(len(p.samples) for p in packets)
    # Of samples before the first window nobody can say that they were used: they were stored, and counted as nothing.
    assert came == stored + counts[Unused.OVERLAP] + counts[Unused.LATE]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([(50, 2, 1), (40, 5, 2), (200, 1, 2), (Fraction(125, 4), 16, 5), (100, 1, 1)]),
    st.lists(st.integers(1, 700), min_size=1, max_size=12),
    st.integers(0, 5000),
)
def test_resampling_is_scipys_whatever_the_packets(rate: tuple, sizes: list[int], first: int) -> None:
    native, up, down = Fraction(rate[0]), rate[1], rate[2]
    grid, samples = Grid(100, 400, 100), noise(int(12 * native), 5)
    cut_into, at = [], 0
    for size in sizes * len(samples):
        if at >= len(samples):
            break
        cut_into.append(packet("Z", first + at, samples[at : at + size], native))
        at += size
    cut_into.append(packet("Z", first + len(samples) + 500, noise(1), native))
    station = Station(SUBJECT, grid, Policy(max_wait_ns=0), expected=frozenset("Z"))
    windows = []
    for one in cut_into:
        station.insert(one, lambda *_: None)
        windows += [w for w in station.cut() if isinstance(w, Window)]
    number = int(EPOCH_S * native) + first
    pad = number % down  # so that the reference's first output lies at a whole output number
    window = taps(Fraction(up, down)) / up
    whole, ones = (
        resample_poly(np.concatenate([np.zeros(pad), x]), up, down, window=window)
        for x in (samples, np.ones(len(samples)))
    )
    base = (number - pad) * up // down
    assert len(windows) >= 6
    for window in windows:
        begin = window.k * grid.hop - base
        low, high = (n - number for n in resampler(Fraction(up, down)).needs(window.k * grid.hop, grid.window))
        expected = (whole - samples[low:high].mean() * ones)[begin : begin + grid.window]
        apart = window.samples[0] - expected
        assert np.ptp(apart) < 0.02  # alike but for the offset, of which next to nothing is left
        assert abs(window.samples[0].mean(dtype=np.float64)) < 2**-16 * np.abs(expected).max()


def test_window_samples_are_bitwise_the_same_in_one_packet_or_in_many() -> None:
    samples = noise(3000, 3)
    grid = Grid(100, 400, 100)
    outcomes = []
    for size in (1, 7, 512, 3000):
        station = Station(SUBJECT, grid, Policy(max_wait_ns=0), expected=frozenset("Z"))
        parts = [packet("Z", at, samples[at : at + size], 50) for at in range(0, 3000, size)]
        outcomes.append(run(station, [*parts, packet("Z", 3500, noise(1), 50)]))
    assert outcomes[0] == outcomes[1] == outcomes[2] == outcomes[3]
    assert sum(isinstance(o, tuple) for o in outcomes[0].values()) > 50


def station_of(*codes: str, policy: Policy = POLICY, **more: object) -> Station:
    return Station(SUBJECT, GRID, policy, expected=frozenset(codes), **more)  # type: ignore[arg-type]


def stream(code: str, first: int, last: int, *, size: int = 20, rate: int = RATE, seed: int = 1) -> list[Packet]:
    samples = noise(last, seed)
    return [packet(code, at, samples[at : min(at + size, last)], rate) for at in range(first, last, size)]


def together(*streams: list[Packet]) -> list[Packet]:
    return sorted((p for s in streams for p in s), key=lambda p: p.start_ns)


def test_a_dead_component_is_waited_for_no_longer_than_max_wait() -> None:
    found = run(station_of("Z", "N"), together(stream("Z", 0, 200), stream("N", 0, 100)))
    assert [found[K0 + n][:2] for n in range(7)] == [("ZN", True)] * 7
    assert found[K0 + 7][:2] == ("Z", False)
    assert max(found) == K0 + 11  # ends 7.5 s in; the newest packet begins at 9 s
    assert K0 + 14 not in found


def test_long_records_of_a_slow_channel_are_no_disorder() -> None:
    """A 20 Hz record lasts longer than max_wait: the siblings' records come right after it, and all are used."""
    records = [p for n in range(6) for code in "ZNE" for p in [packet(code, n * 100, noise(100, n), RATE)]]
    found = run(station_of("Z", "N", "E"), records)
    assert {o[0] for o in found.values()} == {"ZNE"}
    assert len(found) > 50


def test_an_outage_of_years_is_one_entry_and_takes_no_time() -> None:
    years = 20 * 365 * 86_400 * RATE
    station = station_of("Z")
    for one in stream("Z", 0, 100):
        station.insert(one, lambda *_: None)
    before = list(station.cut())
    start_s = time.perf_counter()
    for n in range(10):
        one = packet("Z", years + n * 20, noise(20, n), RATE)
        station.insert(replace(one, received_ns=one.end_ns), lambda *_: None)
    after = list(station.cut())
    assert time.perf_counter() - start_s < 0.2
    gaps = [i for i in after if isinstance(i, Unscored)]
    assert len(gaps) < 10
    assert sum(i.last - i.first + 1 for i in gaps) > 20 * 365 * 86_400 * 2 - 100
    assert [i.k for i in (*before, *after)] == sorted({i.k for i in (*before, *after)})
    assert isinstance(after[-1], Window)


def test_nothing_is_lost_where_an_outage_begins() -> None:
    """The vertical's last whole window lacks N. It is forced before the ring moves on, whichever channel comes first."""
    head = together(stream("Z", 0, 100), stream("N", 0, 90))
    tail = [p for n in range(3) for p in (packet("Z", 9000 + n, noise(1), RATE), packet("N", 9000 + n, noise(1), RATE))]
    swapped = [tail[i] for i in (1, 0, 3, 2, 5, 4)]
    first, second = run(station_of("Z", "N"), [*head, *tail]), run(station_of("Z", "N"), [*head, *swapped])
    assert first == second
    assert first[K0 + 6][:2] == ("Z", False)


def test_a_packet_longer_than_the_ring_loses_nothing() -> None:
    samples = noise(4000, 2)
    found = run(station_of("Z"), [packet("Z", 0, samples, RATE), packet("Z", 4000, noise(20), RATE)])
    assert all(isinstance(o, tuple) for o in found.values())
    assert len(found) > 390


def test_a_backlog_inserted_before_cutting_loses_nothing() -> None:
    station = station_of("Z")
    for one in stream("Z", 0, 8000):
        station.insert(one, lambda *_: None)
    windows = list(station.cut())
    assert len(windows) > 790
    assert all(isinstance(w, Window) for w in windows)


def test_thousands_of_gaps_do_not_crawl() -> None:
    grid = Grid(100, 2080, 100)
    station = Station(SUBJECT, grid, Policy(), expected=ZNE)
    samples = noise(4)
    start_s, found = time.process_time(), 0
    for at in range(0, 60_000, 5):
        station.insert(packet("Z", at, samples, 100), lambda *_: None)
        found += sum(1 for _ in station.cut())
    assert found > 500
    assert time.process_time() - start_s < 30  # 12,000 packets; measured 2.4 s, and 4.3 s where coverage is counted


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e30])
def test_what_is_no_number_is_missing_and_counted(bad: float) -> None:
    counts: Counter[Unused] = Counter()
    samples = noise(200).astype(np.float32)
    samples[100] = bad
    parts = [packet("Z", at, samples[at : at + 20], RATE) for at in range(0, 200, 20)]
    found = run(station_of("Z"), [*parts, packet("Z", 300, noise(1), RATE)], counts)
    assert counts == {Unused.CORRUPT: 1}
    for n in range(17):
        hit = n * 10 <= 100 < n * 10 + 40
        assert (found[K0 + n] is Unused.GAP) == hit
    assert all(np.isfinite(np.frombuffer(o[2], np.float32)).all() for o in found.values() if isinstance(o, tuple))


def test_a_change_of_rate_loses_only_the_windows_that_straddle_it() -> None:
    """Also when the last packet of the old rate comes after the first one of the new."""
    old, new = stream("Z", 0, 200), [packet("Z", 500 + n * 50, noise(50, n), 50) for n in range(12)]
    end = [packet("Z", 1300, noise(1), 50)]
    found = run(station_of("Z"), [*old, *new, *end])
    assert found == run(station_of("Z"), [*old[:-1], new[0], old[-1], *new[1:], *end])
    assert found[K0 + 16][:2] == ("Z", True)
    assert found[K0 + 22][:2] == ("Z", True)
    assert [found[K0 + n] for n in range(17, 20)] == [Unused.GAP] * 3


def test_a_rate_that_cannot_be_resampled_is_counted() -> None:
    counts: Counter[Unused] = Counter()
    assert not run(station_of("Z"), [packet("Z", 0, noise(50), Fraction(19_999, 1000))], counts)
    assert counts == {Unused.RATE: 50}


def test_other_components_and_the_future_are_counted() -> None:
    counts: Counter[Unused] = Counter()
    station = station_of("Z")
    ahead = packet("Z", 0, noise(30), RATE)
    run(station, [packet("U", 0, noise(20), RATE), replace(ahead, received_ns=ahead.start_ns - 61 * NS)], counts)
    assert counts == {Unused.COMPONENT: 20, Unused.FUTURE: 30}


def test_a_wrong_time_stamp_does_not_move_the_clock() -> None:
    counts: Counter[Unused] = Counter()
    good = stream("Z", 0, 400)
    stray = packet("Z", -20 * 100_000, noise(20), RATE)
    found = run(station_of("Z"), [*good[:10], stray, *good[10:]], counts)
    assert counts == {Unused.CLOCK: 20}
    assert found == run(station_of("Z"), good)


def test_after_an_outage_every_channels_first_packet_counts() -> None:
    """The first packet of each channel is held until one channel's second agrees; then all of them are taken."""
    counts: Counter[Unused] = Counter()
    tail = together(*[stream(code, 20_000, 20_200, seed=n) for n, code in enumerate("ZNE")])
    head = together(*[stream(code, 0, 100, seed=n) for n, code in enumerate("ZNE")])
    found = run(station_of("Z", "N", "E"), [*head, *tail], counts)
    assert counts == {}
    assert found[K0 + 2000][:2] == ("ZNE", True)


def test_a_clock_set_back_for_good_is_followed_and_told() -> None:
    station, counts = station_of("Z"), Counter()
    items = []
    for one in [*stream("Z", 100_000, 100_200), *stream("Z", 0, 300)]:
        station.insert(one, lambda reason, n: counts.update({reason: n}))
        items += list(station.cut())
    lost = [i for i in items if isinstance(i, Unscored)]
    assert [i.reason for i in lost] == [Unused.CLOCK]
    assert lost[0].first == K0 + 10_017
    assert any(i.k == K0 for i in items)


def test_late_samples_are_counted_and_duplicates_of_used_ones_are_overlap() -> None:
    counts: Counter[Unused] = Counter()
    packets = stream("Z", 0, 400)
    station = station_of("Z")
    run(station, [*packets[:5], *packets[6:]], counts)
    run_late = station.insert(packets[5], lambda reason, n: counts.update({reason: n}))
    assert run_late == [packets[5]]
    station.insert(packets[15], lambda reason, n: counts.update({reason: n}))
    assert counts == {Unused.LATE: 20, Unused.OVERLAP: 20}


def test_an_offset_near_half_a_sample_is_counted_as_phase() -> None:
    counts: Counter[Unused] = Counter()
    run(station_of("Z"), [packet("Z", 0, noise(20), RATE, shift_ns=24_000_000)], counts)
    assert counts == {Unused.PHASE: 20}


def test_restart_goes_on_with_the_window_after_the_last() -> None:
    packets = together(stream("Z", 0, 400, seed=1), stream("N", 0, 400, seed=2))
    whole = run(station_of("Z", "N"), packets)
    resumed = run(station_of("Z", "N", next_k=K0 + 9), [p for p in packets if p.end_ns >= GRID.start_ns(K0 + 9)])
    assert resumed == {k: o for k, o in whole.items() if k >= K0 + 9}


@dataclass(frozen=True)
class MadeGood:
    packets: list[Packet]
    """Of before an outage; then of the outage and of the present, each in its own order, mixed anyhow."""
    live: list[Packet]
    """The present alone."""
    stray: Packet
    """Of a wrong time, further from all of them than a jump."""
    stray_at: int
    """Comes before this packet."""
    later: list[Packet]
    """An hour after everything."""


def made_good(seed: int) -> MadeGood:
    chance = random.Random(seed)
    begins_s, stray_s = 20 + chance.choice([155, 400]), chance.choice([-700, 1500, 40_000])
    known, recovered, live, later = [], [], [], []
    for number, code in enumerate(chance.choice(["Z", "ZN", "ZNE"])):
        size = chance.randint(20, 100)
        until = min(20 * RATE + chance.randint(1, 32) * size, begins_s * RATE)
        known += stream(code, 0, 20 * RATE, size=size)
        recovered += stream(code, 20 * RATE, until, size=size)
        live += stream(code, begins_s * RATE, (begins_s + 60) * RATE, size=size, seed=number)
        later += [packet(code, 50_000 * RATE + at, noise(20), RATE) for at in (0, 20, 40)]
    present, past, leaning = iter(together(live)), iter(together(recovered)), chance.uniform(-1, 1)
    turns = [(chance.random(), past) for _ in recovered] + [(chance.random() + leaning, present) for _ in live]
    mixed = [next(whose) for _, whose in sorted(turns, key=lambda turn: turn[0])]
    stray = packet(chance.choice(live).component, stray_s * RATE + 3, noise(50, 9), RATE)
    at = chance.randint(len(known), len(known) + len(mixed))
    return MadeGood([*together(known), *mixed], together(live), stray, at, later)


def said_since(packets: Iterable[Packet], from_ns: int) -> tuple[dict[int, Outcome], Counter[Unused]]:
    """The windows that begin later, up to an hour, and what was counted."""
    counts: Counter[Unused] = Counter()
    received = [replace(p, received_ns=EPOCH_S * NS + 100_000 * NS) for p in packets]
    station = station_of(*{p.component for p in received})
    first, last = GRID.first_at_or_after(from_ns), GRID.first_at_or_after(from_ns + 50 * NS)
    return {k: said for k, said in run(station, received, counts).items() if first <= k < last}, counts


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32))
def test_what_is_made_good_between_live_packets_hides_neither_them_nor_a_wrong_time(seed: int) -> None:
    """No honest packet is of a wrong time, and the present is scored as if it came alone; its first packet may wait for its
    second. A wrong time is counted, and changes nothing."""
    case = made_good(seed)
    from_ns = case.live[0].start_ns + 8 * NS
    found, counts = said_since([*case.packets, *case.later], from_ns)
    assert found == said_since([*case.live, *case.later], from_ns)[0]
    assert counts[Unused.CLOCK] == 0
    with_stray = [*case.packets[: case.stray_at], case.stray, *case.packets[case.stray_at :], *case.later]
    beside, counted = said_since(with_stray, from_ns)
    assert beside == found
    # One ahead may be passed by in a jump: then it lies among what may yet be made good.
    assert counted - counts in (Counter({Unused.CLOCK: 50}), Counter({Unused.LATE: 50}))


def judged(
    guard: ClockGuard, at: int, clock: int | None, newest: int = 0, code: str = "Z"
) -> tuple[list[int], list[int], bool]:
    """All in seconds; the starts of the packets that are taken and refused."""
    one = packet(code, at, noise(1), 1)
    place = [None if t is None else (EPOCH_S + t) * NS for t in (clock, newest)]
    verdict = guard.judge(one, place[0], place[1] or 0)
    taken, refused = ([p.start_ns // NS - EPOCH_S for p in ps] for ps in (verdict.accepted, verdict.refused))
    return taken, refused, verdict.went_back


def test_a_jump_is_measured_from_the_newest_packets_start_and_its_end() -> None:
    for at, near in ((899, False), (900, True), (1300, True), (1301, False)):
        assert judged(ClockGuard(100 * NS), at, 1000, 1200)[0] == [at] * near


def test_stray_packets_are_held_beside_one_another_and_the_oldest_makes_room() -> None:
    guard = ClockGuard(100 * NS)
    for at in (5000, 9000, 7000, 3000):
        assert judged(guard, at, 1000) == ([], [], False)
    assert judged(guard, 11_000, 1000) == ([], [5000], False)
    assert judged(guard, 9001, 1000) == ([9000, 9001], [], False)
    assert judged(guard, 9002, 9001) == ([9002], [7000, 3000], False)


def test_what_follows_a_held_packet_must_fit_once_its_channel_came_back_in_between() -> None:
    """Wrong stamps that come now and then, all as wrong, agree on nothing."""
    guard = ClockGuard(100 * NS)
    for at in range(1000, 1040, 10):
        assert judged(guard, at, at) == ([at], [], False)
        assert judged(guard, at + 4000, at) == ([], [], False)
    judged(guard, 1040, 1040)
    assert judged(guard, 5040, 1040) == ([], [5000], False)
    judged(guard, 1050, 1050)
    assert judged(guard, 5041, 1050) == ([5010, 5020, 5030, 5040, 5041], [], False)


@pytest.mark.parametrize(
    ("then", "verdict"), [(5000, [[5000], [5000]]), (5001, [[5000, 5001], []]), (5002, [[5002], []])]
)
def test_a_held_packet_is_settled_when_its_channel_reaches_it(then: int, verdict: list[list[int]]) -> None:
    """Its own data lie there, or follow it; else it waits for one that does, and is late when the clock has passed."""
    guard = ClockGuard(100 * NS)
    judged(guard, 5000, 1000)
    for at in range(4890, 5000):
        assert judged(guard, at, at - 1) == ([at], [], False)
    assert judged(guard, then, 4999) == (*verdict, False)
    assert judged(guard, 5150, 5102) == ([5000] * (then == 5002) + [5150], [], False)


def test_what_is_made_good_behind_the_clock_sets_it_back_only_when_nobody_is_at_its_time() -> None:
    guard = ClockGuard(100 * NS)
    for at in (1000, 5000, 5001):
        taken = judged(guard, at, None if at == 1000 else 1000)
    assert taken == ([5000, 5001], [], False)
    for at in range(1001, 1101):
        assert judged(guard, at, 5001) == ([at], [], False)
    assert judged(guard, 5002, 5001) == ([5002], [], False)
    for at in range(1101, 1201):
        assert judged(guard, at, 5002) == ([at], [], False)
    assert judged(guard, 1201, 5002) == ([1201], [], True)


def test_a_gap_in_what_is_made_good_is_no_wrong_time() -> None:
    guard = ClockGuard(100 * NS)
    for at in (1000, 5000, 5001):
        judged(guard, at, None if at == 1000 else 1000)
    assert judged(guard, 1500, 5001) == ([], [], False)
    assert judged(guard, 5002, 5001) == ([1500, 5002], [], False)
    for at in (1501, 1001, 1502, 1002):
        assert judged(guard, at, 5002) == ([at], [], False)
    judged(guard, 900, 5002)
    assert judged(guard, 5003, 5002) == ([5003], [900], False)


def test_a_packet_that_comes_twice_agrees_with_nothing() -> None:
    guard = ClockGuard(100 * NS)
    assert judged(guard, 5000, 1000) == ([], [], False)
    assert judged(guard, 5000, 1000) == ([], [5000], False)
    assert judged(guard, 5001, 1000) == ([5000, 5001], [], False)


def test_a_clock_went_back_if_the_oldest_packet_that_is_taken_lies_before_it() -> None:
    guard = ClockGuard(100 * NS)
    judged(guard, 500, 1000)
    assert judged(guard, 501, 1000) == ([500, 501], [], True)
    judged(guard, 3000, 1000, code="N")
    judged(guard, 2999, 1000)
    assert judged(guard, 3001, 1000) == ([2999, 3000, 3001], [], False)


def test_records_longer_than_a_jump_agree_with_the_one_after_them() -> None:
    """Six minutes of a 1 Hz channel in a record: after an outage the second begins where the first ends."""
    guard, now_ns = ClockGuard(100 * NS), EPOCH_S * NS
    first, north, second = (packet(code, at, noise(400), 1) for code, at in (("Z", 5000), ("N", 5000), ("Z", 5400)))
    assert guard.judge(first, now_ns, now_ns).accepted == ()
    assert guard.judge(north, now_ns, now_ns).accepted == ()
    assert guard.judge(second, now_ns, now_ns).accepted == (first, north, second)


def test_two_packets_of_another_time_agree_across_a_gap_unless_their_channel_came_back_in_between() -> None:
    guard = ClockGuard(100 * NS)
    judged(guard, 1000, None)
    assert judged(guard, 5000, 1000) == ([], [], False)
    assert judged(guard, 5050, 1000) == ([5000, 5050], [], False)


def test_what_other_channels_hold_is_near_the_newest_of_those_that_agree() -> None:
    guard = ClockGuard(100 * NS)
    judged(guard, 5160, 1000, code="N")
    judged(guard, 5190, 1000, code="E")
    judged(guard, 5000, 1000)
    assert judged(guard, 5080, 1000) == ([5000, 5080, 5160], [], False)


def test_what_a_channel_held_before_the_clock_went_back_is_settled_by_its_next_packet() -> None:
    """Where its data broke off nobody knows any more."""
    guard = ClockGuard(100 * NS)
    judged(guard, 10, 1000, code="N")
    judged(guard, 500, 1000)
    assert judged(guard, 501, 1000) == ([500, 501], [], True)
    assert judged(guard, 505, 501, code="N") == ([505], [10], False)


def test_one_sample_in_ten_seconds_follows_upon_the_one_before() -> None:
    guard, rate = ClockGuard(100 * NS), Fraction(1, 10)
    first, held, back, then = (packet("Z", at, noise(1), rate) for at in (100, 500, 101, 501))
    guard.judge(first, None, 0)
    assert guard.judge(held, first.start_ns, first.end_ns).accepted == ()
    assert guard.judge(back, first.start_ns, first.end_ns).accepted == (back,)
    assert guard.judge(then, back.start_ns, back.end_ns).accepted == (held, then)


def test_the_older_of_two_rates_makes_room_for_a_third() -> None:
    """Whichever is slower: a channel that goes through three rates keeps the one that it had last."""
    for rates in ((20, 50, 100), (100, 50, 20), (50, 100, 20), (50, 20, 100)):
        station = station_of("Z")
        for n, rate in enumerate(rates):
            station.insert(packet("Z", n * 10 * rate, noise(rate), rate), lambda *_: None)
        assert [row.ring.rate for row in station._rows["Z"]] == sorted(rates[1:])


def test_samples_before_the_first_undecided_window_are_late() -> None:
    """They are still within the ring, and nobody needs them."""
    counts: Counter[Unused] = Counter()
    station = station_of("Z")
    run(station, [p for p in stream("Z", 0, 160) if p.start_ns != (EPOCH_S + 2) * NS])
    late = packet("Z", 40, noise(20), RATE)
    assert station.insert(late, lambda reason, n: counts.update({reason: n})) == [late]
    assert counts == {Unused.LATE: 20}


def test_windows_of_no_use_name_their_station() -> None:
    station = station_of("Z", "N")
    items = []
    for one in [*stream("N", 0, 60), packet("N", 300, noise(20), RATE)]:
        station.insert(one, lambda *_: None)
        items += station.cut()
    assert {(i.subject, i.reason) for i in items if isinstance(i, Unscored)} == {
        (SUBJECT, Unused.COMPONENT),
        (SUBJECT, Unused.GAP),
    }


def test_a_late_component_joins_the_announced_ones() -> None:
    """Those that were announced are expected all the same, though they never sent anything."""
    found = run(station_of("Z", "N"), together(stream("Z", 0, 200), stream("E", 0, 200)))
    assert {o[:2] for o in found.values()} == {("ZE", False)}


@pytest.mark.parametrize(("first", "complete"), [(10, False), (11, True)])
def test_a_component_that_begins_within_the_spare_time_was_always_there(first: int, complete: bool) -> None:
    """Half of what a window is longer than the wait: 10 samples. It lacks them in the first window."""
    found = run(Station(SUBJECT, GRID, POLICY), together(stream("Z", 0, 200), stream("N", first, 200)))
    assert found[K0][:2] == ("Z", complete)


def test_after_a_restart_components_need_not_be_announced() -> None:
    found = run(Station(SUBJECT, GRID, POLICY, next_k=K0 + 2), stream("Z", 0, 200))
    assert min(found) == K0 + 2
    assert {o[:2] for o in found.values()} == {("Z", True)}


def test_a_ring_is_never_too_short_for_a_window_and_its_wait() -> None:
    packets = together(stream("Z", 0, 200, size=5), stream("N", 0, 100, size=5))
    found = run(station_of("Z", "N"), packets)
    assert found == run(station_of("Z", "N", policy=replace(POLICY, ring_ns=1)), packets)
    assert found[K0 + 7][:2] == ("Z", False)


def test_a_packet_longer_than_the_ring_that_short_ones_made_is_placed_piece_by_piece() -> None:
    samples = noise(4000, 2)
    short = [packet("Z", at, samples[at : at + 20], RATE) for at in range(0, 4000, 20)]
    found = run(station_of("Z"), [short[0], packet("Z", 20, samples[20:], RATE)])
    assert found == {k: o for k, o in run(station_of("Z"), short).items() if k in found}
    assert len(found) > 390


def test_after_a_restart_the_first_window_waits_for_nobody_more() -> None:
    one = [packet("Z", 0, noise(GRID.window), RATE)]
    assert set(run(station_of("Z", next_k=K0), one)) == {K0}
    assert not run(station_of("Z"), one), "an earlier packet may still come"


def test_a_station_whose_packets_were_all_refused_has_a_reach() -> None:
    """After a restart it is asked for, with the first packet that comes."""
    assert station_of("Z").reach_ns == 2 * NS // RATE


def test_horizontals_renamed_in_mid_stream() -> None:
    """A sensor's 1 and 2 become N and E: the newcomers take their rows, and nothing waits for the old ones for ever."""
    old = together(stream("Z", 0, 300, seed=1), stream("1", 0, 200, seed=2), stream("2", 0, 200, seed=3))
    new = together(stream("N", 200, 600, seed=4), stream("E", 200, 600, seed=5), stream("Z", 300, 600, seed=1))
    found = run(station_of("Z", "1", "2"), [*old, *new])
    assert found[K0 + 16][:2] == ("ZNE", True)
    assert found[K0 + 35][:2] == ("ZNE", True)


def test_orientation_is_looked_up_at_the_windows_time() -> None:
    asked = []

    def orient(codes: dict[int, str], time_ns: int) -> object:
        asked.append((dict(codes), time_ns))
        return orientation(codes, {}, time_ns)

    found = run(station_of("Z", "1", orient=orient), together(stream("Z", 0, 200), stream("1", 0, 200)))
    assert found[K0][:2] == ("ZN", True)
    assert asked[0] == ({0: "Z", 1: "1"}, EPOCH_S * NS)


def test_float_and_integer_packets_mix_without_loss() -> None:
    """Counts above 2^24 do not fit float32: the ring keeps both kinds exactly, in any order."""
    big = noise(200).astype(np.int64) * 10_000 + 1
    whole = big.astype(np.int32)
    ints = [packet("Z", at, whole[at : at + 20], RATE) for at in range(0, 160, 20)]
    mixed = [*ints[:4], packet("Z", 160, noise(40).astype(np.float32), RATE), *ints[4:]]
    found = run(station_of("Z"), mixed)
    assert found[K0] == run(station_of("Z"), [*ints, packet("Z", 160, noise(40), RATE)])[K0]


def test_a_component_joins_at_a_fixed_data_time_however_late_its_packets_come() -> None:
    """N begins 10 s in. Whether or not its first packet was there when Z was whole, the windows are the same."""
    z = [packet("Z", at, noise(40, at), RATE) for at in range(0, 600, 40)]
    n = [packet("N", at, noise(40, at + 1), RATE) for at in range(200, 600, 40)]
    z_first = sorted([*z, *n], key=lambda p: (p.start_ns, p.component != "Z"))
    n_first = sorted([*z, *n], key=lambda p: (p.start_ns, p.component != "N"))
    found = run(Station(SUBJECT, GRID, POLICY), z_first)
    assert found == run(Station(SUBJECT, GRID, POLICY), n_first)
    assert found[K0 + 25][:2] == ("Z", True)
    assert found[K0 + 26][:2] == ("ZN", True)  # 10 s, the wait of 1 s and a window of 2 s


def test_the_reach_counts_a_samples_offset() -> None:
    """A 1 Hz sample stamped 0.45 s early is placed where the filter of a window needs it: its packet is undecided."""
    one = packet("Z", 100, noise(1), 1, shift_ns=-450_000_000)
    station = station_of("Z")
    station.insert(one, lambda *_: None)
    k = GRID.first_at_or_after((EPOCH_S + 110) * NS)
    assert resampler(Fraction(20)).needs(GRID.first_sample(k), GRID.window)[0] == EPOCH_S + 100
    assert one.end_ns >= GRID.start_ns(k) - station.reach_ns
