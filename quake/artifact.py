"""The compiled model: one TorchScript file = a network and everything needed to feed it rightly.

`ModelSpec` states what a network reads and answers. `CompiledModel.load` checks pin, zip structure and spec before
torch sees a byte, then weights and shapes. A TorchScript file is a program all the same: load only what you trust.
`compile_model` writes such files; weight matrices are stored as float16 and widened at load. What is not here:
batching, the time axis, decisions.
"""

from __future__ import annotations

import copy
import hashlib
import io
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from quake.data.spec import (
    SPEC_MEMBER,
    Calibration,
    Head,
    ModelError,
    ModelSpec,
    Skill,
    Stft,
    Thresholds,
    TrainingSource,
    parse_spec,
    read_content,
    read_spec,
)
from quake.data.spectrogram import spectrogram

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = [
    "Calibration",
    "CompiledModel",
    "Head",
    "ModelError",
    "ModelSpec",
    "Skill",
    "Stft",
    "Thresholds",
    "TrainingSource",
    "compile_model",
    "read_spec",
]

FLOAT16_TOLERANCE = 0.01
"""How far probabilities of the compiled network may be from the eager one's: less than any threshold is known to."""


class CompiledModel:
    """A loaded network with its spec. Made by `load`; scoring is safe from one thread at a time."""

    def __init__(self, path: Path, spec: ModelSpec, sha256: str, network: torch.jit.ScriptModule, device: str) -> None:
        self.path = path
        self.spec = spec
        self.sha256 = sha256
        """Of the file: what alerts name."""
        self.device = device
        self._network = network

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        *,
        sha256: str | None = None,
        threads: int | None = None,
    ) -> CompiledModel:
        """Load a model file.

        ``sha256``: pin; the file must have it. ``threads``: CPU threads of torch, set for the whole process.
        ModelError for a file that cannot be used; ValueError for a device that is not there.
        """
        path = Path(path)
        content = read_content(path)
        digest = hashlib.sha256(content).hexdigest()
        if sha256 is not None and digest != sha256.lower():
            raise ModelError(f"{path}: sha256 is {digest}, pinned is {sha256}")
        spec = parse_spec(path, content)
        where = _choose_device(device, threads)
        network = _load_network(path, content, spec, where)
        model = cls(path, spec, digest, _optimised(network), where)
        model._check_answer()
        return model

    def transform(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, components, N) float32 samples, any unit -> (B, components, frequencies, frames) float32.

        A component that is missing is zeros. ValueError for another shape or dtype, NaN or infinity.
        """
        _check("windows", windows, self.spec.window_shape)
        return spectrogram(windows, self.spec.spectrogram)

    def score(self, spectrograms: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, components, frequencies, frames) float32 -> (B, classes) float32 probabilities, in the order of the head.

        ValueError for another shape or dtype, NaN or infinity.
        """
        _check("spectrograms", spectrograms, self.spec.input_shape)
        answer = self._probabilities(spectrograms)
        if not np.isfinite(answer).all():
            raise ValueError(
                f"spectrograms are beyond what the network can add up: up to {np.abs(spectrograms).max():g}"
            )
        return answer

    def predict(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """`transform`, then `score`: (B, components, N) -> (B, classes)."""
        return self.score(self.transform(windows))

    def warm_up(self, batch_sizes: Iterable[int]) -> None:
        """Score zeros in the given batch sizes, so that no live window pays for the first calls' compilation."""
        for size in batch_sizes:
            for _ in range(3):  # the profiling executor compiles within the first two calls of a shape
                self._probabilities(np.zeros((size, *self.spec.input_shape), np.float32))

    def _probabilities(self, spectrograms: NDArray[np.float32]) -> NDArray[np.float32]:
        import torch  # specs are read where there is no torch

        images = torch.from_numpy(np.require(spectrograms, requirements=["C", "W"]))  # torch warns of read-only memory
        with torch.inference_mode():
            logits = self._network(images.to(self.device))  # (B, classes)
            answer: NDArray[np.float32] = torch.softmax(logits / self.spec.calibration.temperature, dim=1).cpu().numpy()
        return answer

    def _check_answer(self) -> None:
        """Run one example through: the spec must be what the network reads and answers."""
        expected = (1, len(self.spec.classes))
        try:
            answer = self._probabilities(np.zeros((1, *self.spec.input_shape), np.float32))
        except (RuntimeError, IndexError) as error:
            reason = str(error).strip().splitlines()[-1]
            message = f"{self.path}: the network refuses the spec's input of shape {self.spec.input_shape}: {reason}"
            raise ModelError(message) from error
        if answer.shape != expected:
            raise ModelError(f"{self.path}: the network answers {answer.shape}, the spec's classes ask for {expected}")
        if not np.isfinite(answer).all():
            raise ModelError(f"{self.path}: the network answers NaN to zeros")


def compile_model(network: nn.Module, spec: ModelSpec, example: NDArray[np.float32]) -> bytes:
    """The content of a model file.

    ``example``: (B, components, frequencies, frames), B >= 2, as real as can be had: the compiled network with
    float16 weights must answer it within FLOAT16_TOLERANCE of the eager one. Returns the same bytes for the same
    network in a fresh process. ModelError where the network does not fit the spec or does not survive.
    """
    import torch

    if example.shape[1:] != spec.input_shape:
        raise ModelError(f"{spec.name}: the example has shape {example.shape[1:]}, the spec says {spec.input_shape}")
    eager = copy.deepcopy(network).cpu().float().eval()
    images = torch.from_numpy(example)
    with torch.no_grad(), _quiet():
        expected = torch.softmax(eager(images), dim=1)
        traced: torch.jit.ScriptModule = _jit().trace(eager, images, check_trace=False)
    _narrow(traced)
    versions = {name: _version_of(name) for name in ("torch", "timm", "numpy")}
    digest = _weights_sha256(traced)
    spec = ModelSpec.model_validate({**spec.model_dump(), "weights_sha256": digest, "built_with": versions})
    content = _save(traced, spec)
    with torch.no_grad():
        answer = torch.softmax(_load_network(Path(f"<{spec.name}>"), content, spec, "cpu")(images), dim=1)
    worst = float((answer - expected).abs().max())
    if answer.shape != (len(example), len(spec.classes)) or not worst <= FLOAT16_TOLERANCE:
        message = f"{spec.name}: compiled answers {tuple(answer.shape)} differ by {worst:.4f} from eager ones"
        raise ModelError(f"{message} (allowed: {FLOAT16_TOLERANCE}, {len(spec.classes)} classes)")
    return content


def _choose_device(device: str, threads: int | None) -> str:
    import torch

    if device not in {"auto", "cpu", "cuda"}:
        raise ValueError(f"device {device!r} is none of auto, cpu, cuda")
    if threads is not None:
        torch.set_num_threads(threads)
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ValueError("device cuda was asked for, and torch finds none")
    return "cuda" if device == "cuda" or (device == "auto" and available) else "cpu"


def _load_network(path: Path, content: bytes, spec: ModelSpec, device: str) -> torch.jit.ScriptModule:
    try:
        with _quiet():
            network: torch.jit.ScriptModule = _jit().load(io.BytesIO(content), map_location=device)
    except (RuntimeError, ValueError, EOFError) as error:
        raise ModelError(f"{path}: torch cannot load it: {str(error).strip().splitlines()[0]}") from error
    digest = _weights_sha256(network)
    if digest != spec.weights_sha256:
        raise ModelError(f"{path}: its weights have sha256 {digest}, the spec says {spec.weights_sha256 or 'none'}")
    return network.float().eval()


def _optimised(network: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """Only after load: a file saved after it cannot be loaded."""
    with _quiet():
        optimised: torch.jit.ScriptModule = _jit().optimize_for_inference(_jit().freeze(network))
        return optimised


def _narrow(network: torch.jit.ScriptModule) -> None:
    """Weight matrices to float16, in place; norms' statistics and biases are few, and stay as they are."""
    for parameter in network.parameters():
        if parameter.ndim >= 2:
            parameter.data = parameter.data.half()


def _save(network: torch.jit.ScriptModule, spec: ModelSpec) -> bytes:
    """TorchScript's zip, less the debug members: those hold paths of the machine it was built on."""
    buffer, result = io.BytesIO(), io.BytesIO()
    with _quiet():
        _jit().save(network, buffer, _extra_files={SPEC_MEMBER: spec.model_dump_json(indent=2)})
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(result, "w", zipfile.ZIP_STORED) as target:
        for name in source.namelist():
            if not name.endswith(".debug_pkl"):
                target.writestr(zipfile.ZipInfo(name), source.read(name))  # a fixed date: same network, same bytes
    return result.getvalue()


def _weights_sha256(network: torch.jit.ScriptModule) -> str:
    """Of names, types, shapes and bytes of all parameters and buffers, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        array = tensor.detach().cpu().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _check(what: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.dtype != np.float32:
        raise ValueError(f"{what} must be float32, not {array.dtype}")
    if array.ndim != len(shape) + 1 or array.shape[1:] != shape or not len(array):
        raise ValueError(f"{what} must have the shape (B, {', '.join(map(str, shape))}), not {array.shape}")
    finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if not finite.all():
        raise ValueError(f"{what} hold NaN or infinity, first in entry {int(np.argmin(finite))} of {len(array)}")


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _jit() -> Any:
    """`torch.jit`, whose functions are not typed."""
    import torch  # specs are read where there is no torch

    return torch.jit


@contextmanager
def _quiet() -> Iterator[None]:
    """From torch 2.14 every call into torch.jit warns that it is deprecated; the user can do nothing about it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
