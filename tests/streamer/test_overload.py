from __future__ import annotations

from streamer.overload import Overload
from streamer.stages import NS


def play(start_lag_s: float, gain: float, seconds: int, full: bool = True) -> list[bool]:
    """``gain``: seconds of lag made good each second."""
    one = Overload(60 * NS)
    return [one.update(s * NS, int((start_lag_s - gain * s) * NS), full, False) for s in range(seconds)]


def test_catching_up_after_an_outage_is_no_overload() -> None:
    assert not any(play(3600, 5.0, 600))


def test_falling_behind_is() -> None:
    dropping = play(30, -0.5, 300)
    assert not any(dropping[:60])  # not beyond the bound yet
    assert dropping[-1]


def test_standing_still_far_behind_is() -> None:
    assert play(600, 0.0, 30)[-1]


def test_a_late_station_with_an_empty_queue_is_not() -> None:
    assert not any(play(600, 0.0, 300, full=False))


def test_dropping_ends_when_the_queue_is_empty_and_not_before() -> None:
    one = Overload(60 * NS)
    for s in range(30):
        one.update(s * NS, 600 * NS, True, False)
    assert one.dropping
    assert one.update(41 * NS, 10 * NS, False, False)
    assert not one.update(42 * NS, 10 * NS, False, True)
    assert not one.update(43 * NS, 600 * NS, True, False)
