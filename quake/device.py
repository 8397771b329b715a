"""Windows in, probabilities out, on a GPU: one copy there, transform and network there, one copy back, one wait.

Samples go through pinned memory, so that no copy waits. Each batch size that was warmed up has memory of its own, which
is used again, and a CUDA graph: what one batch launches, recorded once and then sent as one. Other sizes, and a runtime
that cannot record, launch the same one by one. `quake.data.transforms` is the transform, eager, because that is the code
which the tests hold to NumPy's. What is not here: what becomes of a device that is lost (`streamer.worker`), ONNX Runtime.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quake.backends import first_line
from quake.backends.torchscript import heads_of
from quake.data.spec import ModelSpec
from quake.data.transforms import Spectrogram
from quake.probe import probe_windows

WARM_UPS = 5
"""Batches before one is recorded: TorchScript compiles anew in the first calls of a shape, and must not while recording."""
UNANSWERED = -1.0
"""No probability: what stands where an answer will come, here and on the device, before each batch."""
TOLERANCE = 1e-4
"""Of a probability: how far a recorded batch, or the transform on the device, may be from what it stands for."""

_recording = threading.Lock()
"""torch records one graph at a time in a process; a reload warms its model up beside the one at work."""

cuda: Any = torch.cuda
"""Its streams and events are not typed."""

log = logging.getLogger(__name__)


class Stream(Protocol):
    """The calls that differ from one kind of device to another."""

    device: torch.device
    pinned: bool
    """Whether copies need memory that stays in its place."""

    def current(self) -> AbstractContextManager[Any]:
        """What is launched within goes here."""
        ...

    def wait(self) -> None:
        """Until all that was launched here is done. RuntimeError where some of it failed."""
        ...

    def record(self, launch: Callable[[], None]) -> Callable[[], None] | None:
        """What does again all that ``launch`` did; None where that is not wanted. RuntimeError where it cannot be."""
        ...


class CudaStream:
    """A GPU's stream beside the default one: nothing can be recorded on that."""

    def __init__(self, *, graphs: bool = True) -> None:
        self.device, self.pinned, self._graphs = torch.device("cuda"), True, graphs
        self._stream = cuda.Stream()
        self._done = cuda.Event(blocking=True)  # who waits leaves the processor to those who receive
        self._stream.wait_stream(cuda.current_stream())  # the weights are copied there

    def current(self) -> AbstractContextManager[Any]:
        within: AbstractContextManager[Any] = cuda.stream(self._stream)
        return within

    def wait(self) -> None:
        self._done.record(self._stream)
        self._done.synchronize()

    def record(self, launch: Callable[[], None]) -> Callable[[], None] | None:
        if not self._graphs:
            return None
        graph = cuda.CUDAGraph()
        how = "thread_local"  # else the model at work, in another thread, could spoil it and fail itself
        with _recording, cuda.graph(graph, stream=self._stream, capture_error_mode=how):
            launch()
        replay: Callable[[], None] = graph.replay
        return replay


