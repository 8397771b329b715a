"""What a compiled model says about itself: the spec that travels inside the file.

How it is read out of one is in `quake.data.spec_file`; the network and its checks are in `quake.artifact`, which also hands
on the names of this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise, permutations
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from quake.data.decision import STANDARD, OperatingPoint, Section, Text, Thresholds
from quake.data.spectrogram import SpectrogramShape

MAX_SAMPLES = 10_000_000
"""Of a window or a frame, and pixels of an image: a day at 100 Hz. More would be asked of memory before anything else
could refuse it."""
MAX_PARTS = 4_096
"""Components, heads, and classes of a head."""


class ModelError(Exception):
    """A model file that cannot be used: names the file, what is wrong, and what was expected."""


class Stft(Section):
    """Short-time Fourier transform."""

    nperseg: int = Field(ge=2, le=MAX_SAMPLES, description="samples a frame")
    hop: int = Field(ge=1, le=MAX_SAMPLES, description="samples from one frame to the next")
    window: Text = Field(description="taper, by its name in scipy.signal.get_window; periodic")
    padded: bool = Field(default=False, description="zeros at both ends, as scipy.signal.stft puts them")


class Image(Section):
    """The size that spectrograms are brought to for networks that were made for photographs."""

    height: int = Field(ge=1, le=MAX_SAMPLES)
    width: int = Field(ge=1, le=MAX_SAMPLES)
    normalisation: Literal["none", "imagenet"] = "none"
    resized: tuple[int, int] | None = Field(
        default=None, description="height and width before the middle is cut out; without it nothing is"
    )

    @model_validator(mode="after")
    def _holds_the_middle(self) -> Self:
        if self.resized is not None and (self.resized[0] < self.height or self.resized[1] < self.width):
            raise ValueError(f"{self.height} x {self.width} cannot be cut out of {self.resized[0]} x {self.resized[1]}")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Where nothing is cropped, what programs that know no cropping read, too."""
        content: dict[str, Any] = serialise(self)
        if self.resized is None:
            content.pop("resized", None)
        return content


class Decibels(Section):
    """What a spectral density is clipped to, in dB of unit**2/Hz."""

    floor: float
    ceiling: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.ceiling <= self.floor:
            raise ValueError(f"ceiling {self.ceiling} is not above floor {self.floor}")
        return self


