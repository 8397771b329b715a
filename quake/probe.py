"""A model's own test windows: made by rule, so that a file need only state what its network answered to them.

Each load asks them again: weights that are whole, in a runtime that computes otherwise, score like another model.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quake.backends import Backend, first_line
from quake.data.spec import ModelError, ModelSpec, Probe
from quake.data.spectrogram import spectrogram

SEED = 33
ONSETS = (None, 0.5, 0.8, 0.95)
"""Of the test windows: noise, and an onset at that share of the window."""
GROWTH, DECAY = 20.0, 0.15
"""At an onset the noise grows by so much, which falls to 1/e within that share of the window: a detector answers one of
these with little, one with nearly one, one in between."""
FLOAT_TOLERANCE, INT8_TOLERANCE = 0.02, 0.2
"""Of a probability: processors and graphics cards round otherwise, and int8 kernels saturate on some."""


def probe_windows(spec: ModelSpec) -> NDArray[np.float32]:
    """(4, components, N) samples in the spec's unit: white noise, which in three of them grows and decays."""
    noise = np.random.RandomState(SEED).standard_normal((len(ONSETS), *spec.window_shape))  # its numbers never change
    share = np.arange(spec.window_samples) / spec.window_samples
    windows = noise * np.stack([_envelope(share, onset) for onset in ONSETS])[:, np.newaxis]
    return np.asarray(_deviation(spec) * windows, np.float32)


def _envelope(share: NDArray[np.float64], onset: float | None) -> NDArray[np.float64]:
    if onset is None:
        return np.ones_like(share)
    since = np.maximum(share - onset, 0)
    return 1 + GROWTH * np.exp(-since / DECAY) * (share >= onset)


def probe(backend: Backend, spec: ModelSpec, tolerance: float = FLOAT_TOLERANCE) -> Probe:
    """What the network answers to its test windows, for the spec. ModelError where it answers nothing."""
    found = _answers(backend, spec)
    if not np.isfinite(found).all():
        raise ModelError(f"{spec.name}: the network answers NaN to its own test windows")
    return Probe(answers=tuple(tuple(round(float(p), 6) for p in row) for row in found), tolerance=tolerance)


def check_probe(path: Path, backend: Backend, spec: ModelSpec) -> None:
    """ModelError where the network answers otherwise than the spec states; a spec that states nothing is not asked."""
    if spec.probe is None:
        return
    difference = float(np.abs(_answers(backend, spec) - spec.probe.answers).max())
    if not difference <= spec.probe.tolerance:  # NaN neither
        raise ModelError(
            f"{path}: on its own test windows a probability differs by {difference:.3g} from what the file states "
            f"(allowed: {spec.probe.tolerance:g}); the runtime or this machine computes otherwise"
        )


def _answers(backend: Backend, spec: ModelSpec) -> NDArray[np.float32]:
    """(4, classes of all heads)."""
    images = spectrogram(probe_windows(spec), spec.spectrogram)
    try:
        return probabilities(backend, spec, images)
    except Exception as error:  # a network can raise what it likes
        raise ModelError(f"{spec.name}: the network refuses its own test windows: {first_line(error)}") from error


def probabilities(backend: Backend, spec: ModelSpec, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """(B, channels, height, width) -> (B, classes of all heads); NaN where logits are infinite."""
    temperature = np.float32(spec.calibration.temperature)
    with np.errstate(invalid="ignore"):
        heads = [softmax(logits / temperature) for logits in backend.logits(images)]
    return np.concatenate(heads, axis=1, dtype=np.float32)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(B, classes) -> (B, classes): `scipy.special.softmax` to the last bit, without what importing that takes of a start."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def _deviation(spec: ModelSpec) -> float:
    """Of noise whose density is in the middle of the range where densities are clipped to one."""
    if spec.decibels is None:
        return 1.0
    middle = 10 ** ((spec.decibels.floor + spec.decibels.ceiling) / 20)  # unit^2/Hz
    return math.sqrt(middle * spec.sampling_rate_hz / 2)
