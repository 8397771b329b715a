from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import replace
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quake.alerts import Characterisation
from quake.characterisation import NO_GAIN, OF_A_STATION
from streamer.coincidence import Coincidence, CoincidenceState, Event, Rules, distance_km
from streamer.stages import NS, Detection
from streamer.trigger import NAMESPACE

T0 = 1_700_000_000 * NS
PLACES = {f"XX_S{n}": (48.0, 11.0 + 0.15 * n) for n in range(6)}  # some 11 km from one to the next
RULES = Rules(
    min_stations=3,
    window_ns=10 * NS,
    speed_km_s=3.0,
    tolerance_ns=NS,
    hold_ns=8 * NS,
    flowing_ns=60 * NS,
    longest_ns=60 * NS,
    places=PLACES,
)


def detection(station: int, onset_s: float, decided_s: float, off_s: float | None = None, name: str = "") -> Detection:
    return Detection(
        id=name or f"{station}@{onset_s}",
        subject=f"FDSN:XX_S{station}__H_H",
        k=int(onset_s),
        opened_k=int(onset_s),
        onset_ns=T0 + int(onset_s * NS),
        decided_ns=T0 + int((decided_s if off_s is None else off_s) * NS),
        off_ns=None if off_s is None else T0 + int(off_s * NS),
        probability=0.9,
        components="ZNE",
        complete=True,
        received_ns=0,
        trace=(),
    )


def rules(**changes: object) -> Rules:
    return Rules(**{**{name: getattr(RULES, name) for name in RULES.__slots__}, **changes})  # type: ignore[arg-type]


def said(event: Event) -> tuple[object, ...]:
    size = event.characterisation and event.characterisation.magnitude
    return event.id, event.revision, tuple(m.id for m in event.members), event.opened_ns, event.closed_ns, str(size)


def size(large: float | None) -> Characterisation:
    """What a station tells."""
    if large is None:
        return Characterisation(magnitude=None, azimuth=None, unknown={"magnitude": NO_GAIN, "azimuth": NO_GAIN})
    return Characterisation(magnitude={"Large": large, "Normal": 1 - large}, azimuth=None)


def feed(items: list[Detection], until_s: float = 1000, with_rules: Rules = RULES) -> list[Event]:
    one = Coincidence(with_rules)
    for item in items:
        one.add(item)
    return list(one.advance(T0 + int(until_s * NS)))


def test_opens_at_the_third_station_and_revises_at_fixed_data_times() -> None:
    openings = [detection(0, 0, 4), detection(1, 3, 6), detection(2, 7, 9)]
    more = [detection(3, 11, 14), *(detection(n, o, 0, 30 + n) for n, o in enumerate((0, 3, 7, 11)))]
    events = feed([*openings, *more])
    ident = str(uuid.uuid5(NAMESPACE, "event|" + "|".join(d.id for d in openings)))
    assert [(e.id, e.revision) for e in events] == [(ident, n) for n in range(5)]
    assert events[0].opened_ns == T0 + 9 * NS
    # 2 and 5 s after onset had passed when it opened: at 10, 20 and 40 s, and some time after the last member closed.
    assert [len(e.members) for e in events] == [3, 3, 4, 4, 4]
    assert [e.closed_ns for e in events] == [None, None, None, None, T0 + 33 * NS]


