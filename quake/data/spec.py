"""What a compiled model says about itself: the spec that travels inside the file as the zip member ``quake.json``.

Reading one needs no torch. The network and its checks are in `quake.artifact`, which also hands on the names of this
module.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from quake.data.spectrogram import SpectrogramShape

SPEC_VERSION = 1
SPEC_MEMBER = "quake.json"
MAX_SPEC_BYTES = 1 << 20
"""A spec is some kilobytes: what claims more is not one."""

Text = Annotated[str, StringConstraints(min_length=1)]
Probability = Annotated[float, Field(ge=0, le=1)]


class ModelError(Exception):
    """A model file that cannot be used: names the file, what is wrong, and what was expected."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Stft(_Section):
    """Short-time Fourier transform, not padded."""

    nperseg: int = Field(ge=2, description="samples a frame")
    hop: int = Field(ge=1, description="samples from one frame to the next")
    window: Text = Field(description="taper, by its name in scipy.signal.get_window; periodic")


class Head(_Section):
    """One output of the network: logits in the order of ``classes``."""

    name: Text
    classes: tuple[Text, ...] = Field(min_length=2)


class Thresholds(_Section):
    """Recommended probabilities of the last class at which a detection begins and ends."""

    on: Probability
    off: Probability

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.off > self.on:
            raise ValueError(f"off {self.off} is above on {self.on}")
        return self


class Calibration(_Section):
    """How logits become probabilities: softmax(logits / temperature)."""

    method: Literal["none", "temperature"] = "none"
    temperature: float = Field(default=1.0, gt=0)


class TrainingSource(_Section):
    """Data that a model was fitted on."""

    name: Text
    licence: Text
    citation: Text


class Skill(_Section):
    """One measured figure with its 95 % interval, where one was computed."""

    data: Text
    measure: Text
    value: float
    low: float | None = None
    high: float | None = None
    note: str = ""


class ModelSpec(_Section):
    """What a compiled model is, reads and answers. Version 1."""

    spec_version: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    version: str = Field(pattern=r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?$", description="semver")
    task: Literal["detect", "characterise"]
    architecture: Text
    components: tuple[Text, ...] = Field(min_length=1, description="order of the components in a window")
    sampling_rate_hz: float = Field(gt=0)
    window_samples: int = Field(ge=2, description="samples a window")
    stft: Stft
    normalisation: Literal["zscore_component"] = "zscore_component"
    representation: Literal["log1p_magnitude"] = "log1p_magnitude"
    gain: float = Field(gt=0, description="the magnitude is multiplied by this before log1p")
    heads: tuple[Head, ...] = Field(min_length=1, max_length=1)
    thresholds: Thresholds
    calibration: Calibration = Calibration()
    training_data: tuple[TrainingSource, ...]
    skill: tuple[Skill, ...] = ()
    weights_sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$", description="empty until compiled")
    built_with: Mapping[str, str] = Field(default={}, description="versions of the programs that built the file")

    @property
    def spectrogram(self) -> SpectrogramShape:
        return SpectrogramShape(self.stft.nperseg, self.stft.hop, self.stft.window, self.gain)

    @property
    def window_shape(self) -> tuple[int, int]:
        """(components, samples) of one window."""
        return len(self.components), self.window_samples

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(components, frequencies, frames) of one spectrogram."""
        shape = self.spectrogram
        return len(self.components), shape.frequencies, shape.frames(self.window_samples)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.heads[0].classes


def read_spec(path: str | Path) -> ModelSpec:
    """The spec of a model file, read as a zip member: no torch. ModelError where there is none that is understood."""
    return parse_spec(Path(path), read_content(Path(path)))


def read_content(path: Path) -> bytes:
    """ModelError where the file cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error


def parse_spec(path: Path, content: bytes) -> ModelSpec:
    """The spec in a model file's content; ``path`` is what errors name. ModelError where it is none that is known."""
    try:
        raw = json.loads(_spec_bytes(path, content))
    except ValueError as error:
        raise ModelError(f"{path}: its spec is not JSON: {error}") from error
    version = raw.get("spec_version") if isinstance(raw, dict) else None
    if version != SPEC_VERSION:
        raise ModelError(f"{path}: spec version {version!r} is not known (this program reads {SPEC_VERSION})")
    try:
        spec = ModelSpec.model_validate_json(json.dumps(raw))
        spec.input_shape  # noqa: B018  # a window shorter than a frame, a taper nobody knows
        spec.spectrogram.taper()
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'spec'}: {e['msg']}" for e in error.errors())
        raise ModelError(f"{path}: its spec is wrong: {reasons}") from error
    except ValueError as error:
        raise ModelError(f"{path}: its spec is wrong: {error}") from error
    return spec


def _spec_bytes(path: Path, content: bytes) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            broken = archive.testzip()
            members = [item for item in archive.infolist() if item.filename.endswith(f"/extra/{SPEC_MEMBER}")]
            if broken is None and len(members) == 1 and members[0].file_size <= MAX_SPEC_BYTES:
                return archive.read(members[0])
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise ModelError(f"{path}: not a TorchScript file, or truncated ({len(content)} bytes): {error}") from error
    if broken is not None:
        raise ModelError(f"{path}: damaged: {broken} does not match its checksum")
    raise ModelError(f"{path}: has no spec (one member extra/{SPEC_MEMBER} was expected, {len(members)} usable found)")
