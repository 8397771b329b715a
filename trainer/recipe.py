"""The recipe: all that a run depends on, in one TOML file. A wrong key is an error that names the nearest right one.

Relative paths in it count from the folder that it lies in. What is not here: the tables' meaning; each stands beside
the code that it steers.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import tomli_w
from pydantic import Field, ValidationError, model_validator

from quake.data.decision import STANDARD, OperatingPoint, Thresholds
from quake.data.spec import (
    AZIMUTH_HEAD,
    EVENT_HEAD,
    MAGNITUDE_HEAD,
    Decibels,
    Head,
    Image,
    ModelSpec,
    Stft,
    TrainingSource,
)
from quake.faults import faults
from trainer.augmentation.batch import Mixing
from trainer.augmentation.chain import ImageAugmentation, WaveformAugmentation, WaveformChain
from trainer.data.doubt import Doubt
from trainer.data.drawing import Sampling, Windows
from trainer.data.labels import ClassWeighting
from trainer.data.quality import Quality
from trainer.data.record import COMPONENTS, LEAD_S, RATE_HZ
from trainer.data.sources import Source
from trainer.distillation.teachers import Teacher
from trainer.evaluation.scoring import HISTORY_S
from trainer.fitting.fine_tuning import FineTuning
from trainer.fitting.losses import CrossEntropy, Distillation, Loss
from trainer.fitting.optimiser import Optimisation
from trainer.fitting.progressive import Progressive
from trainer.network import Network
from trainer.section import Positive, RecipeError, Section, Share

HEADS: dict[str, tuple[Head, ...]] = {"detect": (EVENT_HEAD,), "characterise": (MAGNITUDE_HEAD, AZIMUTH_HEAD)}
Table = TypeVar("Table", bound=Section)
NO_THRESHOLDS = Thresholds(on=0.9, off=0.45)
"""Of a detector before thresholds are chosen on the development split."""


class Model(Section):
    """What the model says about itself."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", description="what alerts call it")
    version: str = Field(default="0.1.0", description="semver; another major version gives other ids of alerts")
    training_data: tuple[TrainingSource, ...] = Field(
        default=(), description="sources with licences and citations; those that the data sets name, if not given"
    )


class Input(Section):
    """What the network reads; the fields of the model's spec."""

    window_samples: int = Field(default=2080, ge=2, description=f"at {RATE_HZ} Hz")
    unit: str = Field(default="any", min_length=1, description="of the samples: any, or what decibels refer to")
    stft: Stft = Stft(nperseg=64, hop=32, window="hann")
    taper_fraction: Share = Field(default=0.0, description="share of the window under a Tukey taper")
    normalisation: Literal["none", "demean", "zscore_component", "zscore_difference", "zscore_window"] = Field(
        default="zscore_component", description="of the samples, before the transform"
    )
    representation: Literal["magnitude", "power", "log1p_magnitude", "log1p_contrast", "decibel", "cross_decibel"] = (
        Field(default="log1p_magnitude", description="what a pixel is; cross_decibel keeps the sign of motion")
    )
    gain: Positive = Field(default=1e5, description="the magnitude is multiplied by this before log1p")
    decibels: Decibels | None = None
    image: Image | None = None


class Data(Section):
    """What is trained on, and what is measured on."""

    source: tuple[Source, ...] = Field(min_length=1)
    quality: Quality = Quality()
    train: str = Field(default="train", description="split")
    dev: str = Field(default="dev", description="split; what is chosen is chosen on it")
    windows_per_epoch: int | None = Field(default=None, ge=1, description="as many as there are records, if not given")
    dev_windows: int = Field(default=1024, ge=2, description="windows of the development split, the same each epoch")
    leave_out: tuple[str, ...] = Field(
        default=(),
        description="data sets (`source_dataset`) neither trained nor measured on: what does it do where it never was?",
    )
    absent_classes: Mapping[str, tuple[str, ...]] = Field(
        default={}, description="by head: classes that are known to have no member"
    )
    workers: int = Field(default=1, ge=0, description="processes that make windows; 0: the one that fits does")


class Augmentation(Section):
    """Changes of waveforms and images, in this order, and mixtures of finished ones."""

    waveform: tuple[WaveformAugmentation, ...] = ()
    image: tuple[ImageAugmentation, ...] = ()
    mixing: Mixing | None = None


