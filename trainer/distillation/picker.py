"""A TorchScript picker as a teacher: loaded, checked, and run on batches. How it is fed stands in its adapter file."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from quake.backends.torchscript import choose_device, jit, quiet
from quake.data.spec import EVENT_HEAD, ModelError
from quake.data.spec_file import read_content
from trainer.data.record import RATE_HZ
from trainer.distillation.adapter import Adapter, read_adapter

Meaning = Callable[[Any], NDArray[np.float64]]
"""What an adapter makes of the network's answer to a batch: one row for each window."""


class Picker:
    """One that has been loaded. ``heads``, ``samples`` and `probabilities` are what `Teachers` asks of a teacher.

    `along` is what labels are made from.
    """

    heads = (EVENT_HEAD,)
    """What a picker can speak of."""

    def __init__(self, adapter: Adapter, content: bytes, device: str, window_samples: int | None) -> None:
        self.path = adapter.network
        self.sha256 = hashlib.sha256(content).hexdigest()
        """Of the network's file."""
        self.output = adapter.output
        self.samples = adapter.reading.samples
        self._adapter = adapter
        self._network = _network(adapter, content, self.sha256, device)
        self._device = device
        within_s = adapter.output.within_s or (window_samples or self.samples) / RATE_HZ
        self._share = within_s * adapter.sampling_rate_hz / adapter.window_samples

    @classmethod
    def load(cls, adapter_file: Path, window_samples: int | None, device: str) -> Picker:
        """``window_samples``: of the student, at 100 Hz; None: the picker's own.

        RecipeError for an adapter file, ModelError for a network that cannot be used, ValueError for a device.
        """
        adapter, where = read_adapter(adapter_file), choose_device(device)
        return cls(adapter, read_content(adapter.network), where, window_samples)

    def probabilities(self, samples: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
        """(B, 3, n) Z, N, E at 100 Hz, n at least ``samples`` -> (B, 2) of noise and earthquake, named event.

        ModelError where the network refuses the window or its answer is not what the adapter file says.
        """
        earthquake = self._read(samples, lambda answer: self.output.probability(answer, self._share))  # (B,)
        return {EVENT_HEAD.name: np.stack([1 - earthquake, earthquake], axis=1)}

    def along(self, samples: NDArray[np.float32]) -> NDArray[np.float64]:
        """(B, 3, `samples`) Z, N, E at 100 Hz -> (B, 3, `samples`) of P, S and an earthquake, as `Output.along`.

        ModelError as `probabilities`.
        """
        return self._read(samples, lambda answer: self.output.along(answer, self.samples))

    def _read(self, samples: NDArray[np.float32], meaning: Meaning) -> NDArray[np.float64]:
        windows = torch.from_numpy(self._adapter.prepare(samples)).to(self._device)
        try:
            with torch.inference_mode():
                read = meaning(self._network(windows))
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise ModelError(f"{self.path}: to windows of shape {tuple(windows.shape)} the picker {reason}") from error
        if len(read) != len(samples):
            raise ModelError(f"{self.path}: the picker answers {len(read)} windows to {len(samples)}")
        return read


def _network(adapter: Adapter, content: bytes, digest: str, device: str) -> torch.jit.ScriptModule:
    if adapter.sha256 is not None and digest != adapter.sha256.lower():
        raise ModelError(f"{adapter.network}: sha256 is {digest}, pinned is {adapter.sha256}")
    try:
        with quiet():
            network: torch.jit.ScriptModule = jit.load(io.BytesIO(content), map_location=device)
    except (RuntimeError, ValueError, EOFError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{adapter.network}: torch cannot load it: {reason}") from error
    return network.float().eval()
