"""What is sent, and what is not: of the rules that decide whether somebody is woken."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_alerts import NOW_NS, alert
from pydantic import ValidationError

from quake.alerts import Alert, Characterisation, Mode, Status
from quake.data.spec import MAGNITUDE_HEAD
from quake.times import NS
from streamer.notify.deciding import Bucket, LeftOut, Quiet, Rate, Told, Wants, decide, left_out, likeliest

NIGHT: dict[str, Any] = {"begin": "22:00", "end": "06:00", "zone": "UTC"}
AT_NIGHT = round(datetime(2026, 1, 2, 3, tzinfo=UTC).timestamp()) * NS
TOLD: Told = ((0, NOW_NS),)


def sized(name: str) -> Characterisation:
    return Characterisation(magnitude={"Normal": 0.1, name: 0.8}, azimuth=None)


def at(now_ns: int, **changes: Any) -> Alert:
    return alert(**{"created": now_ns, **changes})


def grown(count: int, now_ns: int = NOW_NS, **changes: Any) -> Alert:
    return at(now_ns, stations=at(now_ns).stations * count, **changes)


@pytest.mark.parametrize(
    ("wants", "changes", "told", "reason"),
    [
        ({}, {}, (), None),
        ({}, {"mode": Mode.EXERCISE}, (), LeftOut.MODE),
        ({"mode": "exercise"}, {"mode": Mode.EXERCISE}, (), None),
        ({"mode": "exercise"}, {}, (), LeftOut.MODE),
        ({}, {"stale": True}, (), LeftOut.STALE),
        ({}, {"stale": True, "revision": 2, "status": Status.CLOSED}, TOLD, None),
        ({}, {"stale": True, "revision": 2, "status": Status.CANCELLED}, TOLD, None),
        ({}, {"created": NOW_NS - 86_401 * NS}, (), LeftOut.OLD),
        ({}, {"revision": 1}, (), None),  # the first that passes counts as open
        ({}, {"revision": 1}, TOLD, LeftOut.STATUS),
        ({"statuses": ["open", "update"]}, {"revision": 1}, TOLD, None),
        ({"statuses": ["closed"]}, {"revision": 1}, (), LeftOut.STATUS),
        ({}, {"revision": 2, "status": Status.CLOSED}, TOLD, None),
        ({"statuses": ["open"]}, {"revision": 2, "status": Status.CLOSED}, TOLD, LeftOut.STATUS),
        ({}, {"revision": 2, "status": Status.CANCELLED}, TOLD, None),
        ({}, {"revision": 2, "status": Status.CANCELLED}, (), LeftOut.UNTOLD),
        ({}, {}, TOLD, LeftOut.REPEAT),
        ({"min_probability": 0.91}, {}, (), LeftOut.PROBABILITY),
        ({"min_probability": 0.9}, {}, (), None),
        ({"min_stations": 2}, {}, (), LeftOut.STATIONS),
        ({"quiet": NIGHT}, {}, (), LeftOut.QUIET),
        ({"quiet": {**NIGHT, "min_stations": 2}}, {}, (), LeftOut.QUIET),
        ({"quiet": {**NIGHT, "min_stations": 1}}, {}, (), None),
        ({"quiet": {**NIGHT, "magnitudes": ["Large"]}}, {"characterisation": sized("Medium")}, (), LeftOut.QUIET),
        ({"quiet": {**NIGHT, "magnitudes": ["Large"]}}, {"characterisation": sized("Large")}, (), None),
        ({"quiet": {**NIGHT, "magnitudes": ["Large"]}}, {}, (), LeftOut.QUIET),
        ({"quiet": NIGHT}, {"revision": 2, "status": Status.CANCELLED}, TOLD, None),
    ],
)
def test_each_rule(wants: dict[str, Any], changes: dict[str, Any], told: Told, reason: LeftOut | None) -> None:
    assert NOW_NS // NS % 86_400 // 3600 == 22  # within the night
    assert left_out(Wants(**wants), at(NOW_NS, **changes), told, NOW_NS) == reason


alerts = st.builds(
    grown,
    st.integers(1, 4),
    revision=st.integers(0, 3),
    mode=st.sampled_from(Mode),
    status=st.sampled_from(Status),
    stale=st.booleans(),
    probability=st.floats(0, 1),
)
wants = st.builds(
    Wants,
    mode=st.sampled_from(Mode),
    statuses=st.sets(st.sampled_from(Status), min_size=1).map(tuple),
    min_probability=st.floats(0, 1),
    min_stations=st.integers(1, 4),
    quiet=st.none() | st.just(Quiet(**NIGHT, min_stations=3)),
)


@given(
    wants, alerts, st.lists(st.integers(0, 3), unique=True).map(lambda found: tuple((r, NOW_NS) for r in sorted(found)))
)
def test_what_must_never_be_sent(wants: Wants, one: Alert, told: Told) -> None:
    if left_out(wants, one, told, NOW_NS) is None:
        assert one.mode is wants.mode
        assert not one.stale or (told and one.status in (Status.CLOSED, Status.CANCELLED))
        assert all(revision < one.revision for revision, _ in told)
        assert one.probability >= wants.min_probability
        assert told or one.status is not Status.CANCELLED


@given(wants, alerts, st.integers(0, 400))
def test_a_missed_alert_is_told_by_its_first_revision_that_passes(wants: Wants, one: Alert, days: int) -> None:
    """Whether it opens or grows makes no difference to whoever has not heard of it."""
    opened, grew = (one.model_copy(update={"status": s}) for s in (Status.OPEN, Status.UPDATE))
    now_ns = NOW_NS + days * 3600 * NS
    assert left_out(wants, opened, (), now_ns) == left_out(wants, grew, (), now_ns)


@given(
    st.integers(0, 400 * 24 * 60),
    st.times(),
    st.times(),
    st.sampled_from(["Europe/Berlin", "Asia/Kathmandu", "America/St_Johns", "Pacific/Apia"]),
)
def test_quiet_hours_follow_the_clock_on_the_wall(minutes: int, begin: Any, end: Any, zone: str) -> None:
    """Through both changes of summer time: from ``begin`` the hours run until ``end`` comes."""
    if begin == end:
        return
    then = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    wall = then.astimezone(ZoneInfo(zone)).time()
    since_begin, length = (_ahead(begin, other) for other in (wall, end))
    quiet = Quiet(begin=begin, end=end, zone=zone)
    assert quiet.holds(round(then.timestamp()) * NS) == (since_begin < length)


def _ahead(one: Any, other: Any) -> float:
    """Seconds on a clock face from one to the other."""
    seconds = [t.hour * 3600 + t.minute * 60 + t.second + t.microsecond / 1e6 for t in (one, other)]
    return (seconds[1] - seconds[0]) % 86_400


def test_the_first_minute_is_quiet_and_the_last_is_not() -> None:
    quiet, begin = Quiet(**NIGHT), AT_NIGHT - 5 * 3600 * NS
    assert [quiet.holds(begin + s * NS) for s in (-1, 0, 8 * 3600 - 1, 8 * 3600)] == [False, True, True, False]


def test_the_night_of_the_change_to_summer_time() -> None:
    quiet = Quiet(begin="22:00", end="06:00", zone="Europe/Berlin")  # type: ignore[arg-type]
    hours = [datetime(2026, 3, 28, 18, tzinfo=UTC) + timedelta(minutes=30 * n) for n in range(32)]
    held = [then for then in hours if quiet.holds(round(then.timestamp()) * NS)]
    assert (held[0].hour, held[-1].hour, held[-1].minute) == (21, 3, 30)  # 22:00 CET to before 06:00 CEST


@pytest.mark.parametrize(
    "changes", [{"zone": "Mars/Olympus"}, {"zone": ""}, {"zone": "Europe"}, {"end": "22:00"}, {"end": "06:00Z"}]
)
def test_hours_that_mean_nothing(changes: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Quiet(**{**NIGHT, **changes})


@given(
    st.integers(1, 5),
    st.integers(1, 100),
    st.lists(st.integers(0, 60), min_size=1, max_size=60),
)
def test_no_span_has_more_than_the_bucket_gives(burst: int, every_s: int, gaps_s: list[int]) -> None:
    bucket, now_s, taken = Bucket(Rate(burst=burst, every_s=every_s)), 1e6, []
    for gap_s in gaps_s:
        now_s += gap_s
        if bucket.take(now_s, now_s):
            taken.append(now_s)
    for first, begin_s in enumerate(taken):
        for last, end_s in enumerate(taken[first:], first):
            assert last - first + 1 <= burst + (end_s - begin_s) / every_s + 1e-6


@given(st.integers(1, 5), st.floats(0.1, 100))
def test_a_full_bucket_gives_all_of_it_and_one_more_in_time(burst: int, every_s: float) -> None:
    bucket = Bucket(Rate(burst=burst, every_s=every_s))
    assert [bucket.take(5.0, 5.0) for _ in range(burst + 1)] == [True] * burst + [False]
    assert not bucket.take(5.0 + 0.9 * every_s, 5.0 + 0.9 * every_s)
    assert bucket.take(5.0 + 1.1 * every_s, 5.0 + 1.1 * every_s)


def test_those_that_a_dead_server_held_up_are_as_far_apart_as_they_were_made() -> None:
    bucket = Bucket(Rate(burst=2, every_s=60))
    assert all(bucket.take(60.0 * number, 8 * 3600.0) for number in range(500))
    assert [bucket.take(30_000.0, 8 * 3600.0) for _ in range(3)] == [True, True, False]


def test_a_daemon_whose_clock_was_set_back_is_still_heard() -> None:
    bucket = Bucket(Rate(burst=1, every_s=60))
    assert bucket.take(7200.0, 0.0)
    assert [bucket.take(3600.0 + later, later) for later in (30.0, 60.0, 120.0)] == [False, True, True]


def test_quiet_hours_are_those_of_the_alert_and_not_of_its_turn() -> None:
    later_ns = NOW_NS + 12 * 3600 * NS
    assert left_out(Wants(quiet=Quiet(**NIGHT)), at(NOW_NS), (), later_ns) is LeftOut.QUIET
    assert left_out(Wants(quiet=Quiet(**NIGHT)), at(later_ns), (), NOW_NS + 24 * 3600 * NS) is None


def test_a_false_alarm_that_was_told_is_taken_back_whatever_the_rate() -> None:
    bucket = Bucket(Rate(burst=1, every_s=3600))
    assert decide(Wants(), at(NOW_NS), (), bucket, NOW_NS, 0.0) is None
    assert decide(Wants(), at(NOW_NS, name="b"), (), bucket, NOW_NS, 1.0) is LeftOut.RATE
    cancelled = at(NOW_NS, revision=1, status=Status.CANCELLED)
    assert decide(Wants(), cancelled, TOLD, bucket, NOW_NS, 2.0) is None


def test_what_is_not_sent_costs_no_token() -> None:
    bucket = Bucket(Rate(burst=1, every_s=3600))
    assert decide(Wants(), at(NOW_NS, stale=True), (), bucket, NOW_NS, 0.0) is LeftOut.STALE
    assert decide(Wants(), at(NOW_NS), (), bucket, NOW_NS, 0.0, muted=True) is LeftOut.MUTED
    assert decide(Wants(), at(NOW_NS), (), bucket, NOW_NS, 1.0) is None


def test_a_mute_stands_above_quiet_hours_and_below_a_false_alarm_that_was_told() -> None:
    quiet = Quiet(**NIGHT, min_stations=1)  # which would let it through
    assert left_out(Wants(quiet=quiet), at(NOW_NS), (), NOW_NS, muted=True) is LeftOut.MUTED
    assert left_out(Wants(quiet=Quiet(**NIGHT)), at(NOW_NS), (), NOW_NS, muted=True) is LeftOut.MUTED
    assert left_out(Wants(), at(NOW_NS, stale=True), (), NOW_NS, muted=True) is LeftOut.STALE
    cancelled = at(NOW_NS, revision=1, status=Status.CANCELLED)
    assert left_out(Wants(), cancelled, TOLD, NOW_NS, muted=True) is None


def test_classes_of_magnitude_are_those_of_the_models() -> None:
    for name in MAGNITUDE_HEAD.classes:
        assert Quiet(**NIGHT, magnitudes=(name,)).excepts(at(AT_NIGHT, characterisation=sized(name)))
    assert likeliest(at(NOW_NS, characterisation=Characterisation(magnitude=None, azimuth=None))) is None