class Evaluation(Section):
    """How the fitted network becomes a model with thresholds, and what the card says about it."""

    keep: Literal["last", "best"] = Field(default="last", description="which checkpoint becomes the model")
    calibrate: bool = Field(default=True, description="fit a temperature on the development split")
    thresholds: Thresholds | None = Field(default=None, description="of a detector; chosen if not given")
    false_alarms_an_hour: Positive = Field(default=3.0, description="of one station, at the chosen thresholds")
    in_a_row: int = Field(
        default=2,
        ge=1,
        description="windows that open a detection: none below `off`, their mean log-odds at or above those of `on`",
    )
    hop_s: Positive = Field(default=1.0, description="seconds between windows when a detector is measured")
    events: bool = Field(default=True, description="measure a detector by earthquakes and hours of noise")
    switched_off: Mapping[str, str] = Field(
        default={}, description="of a characteriser, by head: why nobody is to be told its answers"
    )
    operating_point: tuple[OperatingPoint, ...] = Field(
        default=(), description="measured before, at `hop_s`; `standard` stands in for `thresholds` and `in_a_row`"
    )

    @model_validator(mode="after")
    def _thresholds_once(self) -> Self:
        if self.operating_point and (self.thresholds or not self._standard):
            raise ValueError(f"operating points need one named {STANDARD}, and no thresholds beside it")
        return self

    @property
    def stated(self) -> Thresholds | None:
        """Thresholds that are given, and stay as they are; None: they are to be chosen."""
        return self._standard.thresholds if self._standard else self.thresholds

    @property
    def windows_in_a_row(self) -> int:
        """That open a detection at the thresholds."""
        return self._standard.in_a_row if self._standard else self.in_a_row

    @property
    def _standard(self) -> OperatingPoint | None:
        return next((point for point in self.operating_point if point.name == STANDARD), None)


class Recipe(Section):
    """All that a run depends on; paths count from the folder of the file."""

    task: Literal["detect", "characterise"] = Field(description="event or noise; or classes of magnitude and azimuth")
    model: Model
    input: Input = Input()
    network: Network
    data: Data
    windows: Windows = Windows()
    sampling: Sampling = Sampling()
    doubt: Doubt | None = None
    class_weights: ClassWeighting = Field(default="none", description="of the loss, by how many records a class has")
    augmentation: Augmentation = Augmentation()
    loss: Loss = CrossEntropy(type="cross_entropy")
    optimisation: Optimisation = Optimisation()
    progressive: Progressive | None = None
    fine_tuning: FineTuning | None = None
    teacher: tuple[Teacher, ...] = ()
    distillation: Distillation | None = None
    evaluation: Evaluation = Evaluation()
    seed: int = Field(default=0, ge=0, description="of the first weights and of all that is drawn")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: a GPU where torch finds one")
    threads: int = Field(default=1, ge=1, description="of torch on the CPU; another number, another rounding")
    checkpoint_steps: int | None = Field(default=None, ge=1, description="between checkpoints; each epoch if not given")
    tensorboard: bool = Field(default=True, description="write its files into the run's folder, too")

    @model_validator(mode="after")
    def _teachers_and_distillation(self) -> Self:
        if bool(self.teacher) != (self.distillation is not None):
            raise ValueError("teacher and distillation go together")
        if self.sampling.unlabelled_share and not self.teacher:
            raise ValueError("sampling.unlabelled_share needs a teacher: windows without a label teach nothing alone")
        if self.teacher and (self.augmentation.mixing or (self.progressive and self.progressive.mixup_alpha)):
            raise ValueError("teachers hear windows before they are mixed: no augmentation.mixing with a teacher")
        return self

    @model_validator(mode="after")
    def _doubt_alone(self) -> Self:
        if self.doubt and (self.task != "detect" or self.loss.label_smoothing):
            raise ValueError("doubt is a detector's, in place of loss.label_smoothing, which is to be 0")
        return self

    @model_validator(mode="after")
    def _what_grows_is_there(self) -> Self:
        grows = self.progressive
        if grows and grows.mixup_alpha and not self.augmentation.mixing:
            raise ValueError("progressive.mixup_alpha needs augmentation.mixing")
        if grows and grows.magnitude and not any(c.type == "rand_augment" for c in self.augmentation.image):
            raise ValueError("progressive.magnitude needs rand_augment in augmentation.image")
        return self

    @model_validator(mode="after")
    def _detector_can_be_measured(self) -> Self:
        longest = (LEAD_S - round(HISTORY_S)) * RATE_HZ
        if self.task == "detect" and self.evaluation.events and self.input.window_samples > longest:
            said = f"input.window_samples {self.input.window_samples} are more than {longest}"
            raise ValueError(
                f"{said}: such a detector cannot be measured by events; evaluation.events = false leaves that out"
            )
        return self

    @model_validator(mode="after")
    def _what_is_off_is_there(self) -> Self:
        off, names = self.evaluation.switched_off, [head.name for head in HEADS[self.task]]
        if strange := [name for name in off if self.task == "detect" or name not in names]:
            raise ValueError(f"evaluation.switched_off: no characteriser's head {', '.join(strange)}")
        return self

    @property
    def heads(self) -> tuple[Head, ...]:
        off = self.evaluation.switched_off
        return tuple(head.model_copy(update={"reason_off": off.get(head.name, "")}) for head in HEADS[self.task])

    def spec(self, sources: Sequence[TrainingSource] = ()) -> ModelSpec:
        """Of the model to be; ``sources``: the training data, where the recipe does not name them."""
        return ModelSpec(
            name=self.model.name,
            version=self.model.version,
            task=self.task,
            architecture=self.network.architecture,
            components=tuple(COMPONENTS),
            sampling_rate_hz=float(RATE_HZ),
            heads=self.heads,
            thresholds=(self.evaluation.stated or NO_THRESHOLDS) if self.task == "detect" else None,
            operating_points=self.evaluation.operating_point,
            hop_s=self.evaluation.hop_s if self.evaluation.operating_point else None,
            training_data=self.model.training_data or tuple(sources),
            **dict(self.input),
        )

    def to_toml(self) -> str:
        """With every default spelled out; what is not given at all is left out, since TOML has no word for it."""
        return tomli_w.dumps(_without_none(self.model_dump(mode="json")))


