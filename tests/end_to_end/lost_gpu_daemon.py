"""The daemon with the configured model on a GPU that is lost: ``lost_gpu_daemon.py CONFIG N``.

It is the real model on the CPU, and says that it is on a GPU; its N-th batch raises what torch raises where a GPU's memory is
at an end, and so does every one after it. Loaded for the CPU it is well.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from quake.artifact import CompiledModel
from streamer.cli import main

load = CompiledModel.load


class LostGpu:
    device = "cuda"

    def __init__(self, backend: Any, batches: int) -> None:
        self._backend, self._left = backend, batches

    def logits(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        if images.any():  # warming up scores zeros
            self._left -= 1
        if self._left <= 0:
            raise torch.OutOfMemoryError("CUDA out of memory")
        answer: tuple[NDArray[np.float32], ...] = self._backend.logits(images)
        return answer


def load_on_gpu(path: Path, device: str = "auto", **how: Any) -> CompiledModel:
    model = load(path, "cpu", **how)
    if device != "cpu":
        model._backend = LostGpu(model._backend, int(sys.argv[2]))
    return model


if __name__ == "__main__":
    logging.basicConfig(level="INFO")
    CompiledModel.load = load_on_gpu  # type: ignore[method-assign, assignment]
    sys.exit(main(["run", sys.argv[1]]))
