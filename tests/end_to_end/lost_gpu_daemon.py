"""The daemon with the configured model on a GPU that is lost: ``lost_gpu_daemon.py CONFIG N``.

It is the real model on the CPU, and says that it is on a GPU: it takes a GPU's steps, in memory that is kept from batch to
batch. Waiting for its N-th batch raises what torch raises where a GPU's memory is at an end, and so does every wait after
it. Loaded for the CPU it is well.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import torch

from quake.artifact import CompiledModel
from quake.device import OnDevice, Processor
from streamer.cli import main

load = CompiledModel.load


class LostGpu(Processor):
    def __init__(self, batches: int) -> None:
        self._left, self.counts = batches, False

    def wait(self) -> None:
        self._left -= self.counts
        if self._left <= 0:
            raise torch.OutOfMemoryError("CUDA out of memory")


class OnLostGpu(OnDevice):
    def warm_up(self, size: int) -> None:
        """Its batches do not count."""
        self._stream.counts = False  # type: ignore[attr-defined]
        super().warm_up(size)
        self._stream.counts = True  # type: ignore[attr-defined]


def load_on_gpu(path: Path, device: str = "auto", **how: Any) -> CompiledModel:
    model = load(path, "cpu", **how)
    if device != "cpu":
        network: Any = model._backend
        model._on_device = OnLostGpu(network.network, model.spec, LostGpu(int(sys.argv[2])))
        model._backend.device = "cuda"
    return model


if __name__ == "__main__":
    logging.basicConfig(level="INFO")
    CompiledModel.load = load_on_gpu  # type: ignore[method-assign, assignment]
    sys.exit(main(["run", sys.argv[1]]))
