"""Compiled networks on ONNX Runtime: for small boxes, where torch would cost more memory than all the rest.

The weights of an ONNX file are named by the sha256 of the file as it was before the spec was appended.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from quake.backends import first_line
from quake.data.onnx_metadata import find_metadata, without
from quake.data.spec import ModelError, ModelSpec
from quake.data.spec_file import SPEC_MEMBER

if TYPE_CHECKING:
    from quake.device import OnDevice

INPUT = "spectrograms"
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
EXTERNAL_WEIGHTS = "session.model_external_initializers_file_folder_path"
"""Where a file's weights may lie beside it: neither pin nor sha256 would know of those."""
ONLY_FATAL = 4
"""ONNX Runtime's log level: errors are raised, and warnings name optimisations that a user can do nothing about."""


class OnnxRuntime:
    """A network on ONNX Runtime."""

    def __init__(self, session: Any, device: str) -> None:
        self.device = device
        self._session = session

    @classmethod
    def load(cls, path: Path, content: bytes, spec: ModelSpec, device: str, threads: int | None) -> OnnxRuntime:
        """``path`` is what errors name. ModelError for a file that is refused, ValueError for a device."""
        digest = weights_sha256(content)
        if digest != spec.weights_sha256:
            raise ModelError(f"{path}: its weights have sha256 {digest}, the spec says {spec.weights_sha256 or 'none'}")
        try:
            session = onnxruntime.InferenceSession(content, _options(threads), providers=_providers(device))
        except Exception as error:  # its errors have no common base but this
            raise ModelError(f"{path}: ONNX Runtime cannot load it: {first_line(error)}") from error
        where = (
            "cuda" if session.get_providers()[0] == CUDA else "cpu"
        )  # what is there, whatever the package was built with
        if device == "cuda" and where == "cpu":
            raise ValueError("device cuda was asked for, and ONNX Runtime finds none (pip install onnxruntime-gpu)")
        return cls(session, where)

    def logits(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        try:
            return tuple(self._session.run(None, {INPUT: images}))
        except Exception as error:  # its errors have no common base but this
            raise RuntimeError(str(error)) from error

    def on_device(self, spec: ModelSpec) -> OnDevice | None:
        """The transform is torch's, which is not asked for here."""
        return None


def weights_sha256(content: bytes) -> str:
    """Of a file with or without its spec."""
    entries = find_metadata(content, SPEC_MEMBER)
    return hashlib.sha256(without(content, entries[0]) if entries else content).hexdigest()


def _providers(device: str) -> list[str]:
    wanted = [CPU] if device == "cpu" else [CUDA, CPU]
    return [name for name in wanted if name in onnxruntime.get_available_providers()]


def _options(threads: int | None) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ONLY_FATAL
    if threads is not None:
        options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry(EXTERNAL_WEIGHTS, os.devnull)  # no folder: nothing is read but the file itself
    return options
