"""A clock that nobody disciplines is told once, and again when that changes."""

from __future__ import annotations

import logging

import pytest

from streamer.host_clock import EVERY_S, ClockState, HostClock, clock_state
from streamer.metrics import Metrics


def test_the_kernel_answers() -> None:
    state = clock_state()
    assert state is None or state.largest_error_s >= 0


def test_changes_are_told_and_metrics_always(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    metrics, now = Metrics(10), [0.0]
    states = [ClockState(True, 0.01), ClockState(False, 16.0), ClockState(False, 16.0), ClockState(True, 0.02), None]
    clock = HostClock(metrics, lambda: states.pop(0), lambda: now[0])
    told = []
    for _ in range(5):
        caplog.clear()
        clock.tick()
        clock.tick()  # too soon
        told.append([record.levelname for record in caplog.records])
        now[0] += EVERY_S
    assert told == [[], ["WARNING"], [], ["INFO"], []]
    assert metrics.registry.get_sample_value("quake_clock_synchronised") == 1
    assert metrics.registry.get_sample_value("quake_clock_error_seconds") == 0.02
