"""From a characteriser's answer to what an alert says: a head speaks only where it may, and else says why not.

What is not here: the model (`quake.artifact`), and who knows a station's gain and orientation (its configuration).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from quake.alerts import Characterisation
from quake.data.spec import AZIMUTH_HEAD, MAGNITUDE_HEAD, Head, ModelSpec

NO_GAIN = "the station's gain is not known"
NO_ORIENTATION = "the direction of the station's horizontals is not known"
NOT_WHOLE = "a component is missing, or has a gap"
OF_A_STATION = "a back-azimuth is a station's, not an event's"


def require_heads(spec: ModelSpec) -> None:
    """ValueError for a model without the heads magnitude and azimuth, or with other classes: stations that were asked of two
    models are averaged."""
    wanted, found = (
        {head.name: head.classes for head in heads} for heads in ((MAGNITUDE_HEAD, AZIMUTH_HEAD), spec.heads)
    )
    if set(found) != set(wanted):
        raise ValueError(f"a characteriser has the heads {', '.join(wanted)}, not {', '.join(found)}")
    for name, classes in found.items():
        if classes != wanted[name]:
            raise ValueError(
                f"a characteriser's {name} has the classes {', '.join(wanted[name])}, not {', '.join(classes)}"
            )


def unknown(spec: ModelSpec, *, gain_known: bool, oriented: bool, whole: bool) -> dict[str, str]:
    """Why a head says null, by its name: it is switched off, a back-azimuth lacks the station's orientation, both lack its gain,
    or the window is not ``whole``. Heads that may speak are left out."""
    of_both = NO_GAIN if not gain_known else "" if whole else NOT_WHOLE
    of_its_own = {AZIMUTH_HEAD.name: "" if oriented else NO_ORIENTATION}
    reasons = {head.name: head.reason_off or of_its_own.get(head.name) or of_both for head in spec.heads}
    return {name: reason for name, reason in reasons.items() if reason}


def characterisation(spec: ModelSpec, probabilities: NDArray[Any], silent: Mapping[str, str]) -> Characterisation:
    """``probabilities``: (classes of all heads,) of one window; ``silent``: as `unknown` gives it."""
    heads = {head.name: head for head in spec.heads}
    said = {
        name: _by_class(heads[name], found) for name, found in spec.by_head(probabilities).items() if name not in silent
    }
    return Characterisation(
        magnitude=said.get(MAGNITUDE_HEAD.name), azimuth=said.get(AZIMUTH_HEAD.name), unknown=dict(silent)
    )


def nothing(spec: ModelSpec, silent: Mapping[str, str], otherwise: str) -> Characterisation:
    """Null from every head; ``otherwise``: why those say nothing that might."""
    reasons = {head.name: silent.get(head.name, otherwise) for head in spec.heads}
    return Characterisation(magnitude=None, azimuth=None, unknown=reasons)


def newer(before: Characterisation | None, found: Characterisation) -> Characterisation:
    """What stands of a detection: a size that was told is not taken back by a window that tells none."""
    if before is not None and before.magnitude is not None and found.magnitude is None:
        return before
    return found


def combined(found: Sequence[Characterisation]) -> Characterisation | None:
    """Of an event: the mean over the stations that tell a magnitude. None where no station was asked."""
    if not found:
        return None
    silent = {AZIMUTH_HEAD.name: OF_A_STATION}
    sizes = [one.magnitude for one in found if one.magnitude is not None]
    if not sizes:
        reasons = Counter(one.unknown.get(MAGNITUDE_HEAD.name, "") for one in found)
        reason = max(sorted(reasons), key=reasons.__getitem__)
        return Characterisation(magnitude=None, azimuth=None, unknown={MAGNITUDE_HEAD.name: reason, **silent})
    mean = {name: sum(size[name] for size in sizes) / len(sizes) for name in sizes[0]}
    return Characterisation(magnitude=mean, azimuth=None, unknown=silent)


def _by_class(head: Head, probabilities: NDArray[Any]) -> dict[str, float]:
    return {name: float(value) for name, value in zip(head.classes, probabilities, strict=True)}