def test_revision_times() -> None:
    one = Coincidence(RULES)
    for item in [detection(0, 0, 0.5), detection(1, 0.1, 0.6), detection(2, 0.2, 0.7)]:
        one.add(item)
    due, published = [], 0
    for tenth in range(0, 700):
        for event in one.advance(T0 + tenth * NS // 10):
            due.append((tenth / 10, event.revision, event.closed_ns is not None))
            published += 1
    revisions = [(2, 1, False), (5, 2, False), (10, 3, False), (20, 4, False), (40, 5, False)]
    assert due == [(0.7, 0, False), *revisions, (60, 6, True)]


@pytest.mark.parametrize(
    ("items", "events"),
    [
        ([detection(0, 0, 4), detection(1, 3, 6)], 0),  # too few
        ([detection(0, 0, 4), detection(1, 3, 6), detection(1, 4, 7, name="other")], 0),  # one station twice
        ([detection(0, 0, 4), detection(1, 3, 6), detection(2, 9.0, 12)], 0),  # 22 km in 9 s: too slow
        ([detection(0, 0, 4), detection(1, 3, 6), detection(2, 8.3, 12)], 0),  # fits the first, not the second
        ([detection(0, 0, 4), detection(1, 3, 6), detection(2, 7.6, 12)], 1),
        ([detection(7, 0, 4), detection(8, 5, 6), detection(9, 10, 12)], 1),  # unknown places: a plain time window
        ([detection(7, 0, 4), detection(8, 5, 6), detection(9, 10.1, 12)], 0),
    ],
)
def test_travel_times(items: list[Detection], events: int) -> None:
    assert len({e.id for e in feed(items)}) == events


def test_a_short_detection_near_the_source_still_counts() -> None:
    items = [detection(0, 0, 4), detection(0, 0, 0, 6), detection(1, 3, 7), detection(2, 7, 11)]
    first = feed(items)[0]
    assert [m.closed for m in first.members] == [True, False, False]


def test_the_oldest_candidate_does_not_bar_those_that_fit_one_another() -> None:
    """Station 5 fits the newcomer by itself, but neither of the two that make three with it."""
    away = dict(PLACES, XX_S5=(48.0, 12.2))
    stray, a, b, last = detection(5, -20, 1), detection(1, 12, 22), detection(2, 13, 23), detection(0, 8, 24)
    assert not feed([stray, a, b], with_rules=rules(places=away))
    events = feed([stray, a, b, last], with_rules=rules(places=away))
    assert {m.id for m in events[0].members} == {a.id, b.id, last.id}


def test_far_members_join_and_others_do_not() -> None:
    base = [detection(0, 0, 4), detection(1, 1, 5), detection(2, 2, 6)]
    joined = feed([*base, detection(3, 4, 7), detection(4, 30, 31)])
    assert [len(e.members) for e in joined][-1] == 4


RING = {f"XX_S{n}": (48.0, 11.0 + km / 74.4) for n, km in enumerate((0, 5, 10, 110, 120, 130))}


def seen(station: int, onset_s: float, name: str = "") -> list[Detection]:
    """Opened five windows after it began, and over after eight more: beginnings are short."""
    ident = name or f"{station}@{onset_s}"
    return [detection(station, onset_s, onset_s + 5, name=ident), detection(station, onset_s, 0, onset_s + 13, ident)]


def test_stations_beyond_a_gap_join_the_event_that_those_before_it_have_heard_out() -> None:
    near, far = [seen(n, n) for n in range(3)], [seen(n, 14.0 + n) for n in range(3, 6)]
    events = feed([*chain(*near, *far)], with_rules=rules(places=RING, longest_ns=180 * NS))
    assert len({e.id for e in events}) == 1
    assert len(events[-1].members) == 6
    assert events[-1].closed_ns == T0 + 32 * NS
    assert [len(e.members) for e in events if e.closed_ns is None] == [3, 3, 3, 6]  # at 7, 10, 20, 40 s


def test_an_event_that_is_over_hides_no_other_of_its_stations() -> None:
    """As a mainshock half a minute after its foreshock, at stations so far apart that both would fit one event."""
    wide = rules(places={f"XX_S{n}": (48.0, 11.0 + 2 * n) for n in range(3)}, longest_ns=180 * NS)
    first, second = ([seen(n, at + n, f"{n}@{at}") for n in range(3)] for at in (0.0, 25.0))
    events = feed([*chain(*first, *second)], with_rules=wide)
    assert [e.opened_ns - T0 for e in events if e.revision == 0] == [7 * NS, 32 * NS]
    assert sorted(len(e.members) for e in events if e.closed_ns is not None) == [3, 3]


APART = rules(places={f"XX_S{n}": (48.0, 11.0 + 1.2 * n) for n in range(4)}, longest_ns=180 * NS)  # 89 km each


@pytest.mark.parametrize("heard_by", [[3, 2, 1, 0], [3, 2, 1]])
def test_who_joins_an_event_that_is_over_may_be_the_first_to_hear_another(heard_by: list[int]) -> None:
    """Station 3, which did not hear the foreshock, hears the mainshock first."""
    fore = [seen(n, n) for n in range(3)]
    main = [seen(station, 25.0 + n, f"{station} again") for n, station in enumerate(heard_by)]
    opened = [e for e in feed([*chain(*fore, *main)], with_rules=APART) if e.revision == 0]
    assert [{m.station for m in e.members} for e in opened] == [
        {f"XX_S{n}" for n in ns} for ns in ([0, 1, 2], [3, 2, 1])
    ]


def test_what_is_over_is_closed_once_no_more_data_come() -> None:
    one = Coincidence(rules(places=RING))
    for item in chain(*(seen(n, n) for n in range(3))):
        one.add(item)
    events = list(one.advance(T0 + 16 * NS))
    assert [e.closed_ns for e in (*events, *one.finish())][-1] == T0 + 15 * NS
    assert not one.state.events
    other = Coincidence(rules(places=RING))
    for item in chain(*(seen(n, n) for n in range(3))):
        other.add(item)
    list(other.advance(T0 + 14 * NS))
    assert not list(other.finish())  # one is still open


@pytest.mark.parametrize("sensors", [1, 2])
def test_one_station_too_few_is_found_out_at_once(sensors: int) -> None:
    """A search through all parts of what agrees would take years."""
    kinds = ["H_H", "H_N"][:sensors]
    items = [
        replace(detection(n, 0, 4, name=f"{n}{k}"), subject=f"FDSN:XX_S{n}__{k}") for n in range(60) for k in kinds
    ]
    near = {f"XX_S{n}": (48.0, 11.0) for n in range(60)}
    assert feed(items, with_rules=rules(min_stations=61, places=near)) == []
    assert len({e.id for e in feed(items, with_rules=rules(min_stations=60, places=near))}) == 1


def test_a_station_that_lags_is_waited_for_up_to_the_hold() -> None:
    one = Coincidence(RULES)
    assert one.watermark_ns({}) == 0
    assert one.watermark_ns({"a": T0, "b": T0 - 5 * NS}) == T0 - 5 * NS
    assert one.watermark_ns({"a": T0, "b": T0 - 30 * NS}) == T0 - 8 * NS
    assert one.watermark_ns({"a": T0, "b": T0 - 500 * NS}) == T0  # it does not flow


@st.composite
def networks(draw: st.DrawFn) -> dict[str, list[Detection]]:
    """Openings and closings of each station, in its own order."""
    histories: dict[str, list[Detection]] = {}
    for station in range(draw(st.integers(3, 6))):
        at, history = draw(st.integers(0, 10)), []
        for _ in range(draw(st.integers(0, 4))):
            onset, lag, length = (draw(st.integers(0, n)) for n in (12, 6, 30))
            decided = at + onset + lag
            history.append(detection(station, at + onset, decided))
            history.append(detection(station, at + onset, decided, decided + 1 + length))
            at = decided + 2 + length
        histories[f"FDSN:XX_S{station}__H_H"] = history
    return histories


def play(
    histories: dict[str, list[Detection]], chance: random.Random, save: Callable[[], bool]
) -> list[tuple[object, ...]]:
    """Let the stations decide second by second in any order, none further behind the first than the hold."""
    decided = dict.fromkeys(histories, T0)
    left = {name: list(items) for name, items in histories.items()}
    one, found, end_ns = Coincidence(RULES), [], T0 + 400 * NS
    growing: list[tuple[Detection, int, float]] = []
    while min(decided.values()) < end_ns:
        behind = [s for s, t in decided.items() if t < end_ns and t + NS - min(decided.values()) <= RULES.hold_ns]
        subject = chance.choice(sorted(behind))
        decided[subject] += NS
        while left[subject] and left[subject][0].decided_ns <= decided[subject]:
            item = left[subject].pop(0)
            one.add(item)
            if item.off_ns is None:
                growing.append((item, item.decided_ns, 0.25))
                growing.append((item, item.decided_ns + 5 * NS, 0.5))
        for item, at_ns, large in [g for g in growing if g[0].subject == subject and g[1] <= decided[subject]]:
            one.characterise(item.id, at_ns, size(large + item.k / 1000))
            growing.remove((item, at_ns, large))
        found += [said(event) for event in one.advance(one.watermark_ns(decided))]
        if save():
            one = Coincidence(RULES, CoincidenceState.model_validate_json(one.state.model_dump_json()))
    return found


@settings(max_examples=60, deadline=None)
@given(networks(), st.integers(0, 2**32))
def test_any_order_of_progress_gives_the_same_events(histories: dict[str, list[Detection]], seed: int) -> None:
    steady = play(histories, random.Random(0), lambda: False)
    saves = random.Random(seed)
    assert play(histories, random.Random(seed), lambda: saves.random() < 0.05) == steady


def test_the_property_above_sees_events_and_their_sizes() -> None:
    histories = {
        f"FDSN:XX_S{n}__H_H": [detection(n, 3 * n, 3 * n + 4), detection(n, 3 * n, 0, 40 + n)] for n in range(4)
    }
    found = play(histories, random.Random(0), lambda: False)
    assert [e[1] for e in found] == [0, 1, 2, 3]
    assert len({e[5] for e in found}) > 1, "sizes grow"


def test_an_event_tells_the_mean_of_the_stations_that_know_as_it_stood_then() -> None:
    one = Coincidence(RULES)
    for n, large in enumerate((0.2, 0.6, None)):
        one.add(detection(n, n, 4 + n))
        one.characterise(f"{n}@{n}", T0 + (4 + n) * NS, size(large))
    one.characterise("0@0", T0 + 9 * NS, size(0.8))  # after the revision at 5 s, which is told at the opening, at 6 s
    opened, grown = list(one.advance(T0 + 12 * NS))
    assert (opened.revision, grown.revision) == (0, 1)
    assert opened.characterisation is not None and grown.characterisation is not None  # noqa: PT018
    assert opened.characterisation.magnitude == pytest.approx({"Large": 0.4, "Normal": 0.6})
    assert grown.characterisation.magnitude == pytest.approx({"Large": 0.7, "Normal": 0.3})
    assert grown.characterisation.unknown == {"azimuth": OF_A_STATION}


def test_an_event_of_stations_that_know_nothing_says_why() -> None:
    one = Coincidence(RULES)
    for n in range(3):
        one.add(detection(n, n, 4 + n))
        one.characterise(f"{n}@{n}", T0 + (4 + n) * NS, size(None))
    said = next(one.advance(T0 + 7 * NS)).characterisation
    assert said is not None
    assert (said.magnitude, said.unknown) == (None, {"magnitude": NO_GAIN, "azimuth": OF_A_STATION})


def test_memory_is_bounded() -> None:
    one = Coincidence(RULES)
    for n in range(3000):
        one.add(detection(0, 20 * n, 20 * n + 4))
        one.add(detection(0, 20 * n, 0, 20 * n + 9))
        one.characterise(f"0@{20 * n}", T0 + (20 * n + 4) * NS, size(0.5))
        assert not list(one.advance(T0 + (20 * n + 10) * NS))
    assert len(one.state.single) < 10
    assert len(one.state.characterised) < 10


def test_distance() -> None:
    assert distance_km((48.0, 11.0), (48.0, 11.0)) == 0
    assert distance_km((0.0, 0.0), (0.0, 90.0)) == pytest.approx(10_007.5, rel=1e-3)
    assert distance_km((0.0, 179.0), (0.0, -179.0)) == pytest.approx(222.4, rel=1e-3)
