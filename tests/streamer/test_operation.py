"""Which thresholds and hop a daemon runs at: the model's, by name, and what its configuration gives instead."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from quake.data.spec import ModelSpec
from quake.data.spec_file import read_spec
from streamer.composition import load_scorer, model_path, publish_settings
from streamer.config import Config, ConfigError, resolve
from streamer.operation import Operation


def settings(**tables: Any) -> Config:
    return resolve({"source": [{"servers": ["seedlink://x"], "select": ["*.*"]}], **tables}, Path("quake.toml"))


SHIPPED = read_spec(model_path(settings())).model_dump(exclude={"operating_points", "hop_s"})
POINTS = [
    {"name": "quiet", "on": 0.98, "off": 0.49, "in_a_row": 3, "aim_an_hour": 0.1, "false_alarms": 2, "hours": 20.0},
    {"name": "standard", "on": 0.9, "off": 0.45, "in_a_row": 2, "aim_an_hour": 1.0, "false_alarms": 19, "hours": 20.0},
]


@pytest.fixture
def plain() -> ModelSpec:
    return ModelSpec.model_validate({**SHIPPED, "thresholds": {"on": 0.8, "off": 0.3}})


@pytest.fixture
def pointed() -> ModelSpec:
    changes = {"thresholds": {"on": 0.9, "off": 0.45}, "operating_points": POINTS, "hop_s": 0.5}
    return ModelSpec.model_validate({**SHIPPED, **changes})


def decision(one: Operation) -> tuple[float, float, int, float]:
    return one.on, one.off, one.in_a_row, one.hop_s


def test_a_model_without_points_decides_by_its_thresholds(plain: ModelSpec) -> None:
    one = Operation.of(settings(), plain)
    assert decision(one) == (0.8, 0.3, 2, 1.0)
    assert str(one).startswith("no operating point")
    given = settings(trigger={"on": 0.2, "in_a_row": 1}, windows={"hop_s": 2.0})
    assert decision(Operation.of(given, plain)) == (0.2, 0.2, 1, 2.0)  # an off above on is lowered to it
    assert not Operation.of(given, plain).is_other_hop


def test_standard_holds_where_nobody_names_a_point(pointed: ModelSpec) -> None:
    assert decision(Operation.of(settings(), pointed)) == (0.9, 0.45, 2, 0.5)
    quiet = Operation.of(settings(trigger={"operating_point": "quiet"}), pointed)
    assert decision(quiet) == (0.98, 0.49, 3, 0.5)


@pytest.mark.parametrize(
    ("tables", "changed"),
    [
        ({"trigger": {"on": 0.95}}, "trigger.on"),
        ({"trigger": {"off": 0.2}}, "trigger.off"),
        ({"trigger": {"in_a_row": 4}}, "trigger.in_a_row"),
        ({"windows": {"hop_s": 0.25}}, "windows.hop_s"),
    ],
)
def test_what_is_given_stands_above_the_point_one_by_one(
    tables: dict[str, dict[str, float]], changed: str, pointed: ModelSpec
) -> None:
    one, as_it_is = Operation.of(settings(**tables), pointed), Operation.of(settings(), pointed)
    (given,) = [value for table in tables.values() for value in table.values()]
    assert set(decision(one)) - set(decision(as_it_is)) == {given}
    assert one.changed == (changed,)
    assert str(one) == f"operating point standard, with another {changed}: false alarms not counted"


def test_the_false_alarms_are_told_with_their_interval(pointed: ModelSpec) -> None:
    assert str(Operation.of(settings(), pointed)) == (
        "operating point standard: 0.95 false alarms an hour a station (95 % 0.572 to 1.48; 19 in 20 h)"
    )
    quiet = Operation.of(settings(trigger={"operating_point": "quiet"}), pointed)
    assert str(quiet).endswith("0.1 false alarms an hour a station (95 % 0.0121 to 0.361; 2 in 20 h, extrapolated)")


def test_values_that_are_given_as_the_point_has_them_change_nothing(pointed: ModelSpec) -> None:
    given = settings(trigger={"on": 0.9, "off": 0.45, "in_a_row": 2}, windows={"hop_s": 0.5})
    assert Operation.of(given, pointed).changed == ()


def test_the_configuration_as_applied_gives_the_same_again(pointed: ModelSpec) -> None:
    one = Operation.of(settings(trigger={"operating_point": "quiet", "off": 0.1}), pointed)
    config = one.applied(settings())
    assert config.trigger.operating_point == "quiet"
    assert Operation.of(config, pointed) == one


@pytest.mark.parametrize("has_points", [True, False])
def test_a_name_that_the_model_lacks_is_told_with_those_it_has(
    has_points: bool, pointed: ModelSpec, plain: ModelSpec
) -> None:
    known = "quiet, standard" if has_points else "none"
    told = f"trigger.operating_point: no operating point 'loud'; the model has {known}"
    with pytest.raises(ConfigError, match=told):
        Operation.of(settings(trigger={"operating_point": "loud"}), pointed if has_points else plain)


@pytest.mark.parametrize(("hop_s", "warnings"), [(None, 0), (0.5, 0), (1.0, 1)])
def test_the_daemon_runs_at_the_point_and_warns_of_another_hop_once(
    hop_s: float | None,
    warnings: int,
    pointed: ModelSpec,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("quake.artifact.parse_spec", lambda *_: pointed)
    windows = {"hop_s": hop_s} if hop_s else {}
    with caplog.at_level(logging.WARNING):
        scorer = load_scorer(settings(trigger={"operating_point": "quiet"}, windows=windows))
    assert (scorer.thresholds.on, scorer.thresholds.off, scorer.thresholds.in_a_row) == (0.98, 0.49, 3)
    assert scorer.grid.hop == round(100 * (hop_s or 0.5))
    assert scorer.thresholds.dead_k == round(15 / (hop_s or 0.5))
    assert publish_settings(settings(), scorer).dead_ms == 15_000
    told = [record.message for record in caplog.records if "measured at a hop of 0.5 s, not 1 s" in record.message]
    assert len(told) == len(caplog.records) == warnings
