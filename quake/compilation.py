"""How a network becomes a file: TorchScript, and ONNX made from that.

Weight matrices are stored as float16 and widened at load: half the size, and the answers are held against the eager
network's before the file is given out. What is not here: what the spec says (the caller's), loading (`quake.artifact`).
"""

from __future__ import annotations

import copy
import io
import warnings
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from quake.backends import Backend
from quake.data.spec import Compilation, ModelError, ModelSpec
from quake.data.spec_file import SPEC_MEMBER, is_torchscript, parse_spec, read_content, with_spec
from quake.data.spectrogram import spectrogram
from quake.probe import probe, probe_windows

if TYPE_CHECKING:
    import torch
    from torch import nn

FLOAT16_TOLERANCE = 0.01
"""How far probabilities of the compiled network may be from the eager one's: less than any threshold is known to."""
ONNX_TOLERANCE = 1e-4
"""How far probabilities of the two backends may be from each other: rounding only, the weights are the same."""
ONNX_OPSET = 18
"""Knows every operator of the families, and ONNX Runtime since 1.14 knows it."""
METHODS = ("trace", "script")
CHECK_SEED = 33
CHECK_BATCH = 4


def compile_model(
    network: nn.Module, spec: ModelSpec, example: NDArray[np.float32], method: Literal["trace", "script"] = "trace"
) -> bytes:
    """The content of a TorchScript model file.

    ``example``: (B, channels, height, width) as the spec's input, B >= 2, as real as can be had. On it, and on noise
    like it, the compiled network must answer within FLOAT16_TOLERANCE of the eager one; the spec in the file states the
    differences. ``network`` answers logits: (B, classes), or a tuple of them in the order of the spec's
    heads. Returns the same bytes for the same network in a fresh process. ModelError where the network does not fit the
    spec or does not survive, and where tracing would freeze a decision that it takes from its input.
    """
    import torch

    from quake.backends.torchscript import jit, quiet, weights_sha256

    _check_example(spec, example, method)
    eager = copy.deepcopy(network).cpu().float().eval()
    random = _random_like(example)
    with torch.no_grad(), quiet():
        expected = [_eager(spec, eager, images) for images in (example, random)]  # before weights lose digits
        compiled = jit.script(eager) if method == "script" else _trace(spec, eager, example)
    _narrow(compiled)
    versions = {name: _version_of(name) for name in ("torch", "timm", "torchvision", "numpy")}
    known = {"weights_sha256": weights_sha256(compiled), "built_with": versions}
    spec = ModelSpec.model_validate({**spec.model_dump(), **known})
    loaded, pairs = _reload(compiled, spec), zip((example, random), expected, strict=True)
    real, made = (_difference(spec, _one_and_all(loaded, images), logits) for images, logits in pairs)
    if not max(real, made) <= FLOAT16_TOLERANCE:
        message = f"{spec.name}: compiled answers differ by {max(real, made):.4f} from eager ones"
        raise ModelError(f"{message} (allowed: {FLOAT16_TOLERANCE})")
    compilation = Compilation(method=method, difference_real=real, difference_random=made)
    return _save(compiled, spec.model_copy(update={"compilation": compilation, "probe": probe(loaded, spec)}))


def export_onnx(path: str | Path) -> bytes:
    """The content of an ONNX model file with the network and the spec of a TorchScript one.

    The batch is free, the outputs have the heads' names, weights are float32. ModelError for a file that is none, or
    where ONNX Runtime answers otherwise than torch by more than ONNX_TOLERANCE of a probability.
    """
    from quake.backends.onnx import OnnxRuntime, weights_sha256
    from quake.backends.torchscript import TorchScript, read_network

    path = Path(path)
    content = read_content(path)
    if not is_torchscript(content):
        raise ModelError(f"{path}: not a TorchScript file")
    spec = parse_spec(path, content)
    network = read_network(path, content, spec, "cpu")
    bare = _onnx_content(network, spec)
    spec = spec.model_copy(update={"weights_sha256": weights_sha256(bare)})
    backends: tuple[Backend, Backend] = OnnxRuntime.load(path, bare, spec, "cpu", None), TorchScript(network, "cpu")
    images = _noise_images(spec)
    worst = _difference(spec, *(backend.logits(images) for backend in backends))
    if not worst <= ONNX_TOLERANCE:
        raise ModelError(f"{path}: on ONNX Runtime a probability differs by {worst:.2g} (allowed: {ONNX_TOLERANCE:g})")
    return with_spec(bare, spec.model_copy(update={"probe": probe(backends[0], spec)}))


def _check_example(spec: ModelSpec, example: NDArray[np.float32], method: str) -> None:
    if method not in METHODS:
        raise ValueError(f"method {method!r} is none of {', '.join(METHODS)}")
    if not isinstance(example, np.ndarray) or example.dtype != np.float32:
        raise ModelError(f"{spec.name}: the example must be a float32 array of NumPy")
    if example.shape[1:] != spec.input_shape:
        raise ModelError(f"{spec.name}: the example has shape {example.shape[1:]}, the spec says {spec.input_shape}")
    if len(example) < 2:
        raise ModelError(f"{spec.name}: an example of one window cannot show that the batch is free")


