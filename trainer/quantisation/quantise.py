"""`quantise`: a compiled model as an int8 ONNX file that says what it lost and what it gained.

Skill and speed are measured on ONNX Runtime before and after, and stand in the spec; a model that lost more than the
recipe allows is not written. What is not here: where windows come from, and what skill is (both the caller's).
"""

from __future__ import annotations

import hashlib
import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import nn

from quake.artifact import CompiledModel, ModelError, ModelSpec, Probe, Skill, compile_model, export_onnx, read_spec
from quake.backends.onnx import weights_sha256
from quake.backends.torchscript import read_network
from quake.data.onnx_metadata import find_metadata, without
from quake.data.spec_file import SPEC_MEMBER, read_content, with_spec
from quake.probe import INT8_TOLERANCE
from trainer.card import model_card
from trainer.quantisation.post_training import PostTraining, dynamic, static
from trainer.quantisation.qat import Relearning, relearn
from trainer.quantisation.speed import LARGER_BATCH, Speed, windows_per_second
from trainer.section import RecipeError

BATCH = 32
"""Windows, where answers are compared."""


class QuantisationError(ModelError):
    """A model that loses more than the recipe allows."""


class Quantisation(PostTraining):
    """Which model becomes int8, how, and what it may lose."""

    model: Path = Field(description="compiled TorchScript model")
    method: Literal["dynamic", "static", "qat"] = Field(
        default="static", description="qat: the network first learns to bear the rounding, then static"
    )
    calibration_windows: int = Field(default=128, ge=8, description="real ones of training, that ranges are taken from")
    largest_loss: float = Field(default=0.01, ge=0, description="of skill; a model that loses more is not written")
    qat: Relearning = Relearning()

    @model_validator(mode="after")
    def _as_learned(self) -> Self:
        if self.method == "qat" and not self.per_channel:
            raise ValueError("qat learns with a step for each output channel: per_channel must be true")
        return self


@dataclass(frozen=True, slots=True)
class Measure:
    """What skill is; more is better."""

    data: str
    """What it is measured on, as the card names it."""
    name: str
    of: Callable[[CompiledModel], float]


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of a model."""

    skill: float
    speed: Speed
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Result:
    """A model that was written, and what was found of it."""

    path: Path
    card: Path
    before: Figures
    """Of the float model, on ONNX Runtime as the other."""
    after: Figures
    largest_difference: float
    """Of a probability, on the calibration windows."""
    mean_difference: float
    """Of the probability that differs most in each window."""


def quantise(
    config: Quantisation,
    folder: Path,
    images: NDArray[np.float32],
    measure: Measure,
    network: nn.Module | None = None,
    seed: int = 0,
) -> Result:
    """Write ``NAME-int8.onnx`` and its card, ``NAME-int8.md``, into ``folder``, NAME being the model's.

    ``images``: (N, C, H, W) float32 spectrograms of ``config.calibration_windows`` windows. ``network``: for qat, one of
    the model's architecture, which is given the model's weights. QuantisationError for a model that loses more than it
    may, ModelError for one that cannot be used, RecipeError for settings that do not fit it; then nothing is written.
    """
    spec = read_spec(config.model)
    _check_images(config, spec, images)
    with tempfile.TemporaryDirectory(prefix="quake-int8-") as name:
        scratch = Path(name)
        exported = export_onnx(config.model)
        source = exported if config.method != "qat" else _relearned(config, spec, images, network, seed, scratch)
        model_before = _load(scratch / "float.onnx", exported)
        bare = _int8(config, _bare(source), images)
        unasked = spec.model_copy(update={"probe": None})  # what it holds are the float network's answers
        model_after = _load(scratch / "int8.onnx", _with_spec(bare, unasked))
        before, after = _figures(config, (model_before, model_after), images, measure)
        differences = _differences(model_before, model_after, images)  # (N,)
        own = model_after.probe(INT8_TOLERANCE)
    path, card = (folder / f"{spec.name}-int8.{end}" for end in ("onnx", "md"))
    result = Result(path, card, before, after, float(differences.max()), float(differences.mean()))
    _write(result, _with_spec(bare, _described(config, spec, measure, result, own)))
    return result


def _check_images(config: Quantisation, spec: ModelSpec, images: NDArray[np.float32]) -> None:
    if images.shape[1:] != spec.input_shape or images.dtype != np.float32 or not len(images):
        found = f"{images.dtype} of shape {images.shape}"
        raise ModelError(f"{config.model}: reads float32 of shape (N, *{spec.input_shape}); the images are {found}")
    if not np.isfinite(images).all():
        raise ModelError(f"{config.model}: the images to calibrate with hold NaN or infinity")


def _relearned(
    config: Quantisation,
    spec: ModelSpec,
    images: NDArray[np.float32],
    network: nn.Module | None,
    seed: int,
    scratch: Path,
) -> bytes:
    """The float network that bears rounding, for ONNX Runtime."""
    if network is None:
        raise RecipeError("quantisation.method: qat needs the network that the model was compiled from")
    compiled = read_network(config.model, read_content(config.model), spec, "cpu")
    try:
        network.load_state_dict(compiled.state_dict())
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ModelError(f"{config.model}: its weights are not those of {type(network).__name__}: {reason}") from error
    learned = relearn(network.cpu(), images, config.qat, seed, config.symmetric, config.reduce_range)
    path = scratch / "relearned.pt"
    path.write_bytes(compile_model(learned, spec, images[:BATCH]))
    return export_onnx(path)


def _int8(config: Quantisation, bare: bytes, images: NDArray[np.float32]) -> bytes:
    return dynamic(bare, config) if config.method == "dynamic" else static(bare, images, config)


def _bare(content: bytes) -> bytes:
    return without(content, find_metadata(content, SPEC_MEMBER)[0])


def _with_spec(bare: bytes, spec: ModelSpec) -> bytes:
    return with_spec(bare, spec.model_copy(update={"weights_sha256": weights_sha256(bare)}))


def _load(path: Path, content: bytes) -> CompiledModel:
    path.write_bytes(content)
    return CompiledModel.load(path, "cpu", threads=1)


def _figures(
    config: Quantisation,
    models: tuple[CompiledModel, CompiledModel],
    images: NDArray[np.float32],
    measure: Measure,
) -> tuple[Figures, Figures]:
    """Before and after. QuantisationError where too much was lost."""
    before, after = (measure.of(model) for model in models)
    if not before - after <= config.largest_loss:  # so is a skill that is no number
        raise QuantisationError(
            f"{config.model}: {measure.name} on {measure.data} is {after:.4g} in int8 ({config.method}), "
            f"was {before:.4g}; the recipe allows a loss of {config.largest_loss:g}"
        )
    sizes = [model.path.stat().st_size for model in models]
    speeds = windows_per_second(models, images)
    first, second = (Figures(*row) for row in zip((before, after), speeds, sizes, strict=True))
    return first, second


def _differences(one: CompiledModel, other: CompiledModel, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N,) of the probability that differs most."""
    batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    return np.concatenate([np.abs(one.score(batch) - other.score(batch)).max(axis=1) for batch in batches])


