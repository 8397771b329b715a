"""Compiled networks on torch: how TorchScript files are loaded, and how weights are named by one number.

`optimize_for_inference` comes after load only: a file saved after it cannot be loaded. Importing this module imports
torch, but neither timm nor torchvision.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from quake.backends import first_line
from quake.data.spec import ModelError, ModelSpec

if TYPE_CHECKING:
    from quake.device import OnDevice

jit: Any = torch.jit
"""Its functions are not typed."""


class TorchScript:
    """A network on torch, frozen and optimised. Safe from one thread at a time."""

    def __init__(self, network: torch.jit.ScriptModule, device: str) -> None:
        self.device = device
        with quiet():
            self.network = jit.optimize_for_inference(jit.freeze(network))

    @classmethod
    def load(cls, path: Path, content: bytes, spec: ModelSpec, device: str, threads: int | None) -> TorchScript:
        """``path`` is what errors name. ModelError for a file that torch or the spec refuses, ValueError for a device."""
        where = choose_device(device)
        if threads is not None:
            torch.set_num_threads(threads)
        network = read_network(path, content, spec, where)
        try:
            return cls(network, where)
        except Exception as error:  # what torch raises on a network that it cannot freeze has no common base but this
            raise ModelError(f"{path}: torch cannot prepare it: {first_line(error)}") from error

    def logits(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        readable = np.require(images, requirements=["C", "W"])  # torch warns of read-only memory
        try:
            with torch.inference_mode():
                answer = self.network(torch.from_numpy(readable).to(self.device))  # one or several (B, classes)
        except IndexError as error:
            raise RuntimeError(str(error)) from error
        return tuple(head.float().cpu().numpy() for head in heads_of(answer))

    def on_device(self, spec: ModelSpec) -> OnDevice | None:
        from quake.device import CudaStream, OnDevice

        return OnDevice(self.network, spec, CudaStream()) if self.device == "cuda" else None


def heads_of(answer: Any) -> tuple[torch.Tensor, ...]:
    """The heads of a network that answers one tensor or a tuple of them; RuntimeError for anything else."""
    heads = answer if isinstance(answer, tuple) else (answer,)
    if not all(isinstance(head, torch.Tensor) for head in heads):
        raise RuntimeError(f"the answer is a {type(answer).__name__}, not a tensor or a tuple of tensors")
    return heads


def choose_device(device: str) -> str:
    """ValueError where there is none of that name."""
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ValueError("device cuda was asked for, and torch finds none")
    return "cuda" if device == "cuda" or (device == "auto" and available) else "cpu"


def read_network(path: Path, content: bytes, spec: ModelSpec, device: str) -> torch.jit.ScriptModule:
    """The network as it was compiled, its weights checked and widened to float32."""
    try:
        with quiet():
            network: torch.jit.ScriptModule = jit.load(io.BytesIO(content), map_location=device)
        digest = weights_sha256(network)
    except Exception as error:  # IndexError, TypeError, MemoryError and others, by what is broken
        raise ModelError(f"{path}: torch cannot load it: {first_line(error)}") from error
    if digest != spec.weights_sha256:
        raise ModelError(f"{path}: its weights have sha256 {digest}, the spec says {spec.weights_sha256 or 'none'}")
    return network.float().eval()


def weights_sha256(network: torch.jit.ScriptModule) -> str:
    """Of names, types, shapes and bytes of all parameters and buffers, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        array = tensor.detach().cpu().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


@contextmanager
def quiet() -> Iterator[None]:
    """From torch 2.14 every call into torch.jit warns that it is deprecated; the user can do nothing about it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
