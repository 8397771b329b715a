"""What runs a compiled network: TorchScript, or ONNX Runtime where there is no torch. Chosen in `quake.artifact`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from quake.data.spec import ModelSpec

if TYPE_CHECKING:
    from quake.device import OnDevice


class Backend(Protocol):
    """A loaded network."""

    device: str
    """cpu or cuda."""

    def logits(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """(B, C, H, W) -> for each head (B, classes). RuntimeError where the network refuses the shape."""
        ...

    def on_device(self, spec: ModelSpec) -> OnDevice | None:
        """The same network with its transform on a GPU; None where it runs on none, or the runtime has no way to."""
        ...


def first_line(error: BaseException) -> str:
    """Of what the runtime says, which may be a page, or nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