@dataclass(frozen=True, slots=True)
class Located:
    """A recipe, and the folder that its relative paths count from."""

    recipe: Recipe
    folder: Path


def read_recipe(path: Path, changes: Sequence[str] = ()) -> Located:
    """``changes``: ``key.key=value`` in TOML, which stand above the file. RecipeError names file and key."""
    recipe, folder = read_table(path, Recipe, changes)
    try:
        recipe.spec().input_shape  # noqa: B018  # a window shorter than a frame, decibels without a unit
    except ValidationError as error:
        raise RecipeError("\n".join(f"{path}: {fault}" for fault in faults(error, ModelSpec))) from error
    except ValueError as error:
        raise RecipeError(f"{path}: input: {error}") from error
    try:
        WaveformChain(recipe.augmentation.waveform)  # refuses a wrong order now, not when the data are read
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error
    return Located(recipe, folder)


def read_table(path: Path, kind: type[Table], changes: Sequence[str] = ()) -> tuple[Table, Path]:
    """A TOML file as a ``kind``, and the folder that its relative paths count from. Errors as `read_recipe`."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not TOML: {error}") from error
    for change in changes:
        _change(content, change)
    try:
        return kind.model_validate(content), path.resolve().parent
    except ValidationError as error:
        raise RecipeError("\n".join(f"{path}: {fault}" for fault in faults(error, kind))) from error


def _change(content: dict[str, Any], change: str) -> None:
    """Put one ``key.key=value`` into a parsed file; a number as a key is a place in a list."""
    key, given, value = change.partition("=")
    if not given:
        raise RecipeError(f"--set {change}: key=value was expected")
    *path, last = key.strip().split(".")
    table: Any = content
    try:
        for part in path:
            table = table[int(part)] if isinstance(table, list) else table.setdefault(part, {})
        table[int(last) if isinstance(table, list) else last] = _parsed(value.strip())
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise RecipeError(f"--set {change}: there is no such place in the recipe") from error


def _parsed(value: str) -> Any:
    """As TOML reads it; a bare word is a string."""
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return [_without_none(inner) for inner in value] if isinstance(value, list) else value
