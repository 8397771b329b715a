"""Temperature scaling: one number by which logits are divided so that probabilities mean what they say.

The model's order of windows stays, and with it every figure that goes by the order. What is not here: the division
(`quake.artifact.CompiledModel.score`), measuring calibration (`trainer.evaluation.metrics`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, logit

from quake.data.decision import Thresholds
from quake.data.seisbench import DataError
from quake.data.spec import Calibration, ModelSpec

Floats = NDArray[np.floating]

LARGEST = 50.0
"""Temperatures are sought from one over this to this: an optimum beyond means nothing."""
EDGE = 1.05
"""Nearer to an end of that range than this factor, the optimum is taken to lie beyond."""


def negative_log_likelihood(logits: Sequence[Floats], targets: Sequence[Floats], temperature: float) -> float:
    """Mean over the known windows of all heads, in nats. Each (B, classes); a target row of zeros is not known."""
    known = sum(float(truth.sum()) for truth in targets)
    lost = sum(
        float((truth * log_softmax(np.asarray(answers, np.float64) / temperature, axis=1)).sum())
        for answers, truth in zip(logits, targets, strict=True)
    )
    return -lost / known


def fit_temperature(logits: Sequence[Floats], targets: Sequence[Floats]) -> Calibration:
    """The temperature under which the targets are most likely.

    ``logits`` and ``targets``: of each head (B, classes), of windows that the network was not fitted on; logarithms of
    probabilities do as well as logits. A head whose known windows are all of one class says nothing of temperature and
    is not asked. DataError where no head is left, a logit is not finite, or no temperature is best: windows that are
    all told right want ever lower ones, windows that are told at random ever higher ones.
    """
    pairs = [_known(answers, truth) for answers, truth in zip(logits, targets, strict=True)]
    pairs = [(answers, truth) for answers, truth in pairs if len(np.unique(truth.argmax(axis=1))) > 1]
    if not pairs:
        raise DataError("a temperature is fitted on windows of at least two classes of one head")
    answers, truths = zip(*pairs, strict=True)
    if not all(np.isfinite(part).all() for part in answers):
        raise DataError("a temperature cannot be fitted: a logit is not finite")
    if all((part.argmax(axis=1) == truth.argmax(axis=1)).all() for part, truth in pairs):
        raise DataError("a temperature cannot be fitted: all windows are told right, and none can be too sure")
    end = float(np.log(LARGEST))
    found = minimize_scalar(
        lambda log_t: negative_log_likelihood(answers, truths, float(np.exp(log_t))),
        bounds=(-end, end),
        method="bounded",
        options={"xatol": 1e-6},
    )
    if abs(found.x) > end - np.log(EDGE):
        raise DataError(f"a temperature cannot be fitted: none between {1 / LARGEST:g} and {LARGEST:g} is best")
    best = min(float(np.exp(found.x)), 1.0, key=lambda t: negative_log_likelihood(answers, truths, t))
    return Calibration(method="temperature", temperature=best)


def rescale_threshold(probability: float, old_temperature: float, new_temperature: float) -> float:
    """The probability, under the new temperature, of what had ``probability`` under the old one; two classes."""
    return float(expit(logit(probability) * old_temperature / new_temperature))


def with_calibration(spec: ModelSpec, calibration: Calibration) -> ModelSpec:
    """The spec with that calibration, and thresholds that part the same windows as before."""
    old, new = spec.calibration.temperature, calibration.temperature
    changes: dict[str, object] = {"calibration": calibration}
    if spec.thresholds:
        changes["thresholds"] = Thresholds(
            on=rescale_threshold(spec.thresholds.on, old, new), off=rescale_threshold(spec.thresholds.off, old, new)
        )
    return spec.model_copy(update=changes)


def _known(answers: Floats, truth: Floats) -> tuple[Floats, Floats]:
    known = truth.sum(axis=1) > 0
    return answers[known], truth[known]
