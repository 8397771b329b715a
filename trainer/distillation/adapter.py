"""The adapter file: how a TorchScript picker is fed, and how its answer becomes "an earthquake is in the window".

A picker answers a probability of P, of S, or of an earthquake for each sample. An adapter file (TOML) says which samples it
reads, how they are normalised, what its outputs mean and how they are reduced to one number for the student's window.
`trainer/recipes/pickers/` has examples. What is not here: loading the network and running it (`trainer.distillation.picker`).
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator
from scipy import signal

from quake.faults import faults
from trainer.distillation.reading import Reading
from trainer.section import Positive, RecipeError, Section

Windows = NDArray[np.float64]
"""(B, components, samples)."""
PHASES = ("P", "S")
"""Classes that `Output.along` knows by their names."""
ROUNDING = 1e-6
"""A probability may be this much off 0 and 1."""


class BandPass(Section):
    """Butterworth filter, begun anew in each window at zero."""

    low_hz: Positive
    high_hz: Positive
    corners: int = Field(default=4, ge=1, le=10)
    zero_phase: bool = Field(default=False, description="forwards and backwards: twice the corners, no delay")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.high_hz <= self.low_hz:
            raise ValueError(f"high_hz {self.high_hz:g} is not above low_hz {self.low_hz:g}")
        return self

    def apply(self, windows: Windows, rate_hz: float) -> Windows:
        """Their mean should be removed: a step from zero rings."""
        sections = signal.butter(self.corners, (self.low_hz, self.high_hz), "bandpass", fs=rate_hz, output="sos")
        once: Windows = signal.sosfilt(sections, windows, axis=-1)
        return signal.sosfilt(sections, once[..., ::-1], axis=-1)[..., ::-1] if self.zero_phase else once


class Normalisation(Section):
    """What is done to a window, in the order of the fields. A component that is zero throughout stays so."""

    demean: bool = True
    detrend: bool = Field(default=False, description="take off the line that fits best")
    scale: Literal["none", "deviation", "peak"] = Field(
        default="deviation", description="divided by: the standard deviation (over N - 1), or the largest magnitude"
    )
    per: Literal["component", "window"] = Field(default="component", description="one scale for each, or one for all")
    taper_samples: int = Field(default=0, ge=0, description="under half a cosine, at each end")

    def apply(self, windows: Windows) -> Windows:
        if self.demean:
            windows = windows - windows.mean(axis=-1, keepdims=True)
        if self.detrend:
            windows = signal.detrend(windows, axis=-1)
        windows = windows / self._scale(windows)
        if self.taper_samples:
            ramp = (1 - np.cos(np.linspace(0, np.pi, self.taper_samples))) / 2  # 0 to 1
            windows[..., : self.taper_samples] *= ramp
            windows[..., -self.taper_samples :] *= ramp[::-1]
        return windows

    def _scale(self, windows: Windows) -> Windows | float:
        """(B, components or 1, 1)."""
        axes = (-1,) if self.per == "component" else (-2, -1)
        if self.scale == "none":
            return 1.0
        magnitude = np.abs(windows).max(axis=axes, keepdims=True)
        size = magnitude if self.scale == "peak" else windows.std(axis=axes, keepdims=True, ddof=1)
        return np.where(size > 0, size, 1.0)


class Output(Section):
    """What the network answers, and how it becomes one probability."""

    layout: Literal["class_time", "time_class", "separate", "class"] = Field(
        description="(B, classes, T); (B, T, classes); a tuple or dict of one (B, T) for each class; (B, classes)"
    )
    entry: int | str | None = Field(
        default=None, description="place or key of the answer, where the network answers several; not with separate"
    )
    classes: tuple[str, ...] = Field(min_length=1, description="in the order of the answer; the keys of a dict")
    activation: Literal["none", "softmax", "sigmoid"] = Field(
        default="none", description="that the network leaves to be done; none: it answers probabilities"
    )
    earthquake: tuple[str, ...] = Field(min_length=1, description="classes that tell of an earthquake")
    reduce: Literal["max", "mean"] = Field(default="max", description="over the samples, of the largest of the classes")
    within_s: Positive | None = Field(
        default=None, description="before the end of the student's window; all of that window, if not given"
    )
    threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.5, description="the picker's number at which an earthquake is as likely as not"
    )
    pick_threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.3, description="the picker's number from which `label` takes its word for a P or an S"
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        unknown = [name for name in self.earthquake if name not in self.classes]
        if unknown or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"earthquake {'/'.join(self.earthquake)} is not of classes {'/'.join(self.classes)}")
        if self.layout == "separate" and (self.activation == "softmax" or self.entry is not None):
            raise ValueError("separate outputs have neither a softmax among them nor an entry")
        return self

    def probability(self, answer: Any, share: float) -> NDArray[np.float64]:
        """What the network answered to a batch -> (B,) of an earthquake in the last ``share`` of the picker's window.

        ValueError for an answer of another structure or shape, and for numbers that are no probabilities.
        """
        traces = self._activated(self._traces(answer)).double().cpu().numpy()  # (B, classes, T)
        kept = max(1, round(traces.shape[2] * share))
        chosen = traces[:, [self.classes.index(name) for name in self.earthquake], -kept:].max(axis=1)  # (B, kept)
        reduced: NDArray[np.float64] = chosen.max(axis=1) if self.reduce == "max" else chosen.mean(axis=1)
        reduced = _probabilities(reduced)
        likely = reduced * (1 - self.threshold)
        return likely / (likely + (1 - reduced) * self.threshold)  # the odds over those of threshold

    def along(self, answer: Any, length: int) -> NDArray[np.float64]:
        """What the network answered to a batch -> (B, 3, length) of P, of S, and of an earthquake otherwise told of.

        ``length``: samples of the picker's window at another rate, if its answer has one. Zeros for what no class
        tells. ValueError as `probability` has it.
        """
        traces = self._activated(self._traces(answer)).double().cpu().numpy()  # (B, classes, T)
        others = [name for name in self.earthquake if name not in PHASES]
        kinds = [*([phase] if phase in self.classes else [] for phase in PHASES), others]
        places = [[self.classes.index(name) for name in kind] for kind in kinds]
        rows = [traces[:, place].max(axis=1) if place else np.zeros_like(traces[:, 0]) for place in places]
        times = np.arange(length) * traces.shape[2] // length  # (length,) indices of the answer
        return _probabilities(np.stack(rows, axis=1))[..., times]

    def _traces(self, answer: Any) -> torch.Tensor:
        """(B, classes, T) float32."""
        if self.layout == "separate":
            places = self.classes if isinstance(answer, dict) else range(len(self.classes))
            parts = [_tensor(_entry(answer, place)) for place in places]
            traces = torch.stack([part.reshape(len(part), -1) for part in parts], dim=1)  # also of (B, 1, T)
        else:
            traces = _tensor(answer if self.entry is None else _entry(answer, self.entry))
            traces = traces.transpose(-1, -2) if self.layout == "time_class" else traces
            traces = traces[..., None] if self.layout == "class" else traces
        if traces.ndim != 3 or traces.shape[1] != len(self.classes) or not traces.shape[2]:
            raise ValueError(
                f"answers {tuple(traces.shape)}, not (B, {len(self.classes)} classes, T), as {self.layout}"
            )
        return traces.float()

    def _activated(self, traces: torch.Tensor) -> torch.Tensor:
        if self.activation == "none":
            return traces
        return traces.softmax(dim=1) if self.activation == "softmax" else traces.sigmoid()


class Adapter(Section):
    """How a TorchScript picker of another project is fed and read."""

    network: Path = Field(description="TorchScript file; relative paths count from the adapter file's folder")
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-fA-F]{64}$", description="pin of the network's file")
    sampling_rate_hz: Positive
    window_samples: int = Field(ge=2, description="at that rate")
    components: str = Field(min_length=1, description="letters in the network's order: ZNE, ENZ, Z")
    band_pass: BandPass | None = Field(default=None, description="before the normalisation")
    normalisation: Normalisation = Normalisation()
    output: Output

    @model_validator(mode="after")
    def _readable(self) -> Self:
        self.reading  # noqa: B018  # says what is wrong with components and rate
        if self.band_pass and self.band_pass.high_hz >= self.sampling_rate_hz / 2:
            raise ValueError(f"high_hz {self.band_pass.high_hz:g} is not below half of {self.sampling_rate_hz:g} Hz")
        if 2 * self.normalisation.taper_samples > self.window_samples:
            raise ValueError("the tapers are longer than the window")
        return self

    @property
    def reading(self) -> Reading:
        return Reading(tuple(self.components), self.sampling_rate_hz, self.window_samples)

    def prepare(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, 3, n) Z, N, E at 100 Hz -> (B, components, window_samples) as the network reads them."""
        windows = self.reading.read(samples).astype(np.float64)
        if self.band_pass:
            windows = self.band_pass.apply(windows - windows.mean(axis=-1, keepdims=True), self.sampling_rate_hz)
        return self.normalisation.apply(windows).astype(np.float32)


def read_adapter(path: Path) -> Adapter:
    """RecipeError names file and key; the network's path is made absolute or relative to here."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        adapter = Adapter.model_validate(content)
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not TOML: {error}") from error
    except ValidationError as error:
        raise RecipeError("\n".join(f"{path}: {fault}" for fault in faults(error, Adapter))) from error
    return adapter.model_copy(update={"network": path.parent / adapter.network})


def _probabilities(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if not ((values >= -ROUNDING) & (values <= 1 + ROUNDING)).all():
        raise ValueError(f"answers {values.min():g} to {values.max():g}: no probability (is activation right?)")
    return np.clip(values, 0, 1)


def _entry(answer: Any, place: int | str) -> Any:
    try:
        return answer[place]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"its answer, a {type(answer).__name__}, has no entry {place!r}") from error


def _tensor(part: Any) -> torch.Tensor:
    if not isinstance(part, torch.Tensor) or not part.ndim:
        raise ValueError(f"its answer holds a {type(part).__name__} where a tensor was expected")
    return part