def _noise_images(spec: ModelSpec) -> NDArray[np.float32]:
    """Of noise alone: what a deep network answers to windows louder than it was fitted on, rounding may decide."""
    noise = probe_windows(spec)[0]
    return spectrogram(np.stack([noise, -noise, noise[:, ::-1], noise[::-1]]), spec.spectrogram)


def _random_like(example: NDArray[np.float32]) -> NDArray[np.float32]:
    """Noise with each pixel's mean and deviation: what is far from all that a network was fitted on has no answer."""
    noise = np.random.default_rng(CHECK_SEED).standard_normal(example.shape)
    return np.asarray(example.mean(axis=0) + noise * example.std(axis=0), dtype=np.float32)


def _eager(spec: ModelSpec, network: nn.Module, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    import torch

    from quake.backends.torchscript import heads_of

    try:
        return tuple(head.numpy() for head in heads_of(network(torch.from_numpy(images))))
    except (RuntimeError, ValueError, TypeError) as error:
        message = f"{spec.name}: the network does not answer images of shape {images.shape}: {error}"
        raise ModelError(message) from error


def _trace(spec: ModelSpec, network: nn.Module, example: NDArray[np.float32]) -> torch.jit.ScriptModule:
    import torch

    from quake.backends.torchscript import jit

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", jit.TracerWarning)
        traced: torch.jit.ScriptModule = jit.trace(network, torch.from_numpy(example), check_trace=False)
    frozen = [warning for warning in caught if issubclass(warning.category, jit.TracerWarning)]
    if frozen:  # the example's answer would be everybody's
        reason = str(frozen[0].message).strip().splitlines()[0]
        raise ModelError(f"{spec.name}: cannot be traced, method='script' may do: {reason}")
    return traced


def _reload(network: torch.jit.ScriptModule, spec: ModelSpec) -> Backend:
    """As a user will have it: written, read, frozen, optimised."""
    from quake.backends.torchscript import TorchScript

    return TorchScript.load(Path(f"<{spec.name}>"), _save(network, spec), spec, "cpu", None)


def _one_and_all(loaded: Backend, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    """The answers to a batch, the first of them from a batch of its own: as many as it was made with must not matter."""
    try:
        first, others = loaded.logits(images[:1]), loaded.logits(images[1:])
    except RuntimeError as error:
        raise ModelError(f"the batch is not free: {str(error).strip().splitlines()[-1]}") from error
    return tuple(np.concatenate(parts) for parts in zip(first, others, strict=True))


def _difference(
    spec: ModelSpec, answer: tuple[NDArray[np.float32], ...], expected: tuple[NDArray[np.float32], ...]
) -> float:
    """Of probabilities, at most; NaN where there is one. ModelError where the heads are not those of the spec."""
    from scipy.special import softmax

    shapes = [tuple(head.shape[1:]) for head in answer]
    wanted = [(len(head.classes),) for head in spec.heads]
    if shapes != wanted:
        raise ModelError(f"{spec.name}: the network answers {shapes} a window, the spec's heads ask for {wanted}")
    if [head.shape for head in answer] != [head.shape for head in expected]:
        raise ModelError(f"{spec.name}: the batch is not free: {len(expected[0])} windows, {len(answer[0])} answers")
    pairs = zip(answer, expected, strict=True)
    return float(np.max([np.abs(softmax(a, axis=1) - softmax(e, axis=1)).max() for a, e in pairs]))


def _narrow(network: torch.jit.ScriptModule) -> None:
    """Weight matrices to float16, in place; what is one number a channel is small, and stays as it is."""
    for parameter in network.parameters():
        if parameter.ndim >= 2 and parameter.numel() > len(parameter):
            parameter.data = parameter.data.half()


def _save(network: torch.jit.ScriptModule, spec: ModelSpec) -> bytes:
    """TorchScript's zip, less the debug members: those hold paths of the machine it was built on."""
    from quake.backends.torchscript import jit, quiet

    buffer, result = io.BytesIO(), io.BytesIO()
    with quiet():
        jit.save(network, buffer, _extra_files={SPEC_MEMBER: spec.model_dump_json(indent=2)})
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(result, "w", zipfile.ZIP_STORED) as target:
        for name in source.namelist():
            if not name.endswith(".debug_pkl"):
                target.writestr(zipfile.ZipInfo(name), source.read(name))  # a fixed date: same network, same bytes
    return result.getvalue()


def _onnx_content(network: torch.jit.ScriptModule, spec: ModelSpec) -> bytes:
    import torch

    from quake.backends.onnx import INPUT
    from quake.backends.torchscript import jit, quiet

    buffer = io.BytesIO()
    names = [head.name for head in spec.heads]
    if INPUT in names:
        raise ModelError(f"{spec.name}: a head cannot be called as the input is: {INPUT}")
    images = torch.rand(CHECK_BATCH, *spec.input_shape)
    with quiet(), torch.no_grad():
        torch.onnx.export(
            jit.freeze(network),
            (images,),
            buffer,  # type: ignore[arg-type]  # the older exporter takes buffers too; it alone takes TorchScript
            input_names=[INPUT],
            output_names=names,
            dynamic_axes={name: {0: "windows"} for name in (INPUT, *names)},
            opset_version=ONNX_OPSET,
            dynamo=False,
        )
    return buffer.getvalue()


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