def _described(config: Quantisation, spec: ModelSpec, measure: Measure, result: Result, own: Probe) -> ModelSpec:
    """The spec of the int8 model: what was said of the float one is called so."""
    known = [skill.model_copy(update={"note": "; ".join(filter(None, (skill.note, "float")))}) for skill in spec.skill]
    update = {
        "architecture": f"{spec.architecture}; int8 ({config.method})",
        "skill": (*known, *_skill(config, measure, result)),
        "operating_points": (),  # their alarms were counted with the float network
        "compilation": None,  # it states how near the float network is
        "probe": own,
        "built_with": {**spec.built_with, **{name: version(name) for name in ("onnx", "onnxruntime")}},
    }
    return ModelSpec.model_validate({**spec.model_dump(), **update})


def _skill(config: Quantisation, measure: Measure, result: Result) -> Iterator[Skill]:
    where = "calibration windows"
    machine = f"one thread of {platform.machine()}, ONNX Runtime; to be compared with each other alone"
    for kind, of in (("float", result.before), (f"int8, {config.method}", result.after)):
        yield Skill(data=measure.data, measure=measure.name, value=of.skill, note=f"{kind}, ONNX Runtime")
        for batch, rate in ((1, of.speed.one), (LARGER_BATCH, of.speed.eight)):
            name = f"windows a second in batches of {batch}"
            yield Skill(data=where, measure=name, value=round(rate, 1), note=f"{kind}; {machine}")
    for name, value in (("largest", result.largest_difference), ("mean", result.mean_difference)):
        yield Skill(data=where, measure=f"{name} difference of a probability", value=value, note="int8 from float")


def _write(result: Result, content: bytes) -> None:
    """The model is checked under another name; it takes its own when its card stands."""
    result.path.parent.mkdir(parents=True, exist_ok=True)
    unchecked = result.path.with_suffix(".tmp")
    try:
        spec = _load(unchecked, content).spec
        result.card.write_text(model_card(spec, hashlib.sha256(content).hexdigest()), encoding="utf-8")
        unchecked.replace(result.path)
    finally:
        unchecked.unlink(missing_ok=True)