class Head(Section):
    """One output of the network: logits in the order of ``classes``."""

    name: Text
    classes: tuple[Text, ...] = Field(min_length=2, max_length=MAX_PARTS)
    lower_bounds: tuple[float, ...] = Field(
        default=(), description="of classes that are ranges, highest first: one for each class but the last"
    )
    reason_off: str = Field(default="", description="why nobody is to be told its answers; empty: they are given")

    @model_serializer(mode="wrap")
    def _as_before(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A head that is on is what programs that know no other read, too."""
        content: dict[str, Any] = serialise(self)
        if not self.reason_off:
            content.pop("reason_off", None)
        return content

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"a class stands twice in {self.name}")
        if self.lower_bounds and len(self.lower_bounds) != len(self.classes) - 1:
            raise ValueError(f"{len(self.lower_bounds)} lower bounds for {len(self.classes)} classes of {self.name}")
        if any(above <= below for above, below in pairwise(self.lower_bounds)):
            raise ValueError(f"the lower bounds of {self.name} do not fall: {self.lower_bounds}")
        return self


EVENT_HEAD = Head(name="event", classes=("noise", "earthquake"))
"""Of a detector."""
MAGNITUDE_HEAD = Head(name="magnitude", classes=("Large", "Medium", "Moderate", "Normal"), lower_bounds=(6.0, 5.0, 4.0))
"""Large from 6.0, Medium from 5.0, Moderate from 4.0; Normal below, or no event."""
AZIMUTH_HEAD = Head(name="azimuth", classes=("E", "N", "NE", "NW", "Normal", "S", "SE", "SW", "W"))
"""Back-azimuth, station to event, in sectors of 45 degrees centred on their names; Normal: no event."""


class Calibration(Section):
    """How logits become probabilities: softmax(logits / temperature)."""

    method: Literal["none", "temperature"] = "none"
    temperature: float = Field(default=1.0, gt=0)


class TrainingSource(Section):
    """Data that a model was fitted on."""

    name: Text
    licence: Text
    citation: Text


class Skill(Section):
    """One measured figure with its 95 % interval, where one was computed."""

    data: Text
    measure: Text
    value: float
    low: float | None = None
    high: float | None = None
    note: str = ""


class Compilation(Section):
    """How the file came about: largest differences of a probability between the compiled and the eager network."""

    method: Literal["trace", "script"]
    difference_real: float = Field(description="on the examples that compile_model was given")
    difference_random: float = Field(description="on noise with the examples' mean and deviation at each pixel")


class Probe(Section):
    """What the network answered, when the file was written, to the windows of `quake.probe.probe_windows`."""

    rule: Literal[1] = Field(default=1, description="how those windows are made")
    answers: tuple[tuple[float, ...], ...] = Field(
        min_length=4, max_length=4, description="probabilities of all heads' classes, a row a window"
    )
    tolerance: float = Field(gt=0, lt=1, description="of a probability: a file that answers otherwise is refused")


class ModelSpec(Section):
    """What a compiled model is, reads and answers. Version 1."""

    spec_version: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    version: str = Field(pattern=r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?$", description="semver")
    task: Literal["detect", "characterise"]
    architecture: Text
    components: tuple[Text, ...] = Field(
        min_length=1, max_length=MAX_PARTS, description="order of the components in a window"
    )
    sampling_rate_hz: float = Field(gt=0)
    window_samples: int = Field(ge=2, le=MAX_SAMPLES, description="samples a window")
    unit: Text = Field(default="any", description="of the samples: any, or what densities are measured in, as m/s")
    stft: Stft
    taper_fraction: float = Field(default=0.0, ge=0, le=1, description="share of the window under a Tukey taper")
    normalisation: Literal["none", "demean", "zscore_component", "zscore_difference", "zscore_window"] = (
        "zscore_component"
    )
    representation: Literal["magnitude", "power", "log1p_magnitude", "log1p_contrast", "decibel", "cross_decibel"] = (
        "log1p_magnitude"
    )
    gain: float = Field(default=1.0, gt=0, description="the magnitude is multiplied by this before log1p")
    decibels: Decibels | None = Field(default=None, description="range of the representations in decibels")
    image: Image | None = None
    heads: tuple[Head, ...] = Field(min_length=1, max_length=MAX_PARTS)
    thresholds: Thresholds | None = Field(default=None, description="a detector has them")
    operating_points: tuple[OperatingPoint, ...] = Field(
        default=(), description="of a detector, by name; the thresholds are those of `standard`"
    )
    hop_s: float | None = Field(default=None, gt=0, description="between the windows that points and skill rest on")
    calibration: Calibration = Calibration()
    training_data: tuple[TrainingSource, ...]
    skill: tuple[Skill, ...] = ()
    compilation: Compilation | None = None
    probe: Probe | None = Field(default=None, description="the model's own test windows; older files have none")
    weights_sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$", description="empty until compiled")
    built_with: Mapping[str, str] = Field(default={}, description="versions of the programs that built the file")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        names = [head.name for head in self.heads]
        if len(set(names)) != len(names):
            raise ValueError(f"a head stands twice: {', '.join(names)}")
        if self.task == "detect" and (self.thresholds is None or len(self.heads) != 1):
            raise ValueError("a detector has thresholds and one head")
        if self.task == "detect" and self.heads[0].reason_off:
            raise ValueError("the head of a detector cannot be off")
        if len(set(self.components)) != len(self.components):
            raise ValueError(f"a component stands twice: {'/'.join(self.components)}")
        if self.calibration.method == "none" and self.calibration.temperature != 1:
            raise ValueError(f"calibration none with the temperature {self.calibration.temperature:g}")
        self._check_decibels()
        if self.probe and any(len(row) != len(self.classes) for row in self.probe.answers):
            raise ValueError(f"the answers to the test windows are not of the {len(self.classes)} classes")
        if self.operating_points:
            self._check_points(self.operating_points)
        return self

    def _check_points(self, points: tuple[OperatingPoint, ...]) -> None:
        if self.task != "detect" or self.hop_s is None:
            raise ValueError("operating points are a detector's, and need the hop that they were measured at")
        if len({point.name for point in points}) != len(points):
            raise ValueError(f"an operating point stands twice: {', '.join(point.name for point in points)}")
        for one, other in permutations(points, 2):
            if one.in_a_row <= other.in_a_row and one.aim_an_hour < other.aim_an_hour and one.on < other.on:
                raise ValueError(
                    f"operating point {one.name} is to give fewer false alarms than {other.name}, and has a lower on"
                )
        if self.thresholds != self.point(STANDARD).thresholds:
            raise ValueError(f"the thresholds are not those of the operating point {STANDARD}")

    def _check_decibels(self) -> None:
        if (self.decibels is not None) != self.representation.endswith("decibel"):
            raise ValueError(f"the representation {self.representation} and a range in decibels do not go together")
        if self.decibels and (self.unit == "any" or self.normalisation.startswith("zscore")):
            raise ValueError(f"decibels need samples in a unit, not {self.normalisation} of {self.unit}")
        if self.representation == "cross_decibel" and self.components != ("Z", "N", "E"):
            raise ValueError(f"cross_decibel reads Z/N/E, not {'/'.join(self.components)}")

    @model_serializer(mode="wrap")
    def _as_before(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Where there are no operating points or test windows, what programs that know none read, too."""
        content: dict[str, Any] = serialise(self)
        for name in ("operating_points", "hop_s", "probe"):
            if not content.get(name):
                content.pop(name, None)
        return content

    def point(self, name: str) -> OperatingPoint:
        """The operating point of that name. ValueError where there is none, with the names that there are."""
        known = {point.name: point for point in self.operating_points}
        if name not in known:
            raise ValueError(f"no operating point {name!r}; the model has {', '.join(known) or 'none'}")
        return known[name]

    @property
    def spectrogram(self) -> SpectrogramShape:
        optional = (
            {} if self.decibels is None else {"floor_db": self.decibels.floor, "ceiling_db": self.decibels.ceiling}
        )
        return SpectrogramShape(
            nperseg=self.stft.nperseg,
            hop=self.stft.hop,
            window=self.stft.window,
            gain=self.gain,
            padded=self.stft.padded,
            taper_fraction=self.taper_fraction,
            normalisation=self.normalisation,
            representation=self.representation,
            sampling_rate_hz=self.sampling_rate_hz,
            image_size=(self.image.height, self.image.width) if self.image else None,
            image_normalisation=self.image.normalisation if self.image else "none",
            resized_size=self.image.resized if self.image else None,
            **optional,
        )

    @property
    def window_shape(self) -> tuple[int, int]:
        """(components, samples) of one window."""
        return len(self.components), self.window_samples

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what the network reads: components, frequencies and frames if it is no image."""
        return self.spectrogram.input_shape(len(self.components), self.window_samples)

    @property
    def classes(self) -> tuple[str, ...]:
        """Of all heads, one after the other: the columns of an answer."""
        return tuple(name for head in self.heads for name in head.classes)

    def by_head(self, probabilities: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """(B, classes of all heads) -> by the head's name (B, its classes)."""
        ends = np.cumsum([len(head.classes) for head in self.heads])[:-1]
        parts = np.split(probabilities, ends, axis=-1)
        return {head.name: part for head, part in zip(self.heads, parts, strict=True)}
