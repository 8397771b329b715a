"""The compiled model: one file = a network and everything needed to feed it rightly.

`ModelSpec` states what a network reads and answers. `CompiledModel.load` checks pin, structure and spec before a
runtime sees a byte, then weights and shapes. A TorchScript file is a program all the same: load only what you trust.
A trial in a child process (`quake.trial`) keeps one that is broken from taking this process along, and no more than that.
`compile_model` writes such files, `export_onnx` makes ONNX ones of them. What is not here: batching, the time axis,
decisions.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from quake.backends import Backend, first_line
from quake.compilation import compile_model, export_onnx
from quake.data.decision import OperatingPoint, Thresholds
from quake.data.spec import (
    AZIMUTH_HEAD,
    EVENT_HEAD,
    MAGNITUDE_HEAD,
    Calibration,
    Compilation,
    Decibels,
    Head,
    Image,
    ModelError,
    ModelSpec,
    Probe,
    Skill,
    Stft,
    TrainingSource,
)
from quake.data.spec_file import is_torchscript, parse_spec, read_content, read_spec
from quake.data.spectrogram import spectrogram
from quake.probe import check_probe, probabilities, probe, probe_windows
from quake.trial import Trial

if TYPE_CHECKING:
    from quake.device import OnDevice

__all__ = [
    "AZIMUTH_HEAD",
    "EVENT_HEAD",
    "MAGNITUDE_HEAD",
    "Calibration",
    "Compilation",
    "CompiledModel",
    "Decibels",
    "Head",
    "Image",
    "ModelError",
    "ModelSpec",
    "OperatingPoint",
    "Probe",
    "Skill",
    "Stft",
    "Thresholds",
    "TrainingSource",
    "compile_model",
    "export_onnx",
    "read_spec",
]

DEVICES = ("auto", "cpu", "cuda")
BACKENDS = ("torchscript", "onnxruntime")

log = logging.getLogger(__name__)


class CompiledModel:
    """A loaded network with its spec. Made by `load`; scoring is safe from one thread at a time."""

    def __init__(self, path: Path, spec: ModelSpec, sha256: str, backend: Backend) -> None:
        self.path = path
        self.spec = spec
        self.sha256 = sha256
        """Of the file: what alerts name."""
        self._backend = backend
        self._on_device: OnDevice | None = None
        """Where there is one, what `predict` asks."""

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        backend: Literal["torchscript", "onnxruntime"] | None = None,
        *,
        sha256: str | None = None,
        threads: int | None = None,
        trial: bool = False,
    ) -> CompiledModel:
        """Load a model file.

        ``backend``: what the file is for; None goes by the file. ``sha256``: pin; the file must have it. ``threads``:
        CPU threads, with torch set for the whole process. ``trial``: a file that is not pinned is opened in a limited
        child process first, which may crash or hang in this one's place (`quake.trial`). ModelError for a file that
        cannot be used; ValueError for a device or a backend that is not there; ImportError where the backend is not
        installed.
        """
        path = Path(path)
        if device not in DEVICES:
            raise ValueError(f"device {device!r} is none of {', '.join(DEVICES)}")
        content = read_content(path)
        digest = hashlib.sha256(content).hexdigest()
        if sha256 is not None and digest != sha256.lower():
            raise ModelError(f"{path}: sha256 is {digest}, pinned is {sha256}")
        spec = parse_spec(path, content)
        with Trial(path, content) if trial and sha256 is None else nullcontext() as held:
            load_backend = importer(path, content, backend)  # takes as long as the trial, and beside it
            if held is not None:
                held.check()
        model = cls(path, spec, digest, load_backend(path, content, spec, device, threads))
        model._check_answer()
        check_probe(path, model._backend, spec)
        model._go_on_device()
        return model

    @property
    def device(self) -> str:
        """cpu or cuda."""
        return self._backend.device

    def transform(self, windows: NDArray[np.float32], components: Sequence[str] | None = None) -> NDArray[np.float32]:
        """(B, components, N) float32 samples in the spec's unit -> (B, channels, height, width) float32.

        A component that is missing is zeros; one that does not vary is seen as missing. ``components``: the order of
        the windows' components, where the caller wants it held against the spec's. ValueError for another order, shape
        or dtype, NaN or infinity.
        """
        self._check_windows(windows, components)
        return spectrogram(windows, self.spec.spectrogram)

    def score(self, spectrograms: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, channels, height, width) float32 -> (B, classes) float32 probabilities, in the order of ``spec.classes``.

        Those of each head add up to one; ``spec.by_head`` tells heads apart. ValueError for another shape or dtype, NaN
        or infinity.
        """
        _check("spectrograms", spectrograms, self.spec.input_shape)
        answer = self._probabilities(spectrograms)
        if not np.isfinite(answer).all():
            raise ValueError(
                f"spectrograms are beyond what the network can add up: up to {np.abs(spectrograms).max():g}"
            )
        return answer

    def predict(self, windows: NDArray[np.float32], components: Sequence[str] | None = None) -> NDArray[np.float32]:
        """`transform`, then `score`: (B, components, N) -> (B, classes). On a GPU both happen there (`quake.device`)."""
        if self._on_device is None:
            return self.score(self.transform(windows, components))
        self._check_windows(windows, components)
        answer = self._on_device.predict(windows)
        if not np.isfinite(answer).all():
            raise ValueError(f"windows are beyond what the network can add up: up to {np.abs(windows).max():g}")
        return answer

    def warm_up(self, batch_sizes: Iterable[int]) -> None:
        """Ask in the given batch sizes, so that no live window pays for the first calls' compilation."""
        for size in batch_sizes:
            if self._on_device is not None:
                self._on_device.warm_up(size)
                continue
            for _ in range(3):  # torch's profiling executor compiles within the first two calls of a shape
                self._probabilities(np.zeros((size, *self.spec.input_shape), np.float32))

    def _go_on_device(self) -> None:
        """`predict` by the device's own transform from here on, where that answers as the two steps do."""
        try:
            on_device = self._backend.on_device(self.spec)
            if on_device is not None:
                windows = probe_windows(self.spec)
                on_device.check(windows, self.predict(windows))
        except Exception as error:  # what a device raises has no common base but this
            log.warning("%s: its transform stays on the processor: %s", self.path, first_line(error))
        else:
            self._on_device = on_device

    def _check_windows(self, windows: NDArray[np.float32], components: Sequence[str] | None) -> None:
        if components is not None and tuple(components) != self.spec.components:
            raise ValueError(f"windows are {'/'.join(components)}, the model reads {'/'.join(self.spec.components)}")
        _check("windows", windows, self.spec.window_shape)

    def _probabilities(self, spectrograms: NDArray[np.float32]) -> NDArray[np.float32]:
        return probabilities(self._backend, self.spec, spectrograms)

    def probe(self, tolerance: float) -> Probe:
        """Its answers to its own test windows, for the spec."""
        return probe(self._backend, self.spec, tolerance)

    def _check_answer(self) -> None:
        """Run two batches through: the spec must be what the network reads and answers, however many windows there are."""
        for batch in (1, 3):
            self._check_batch(batch)

    def _check_batch(self, batch: int) -> None:
        images = np.zeros((batch, *self.spec.input_shape), np.float32)
        expected = [(batch, len(head.classes)) for head in self.spec.heads]
        try:
            answers = self._backend.logits(images)
        except Exception as error:  # a network can raise what it likes
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            message = f"{self.path}: the network refuses the spec's input of shape {self.spec.input_shape}: {reason}"
            raise ModelError(message) from error
        shapes = [answer.shape for answer in answers]
        if shapes != expected:
            raise ModelError(f"{self.path}: the network answers {shapes}, the spec's classes ask for {expected}")
        if not all(np.isfinite(answer).all() for answer in answers):
            raise ModelError(f"{self.path}: the network answers NaN to zeros")


def importer(path: Path, content: bytes, backend: str | None) -> Callable[..., Backend]:
    """What loads a file of that kind. Imports its runtime: not before the file is known to be one."""
    fits = BACKENDS[0] if is_torchscript(content) else BACKENDS[1]
    if backend not in {None, *BACKENDS}:
        raise ValueError(f"backend {backend!r} is none of {', '.join(BACKENDS)}")
    if backend not in {None, fits}:
        raise ValueError(f"{path} is for {fits}, not for {backend}")
    if fits == "torchscript":
        from quake.backends.torchscript import TorchScript

        return TorchScript.load
    from quake.backends.onnx import OnnxRuntime

    return OnnxRuntime.load


def _check(what: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.dtype != np.float32:
        raise ValueError(f"{what} must be float32, not {array.dtype}")
    if array.ndim != len(shape) + 1 or array.shape[1:] != shape or not len(array):
        raise ValueError(f"{what} must have the shape (B, {', '.join(map(str, shape))}), not {array.shape}")
    finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if not finite.all():
        raise ValueError(f"{what} hold NaN or infinity, first in entry {int(np.argmin(finite))} of {len(array)}")
