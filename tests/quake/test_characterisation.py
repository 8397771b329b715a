"""What an alert says of size and direction, and why it says nothing."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from quake.alerts import Characterisation
from quake.characterisation import (
    NO_GAIN,
    NO_ORIENTATION,
    NOT_WHOLE,
    characterisation,
    combined,
    require_heads,
    unknown,
)
from quake.data.decision import Thresholds
from quake.data.spec import AZIMUTH_HEAD, EVENT_HEAD, MAGNITUDE_HEAD, Head, ModelSpec, Stft

ANSWER = np.array([0.1, 0.2, 0.3, 0.4, *[0.05] * 4, 0.6, *[0.05] * 4], np.float32)
OFF = "no better than the polarisation of P"


def spec(azimuth: Head = AZIMUTH_HEAD) -> ModelSpec:
    return ModelSpec(
        name="characteriser",
        version="1.0.0",
        task="characterise",
        architecture="none",
        components=("Z", "N", "E"),
        sampling_rate_hz=100.0,
        window_samples=2080,
        stft=Stft(nperseg=64, hop=32, window="hann"),
        heads=(MAGNITUDE_HEAD, azimuth),
        training_data=(),
    )


def said_of(of: ModelSpec, *, gain_known: bool, oriented: bool) -> Characterisation:
    return characterisation(of, ANSWER, unknown(of, gain_known=gain_known, oriented=oriented, whole=True))


def test_both_heads_speak_where_gain_and_orientation_are_known() -> None:
    said = said_of(spec(), gain_known=True, oriented=True)
    assert said.magnitude == pytest.approx({"Large": 0.1, "Medium": 0.2, "Moderate": 0.3, "Normal": 0.4})
    assert said.azimuth is not None
    assert said.azimuth["Normal"] == pytest.approx(0.6)
    assert said.unknown == {}


def test_the_first_reason_is_told() -> None:
    """Of what would have to change first."""
    off = spec(AZIMUTH_HEAD.model_copy(update={"reason_off": OFF}))
    assert unknown(off, gain_known=False, oriented=False, whole=False) == {"magnitude": NO_GAIN, "azimuth": OFF}
    assert unknown(spec(), gain_known=True, oriented=True, whole=False) == {
        "magnitude": NOT_WHOLE,
        "azimuth": NOT_WHOLE,
    }
    assert unknown(spec(), gain_known=True, oriented=True, whole=True) == {}


def test_other_classes_of_magnitude_are_refused() -> None:
    """Stations that were asked of two models are averaged."""
    odd = spec().model_copy(
        update={"heads": (MAGNITUDE_HEAD.model_copy(update={"classes": ("Big", "Small")}), AZIMUTH_HEAD)}
    )
    with pytest.raises(ValueError, match="magnitude has the classes Large, Medium, Moderate, Normal, not Big, Small"):
        require_heads(odd)


def test_nobody_was_asked() -> None:
    assert combined([]) is None


def test_what_is_not_known_is_null_with_the_reason() -> None:
    said = said_of(spec(), gain_known=False, oriented=False)
    assert (said.magnitude, said.azimuth) == (None, None)
    assert said.unknown == {"magnitude": NO_GAIN, "azimuth": NO_ORIENTATION}


def test_a_head_that_is_off_says_why_whatever_is_known_of_the_station() -> None:
    off = AZIMUTH_HEAD.model_copy(update={"reason_off": OFF})
    said = said_of(spec(off), gain_known=True, oriented=True)
    assert (said.azimuth, said.unknown) == (None, {"azimuth": OFF})
    assert said.magnitude is not None
    assert Characterisation.model_validate_json(said.model_dump_json()) == said


def test_a_head_that_is_on_is_written_as_before() -> None:
    off = AZIMUTH_HEAD.model_copy(update={"reason_off": OFF})
    assert "reason_off" not in spec().model_dump_json()
    assert ModelSpec.model_validate_json(spec(off).model_dump_json()).heads[1].reason_off == OFF


def test_a_detectors_head_cannot_be_off() -> None:
    known = spec().model_dump() | {"task": "detect", "thresholds": Thresholds(on=0.9, off=0.4)}
    with pytest.raises(ValidationError, match="the head of a detector cannot be off"):
        ModelSpec.model_validate(known | {"heads": [EVENT_HEAD.model_copy(update={"reason_off": OFF})]})


def test_a_detector_characterises_nothing() -> None:
    one = spec().model_copy(update={"heads": (EVENT_HEAD,)})
    with pytest.raises(ValueError, match="has the heads magnitude, azimuth, not event"):
        require_heads(one)
