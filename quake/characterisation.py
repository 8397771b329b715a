"""From a characteriser's answer to what an alert says: a head speaks only where it may, and else says why not.

What is not here: the model (`quake.artifact`), and who knows a station's gain and orientation (its configuration).
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from quake.alerts import Characterisation
from quake.data.spec import AZIMUTH_HEAD, MAGNITUDE_HEAD, Head, ModelSpec

NO_GAIN = "the station's gain is not known"
NO_ORIENTATION = "the direction of the station's horizontals is not known"


def characterisation(
    spec: ModelSpec, probabilities: NDArray[Any], *, gain_known: bool, oriented: bool
) -> Characterisation:
    """``probabilities``: (classes of all heads,) of one window.

    A head that the model has switched off, a magnitude without a known gain and a back-azimuth without a known
    orientation are null, with the reason. ValueError for a model without the heads magnitude and azimuth.
    """
    missing = {
        MAGNITUDE_HEAD.name: "" if gain_known else NO_GAIN,
        AZIMUTH_HEAD.name: "" if oriented else NO_ORIENTATION,
    }
    heads = {head.name: head for head in spec.heads}
    if set(heads) != set(missing):
        raise ValueError(f"a characteriser has the heads {', '.join(missing)}, not {', '.join(heads)}")
    unknown = {name: heads[name].reason_off or reason for name, reason in missing.items()}
    said = {name: _by_class(heads[name], found) for name, found in spec.by_head(probabilities).items()}
    return Characterisation(
        magnitude=None if unknown[MAGNITUDE_HEAD.name] else said[MAGNITUDE_HEAD.name],
        azimuth=None if unknown[AZIMUTH_HEAD.name] else said[AZIMUTH_HEAD.name],
        unknown={name: reason for name, reason in unknown.items() if reason},
    )


def _by_class(head: Head, probabilities: NDArray[Any]) -> dict[str, float]:
    return {name: float(value) for name, value in zip(head.classes, probabilities, strict=True)}
