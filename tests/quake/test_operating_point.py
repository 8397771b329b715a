"""Named operating points: what their counts say, and that a spec holds only those that go together."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from quake.data.decision import OperatingPoint, Thresholds
from quake.data.spec import ModelSpec

FIELDS: dict[str, Any] = {
    "name": "toy",
    "version": "1.2.3",
    "task": "detect",
    "architecture": "one convolution",
    "components": ("Z", "N", "E"),
    "sampling_rate_hz": 100.0,
    "window_samples": 2080,
    "stft": {"nperseg": 64, "hop": 32, "window": "hann"},
    "heads": ({"name": "event", "classes": ("noise", "earthquake")},),
    "thresholds": {"on": 0.9, "off": 0.45},
    "training_data": (),
}


def point(name: str, on: float, aim_an_hour: float, **changes: Any) -> dict[str, Any]:
    counted = {"in_a_row": 2, "false_alarms": 10, "hours": 20.0}
    return {"name": name, "on": on, "off": on / 2, "aim_an_hour": aim_an_hour, **counted, **changes}


POINTS = (point("quiet", 0.99, 0.1), point("standard", 0.9, 1.0), point("sensitive", 0.6, 10.0))


def spec(**changes: Any) -> ModelSpec:
    return ModelSpec.model_validate({**FIELDS, "operating_points": POINTS, "hop_s": 0.5, **changes})


@pytest.mark.parametrize(
    ("count", "low", "high"), [(0, 0, 3.6889), (1, 0.0253, 5.5716), (3, 0.6187, 8.7673), (10, 4.7954, 18.3904)]
)
def test_the_interval_is_garwoods(count: int, low: float, high: float) -> None:
    """Limits of Poisson means as tables of epidemiology give them."""
    one = OperatingPoint(**point("standard", 0.9, 1.0, false_alarms=count, hours=4.0))
    assert one.an_hour == count / 4
    assert one.interval == pytest.approx((low / 4, high / 4), abs=2e-5)


@pytest.mark.parametrize(("hours", "is_extrapolated"), [(29.9, True), (30.0, False), (31.0, False)])
def test_a_rate_of_which_the_hours_hold_fewer_than_three_alarms_is_extrapolated(
    hours: float, is_extrapolated: bool
) -> None:
    assert OperatingPoint(**point("quiet", 0.9, 0.1, hours=hours)).is_extrapolated is is_extrapolated


def test_a_spec_with_points_survives_json_and_gives_them_by_name() -> None:
    again = ModelSpec.model_validate_json(spec().model_dump_json())
    assert again == spec()
    assert again.hop_s == 0.5
    assert again.point("quiet").thresholds == Thresholds(on=0.99, off=0.495)
    with pytest.raises(ValueError, match="no operating point 'loud'; the model has quiet, standard, sensitive"):
        again.point("loud")


def test_a_spec_without_points_says_no_more_than_before() -> None:
    plain = ModelSpec.model_validate(FIELDS)
    for content in (plain.model_dump(), json.loads(plain.model_dump_json())):
        assert not content.keys() & {"operating_points", "hop_s"}
    with pytest.raises(ValueError, match="no operating point 'quiet'; the model has none"):
        plain.point("quiet")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hop_s": None}, "need the hop that they were measured at"),
        ({"hop_s": 0}, "hop_s"),
        ({"task": "characterise"}, "operating points are a detector's"),
        ({"operating_points": (*POINTS, POINTS[0])}, "stands twice: quiet, standard, sensitive, quiet"),
        ({"operating_points": (POINTS[0], POINTS[2])}, "no operating point 'standard'; the model has quiet, sensitive"),
        ({"thresholds": {"on": 0.9, "off": 0.4}}, "the thresholds are not those of the operating point standard"),
        (
            {"operating_points": (point("quiet", 0.89, 0.1), POINTS[1])},
            "quiet is to give fewer false alarms than standard, and has a lower on",
        ),
        (
            {"operating_points": (point("quiet", 0.89, 0.1, in_a_row=1), POINTS[1])},
            "quiet is to give fewer false alarms than standard, and has a lower on",
        ),
        ({"operating_points": (point("standard", 0.9, 1.0, off=0.91),)}, "off 0.91 is above on 0.9"),
        ({"operating_points": (point("standard", 0.9, 1.0, in_a_row=0),)}, "in_a_row"),
        ({"operating_points": (point("standard", 0.9, 1.0, hours=0),)}, "hours"),
        ({"operating_points": (point("standard", 0.9, 1.0, false_alarms=-1),)}, "false_alarms"),
        ({"operating_points": (point("standard", 0.9, 0.0),)}, "aim_an_hour"),
        ({"operating_points": (point("Standard", 0.9, 1.0),)}, "name"),
    ],
)
def test_points_that_do_not_go_together_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        spec(**changes)


def test_more_windows_may_have_to_reach_less() -> None:
    longer = (point("quiet", 0.8, 0.1, in_a_row=8), POINTS[1])
    assert spec(operating_points=longer).point("quiet").in_a_row == 8


def test_points_may_share_thresholds() -> None:
    """A detector that is silent from some probability on gives each rate below the same."""
    both = (point("quiet", 0.9, 0.1), POINTS[1])
    assert spec(operating_points=both).point("quiet").on == 0.9