class Processor:
    """No GPU: the same steps, each done as it is called. For tests, and to see that a benchmark works."""

    device, pinned = torch.device("cpu"), False

    def current(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def wait(self) -> None:
        """Nothing is left to wait for."""

    def record(self, launch: Callable[[], None]) -> Callable[[], None] | None:
        return None


@dataclass(slots=True)
class Memory:
    """Of one batch size."""

    windows: Tensor
    """(B, components, N) float32, where copies begin."""
    answer: Tensor
    """(B, classes) float32, where copies end."""
    windows_there: Tensor
    answer_there: Tensor
    """On the device."""
    replay: Callable[[], None] | None = None


def _nobody(step: str) -> None: ...


class OnDevice:
    """A network with its transform on a device. Safe from one thread at a time.

    ``network``: (B, channels, height, width) -> (B, classes), or a tuple of them in the order of the spec's heads; on the
    stream's device.
    """

    def __init__(self, network: Callable[[Tensor], Any], spec: ModelSpec, stream: Stream) -> None:
        self._network, self._spec, self._stream = network, spec, stream
        self._transform = Spectrogram(spec.spectrogram).to(stream.device)  # else each batch would copy its tapers
        self._memory: dict[int, Memory] = {}
        self._records = True

    @property
    def recorded(self) -> Mapping[int, bool]:
        """Batch sizes that were warmed up, and whether each is one graph."""
        return {size: memory.replay is not None for size, memory in self._memory.items()}

    def predict(self, windows: NDArray[np.float32], told: Callable[[str], None] = _nobody) -> NDArray[np.float32]:
        """(B, components, N) finite float32 samples in the spec's unit -> (B, classes of all heads) float32 probabilities,
        NaN where logits are infinite.

        ``told``: the name of each step once it is launched. RuntimeError where the device fails.
        """
        memory = self._memory.get(len(windows)) or self._new(len(windows))
        try:
            with torch.inference_mode(), self._stream.current():
                self.launch(memory, torch.from_numpy(np.require(windows, requirements=["C", "W"])), told)
                self._stream.wait()
            answer = memory.answer.numpy().copy()  # the memory is the next batch's
            if (answer == UNANSWERED).any():
                raise RuntimeError("the device has left a batch without an answer")
        except BaseException:
            self._memory.clear()  # copies may still be on their way to or from it
            raise
        return answer

    def launch(self, memory: Memory, windows: Tensor, told: Callable[[str], None] = _nobody) -> None:
        """All that a batch needs, without waiting for any of it."""
        memory.windows.copy_(windows)
        memory.answer.fill_(UNANSWERED)
        told("filled")
        memory.windows_there.copy_(memory.windows, non_blocking=True)
        told("copy there")
        memory.answer_there.fill_(UNANSWERED)
        if memory.replay is not None:
            memory.replay()
        else:
            self._compute(memory, told)
        told("network")
        memory.answer.copy_(memory.answer_there, non_blocking=True)
        told("copy back")

    def warm_up(self, size: int) -> None:
        """Make the memory for batches of ``size``, and record one; a recorded one that answers otherwise is not kept."""
        windows = np.resize(probe_windows(self._spec)[::-1], (size, *self._spec.window_shape))
        self._memory[size] = self._new(size)
        expected = self.predict(windows)
        for _ in range(WARM_UPS):
            self.predict(windows[..., ::-1])  # a recorded batch must not answer what was asked when it was recorded
        if self._records:
            self._record(windows, expected)

    def check(self, windows: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
        """RuntimeError where an answer to the windows is not the expected one."""
        difference = float(np.abs(self.predict(windows) - expected).max())
        if not difference <= TOLERANCE:  # NaN neither
            raise RuntimeError(f"a probability differs by {difference:.2g} (allowed: {TOLERANCE:g})")

    def _record(self, windows: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
        memory = self._memory[len(windows)]
        try:
            with torch.inference_mode(), self._stream.current():
                memory.replay = self._stream.record(lambda: self._compute(memory, _nobody))
            self.check(windows, expected)
        except Exception as error:  # that of a lost device comes again with the next batch, and is told there
            self._records = False
            self._memory[len(windows)] = self._new(len(windows))
            log.warning(
                "no CUDA graph of batches of %d, each step is launched by itself: %s", len(windows), first_line(error)
            )

    def _compute(self, memory: Memory, told: Callable[[str], None]) -> None:
        images = self._transform(memory.windows_there)  # (B, components, N) -> (B, channels, height, width)
        told("transform")
        temperature = self._spec.calibration.temperature
        parts = [torch.softmax(logits.float() / temperature, dim=1) for logits in heads_of(self._network(images))]
        torch.cat(parts, dim=1, out=memory.answer_there)

    def _new(self, size: int) -> Memory:
        samples, classes = (size, *self._spec.window_shape), (size, len(self._spec.classes))
        pinned, device = self._stream.pinned, self._stream.device
        with self._stream.current():  # whose memory that of the GPU is
            return Memory(
                windows=torch.empty(samples, pin_memory=pinned),
                answer=torch.empty(classes, pin_memory=pinned),
                windows_there=torch.empty(samples, device=device),
                answer_there=torch.empty(classes, device=device),
            )
