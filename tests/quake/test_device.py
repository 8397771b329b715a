"""Transform and network on a device: what it answers, what it copies and waits for, and what it does when that fails.

A GPU is not needed: `Processor` takes the same steps, and torch's fake tensors know on which device they would be. What a
GPU alone can say stands at the end, and is skipped without one.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from quake import device as device_module
from quake.artifact import CompiledModel, ModelSpec
from quake.backends.torchscript import read_network
from quake.data.spec_file import parse_spec, read_content
from quake.device import TOLERANCE, UNANSWERED, WARM_UPS, CudaStream, OnDevice, Processor
from quake.probe import probabilities
from quake.versions import ZOO

DETECTOR, CHARACTERISER = ZOO / "detector.pt", ZOO / "characteriser.pt"
FIELDS: dict[str, Any] = {
    "name": "toy",
    "version": "1.0.0",
    "task": "characterise",
    "architecture": "two linear heads",
    "components": ("Z", "N", "E"),
    "sampling_rate_hz": 100.0,
    "window_samples": 640,
    "stft": {"nperseg": 64, "hop": 32, "window": "hann"},
    "gain": 1e3,
    "heads": ({"name": "one", "classes": ("a", "b")}, {"name": "two", "classes": ("c", "d", "e")}),
    "calibration": {"method": "temperature", "temperature": 1.7},
    "training_data": (),
}
NEEDS_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class TwoHeads(nn.Module):
    """Of images of any size; also a `quake.backends.Backend` on the processor."""

    device = "cpu"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.first, self.one, self.two = nn.Conv2d(3, 8, 3, stride=2), nn.Linear(8, 2), nn.Linear(8, 3)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pooled = torch.tanh(self.first(images)).mean((2, 3))
        return self.one(pooled), self.two(pooled)

    def logits(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        with torch.inference_mode():
            return tuple(head.numpy() for head in self(torch.from_numpy(images)))


NETWORK = TwoHeads().eval()


def spec(**changes: object) -> ModelSpec:
    return ModelSpec.model_validate({**FIELDS, **changes})


def noise(batch: int, shape: tuple[int, int], seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((batch, *shape)).astype(np.float32)


def by_steps(windows: NDArray[np.float32], of: ModelSpec) -> NDArray[np.float32]:
    """As the processor does it: the transform in NumPy, then the network."""
    from quake.data.spectrogram import spectrogram

    return probabilities(NETWORK, of, spectrogram(windows, of.spectrogram))  # type: ignore[arg-type]


def toy(stream: Processor | None = None, **changes: object) -> OnDevice:
    return OnDevice(NETWORK, spec(**changes), stream or Processor())


# -- what it answers


@pytest.mark.parametrize(("path", "scale"), [(DETECTOR, 300.0), (CHARACTERISER, 1e-6)])
def test_shipped_models_answer_as_transform_and_score_do(path: Path, scale: float) -> None:
    model = CompiledModel.load(path, "cpu", threads=1)
    on_device = OnDevice(model._backend.network, model.spec, Processor())  # type: ignore[attr-defined]
    for batch in (1, 4, 16) if path == DETECTOR else (1, 2):
        windows = scale * noise(batch, model.spec.window_shape)
        windows[batch // 2, :, 1500:] *= 20
        answer = on_device.predict(windows)
        assert (answer.dtype, answer.shape) == (np.float32, (batch, len(model.spec.classes)))
        np.testing.assert_allclose(answer, model.predict(windows), rtol=0, atol=TOLERANCE / 10)


PLAIN = ("none", "demean", "zscore_component", "zscore_difference", "zscore_window")
SHAPES: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries(
        {
            "normalisation": st.sampled_from(PLAIN[2:]),
            "representation": st.sampled_from(("magnitude", "power", "log1p_magnitude", "log1p_contrast")),
        }
    ),
    st.fixed_dictionaries(
        {
            "normalisation": st.sampled_from(PLAIN[:2]),
            "representation": st.sampled_from(("decibel", "cross_decibel")),
            "decibels": st.just({"floor": -60.0, "ceiling": 20.0}),
            "unit": st.just("m/s"),
            "image": st.just({"height": 24, "width": 20, "resized": (32, 30), "normalisation": "imagenet"}),
        }
    ),
)


@given(
    shape=SHAPES,
    batch=st.integers(1, 9),
    samples=st.integers(200, 700),
    nperseg=st.integers(31, 64),
    padded=st.booleans(),
    taper=st.sampled_from((0.0, 0.1)),
    dead=st.sets(st.integers(0, 2), max_size=3),
    seed=st.integers(0, 2**20),
)
@settings(max_examples=60, deadline=None)
def test_any_batch_of_any_shape_answers_as_the_steps_do(
    shape: dict[str, Any],
    batch: int,
    samples: int,
    nperseg: int,
    padded: bool,
    taper: float,
    dead: set[int],
    seed: int,
) -> None:
    stft = {"nperseg": nperseg, "hop": nperseg // 2, "window": "hann", "padded": padded}
    made = spec(window_samples=samples, stft=stft, taper_fraction=taper, **shape)
    windows = noise(batch, made.window_shape, seed)
    windows[0, sorted(dead)] = 0
    answer = OnDevice(NETWORK, made, Processor()).predict(windows)
    np.testing.assert_allclose(answer, by_steps(windows, made), rtol=0, atol=TOLERANCE / 10)
    for head in made.by_head(answer).values():
        np.testing.assert_allclose(head.sum(axis=1), 1, atol=1e-6)


def test_arrays_that_are_read_only_or_no_row_of_numbers_are_taken() -> None:
    windows = noise(4, spec().window_shape)
    expected = toy().predict(windows)
    frozen = windows[::-1]
    frozen.flags.writeable = False
    np.testing.assert_array_equal(toy().predict(frozen), expected[::-1])


# -- what it copies, launches and waits for


class Told(Processor):
    """Writes down what it is asked for; what it records it does again by calling it."""

    def __init__(self) -> None:
        self.said: list[str] = []

    @contextmanager
    def current(self) -> Iterator[None]:
        yield

    def wait(self) -> None:
        self.said.append("wait")

    def record(self, launch: Callable[[], None]) -> Callable[[], None] | None:
        self.said.append("record")

        def replay() -> None:
            self.said.append("replay")
            launch()

        return replay


def test_a_batch_is_one_copy_there_one_graph_one_copy_back_and_one_wait() -> None:
    stream = Told()
    on_device = toy(stream)
    on_device.warm_up(4)
    assert stream.said == ["wait"] * (1 + WARM_UPS) + ["record", "replay", "wait"], (
        "recorded after the warm-up, then tried"
    )
    assert on_device.recorded == {4: True}
    for batch, expected in ((4, "filled,copy there,replay,network,copy back,wait"),) * 2 + (
        (3, "filled,copy there,transform,network,copy back,wait"),
    ):
        stream.said.clear()
        windows = noise(batch, spec().window_shape, batch)
        answer = on_device.predict(windows, stream.said.append)
        assert ",".join(stream.said) == expected
        np.testing.assert_allclose(answer, by_steps(windows, spec()), rtol=0, atol=TOLERANCE / 10)


class Copies(TorchDispatchMode):
    """Counts what goes from one device to another, and what would make the host wait."""

    WAITS = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select")

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer, name = func(*args, **(kwargs or {})), func.overloadpacket.__name__
        if name in self.WAITS:
            self.seen[name] += 1
        sources = [one for one in tree_leaves(args) if isinstance(one, torch.Tensor)]
        if name == "copy_":
            sources = sources[1:]
        if isinstance(answer, torch.Tensor) and any(one.device != answer.device for one in sources):
            how = "" if name == "copy_" and args[2:] == (True,) else f" by {name}, waited for"
            self.seen[f"{sources[0].device.type} to {answer.device.type}{how}"] += 1
        return answer


class Elsewhere(Processor):
    """A GPU of fake tensors: they have a device and no numbers, and refuse sums with tensors of another device."""

    device = torch.device("cuda")


@pytest.mark.parametrize("normalisation", PLAIN[2:])
@pytest.mark.parametrize("representation", ["power", "log1p_magnitude", "log1p_contrast"])
def test_nothing_else_crosses_between_host_and_device(normalisation: str, representation: str) -> None:
    check_crossings(normalisation=normalisation, representation=representation, taper_fraction=0.1)


@pytest.mark.parametrize("representation", ["decibel", "cross_decibel"])
def test_nothing_else_crosses_for_images(representation: str) -> None:
    check_crossings(
        normalisation="demean",
        representation=representation,
        decibels={"floor": -60.0, "ceiling": 20.0},
        unit="m/s",
        image={"height": 24, "width": 20, "resized": (32, 30), "normalisation": "imagenet"},
    )


def check_crossings(**changes: object) -> None:
    windows = torch.from_numpy(noise(4, spec().window_shape))
    with FakeTensorMode() as fake:
        with torch.device("cuda"):
            network = TwoHeads().eval()
        on_device = OnDevice(network, spec(**changes), Elsewhere())
        memory = on_device._new(4)
        assert memory.answer_there.device.type == "cuda"
        with torch.no_grad(), Copies() as copies:  # under inference_mode what operators are made of would not be seen
            on_device.launch(memory, fake.from_tensor(windows))
    assert copies.seen == {"cpu to cuda": 1, "cuda to cpu": 1}


HOST = {
    f"aten::{name}"
    for name in ("to", "arange", "item", "nonzero", "Bool", "Float", "FloatImplicit", "Int", "IntImplicit")
}
"""Operators that make something on the host, or ask the device for a number."""


def asked_of_host(network: torch.jit.ScriptModule) -> set[str]:
    return {node.kind() for kind in HOST for node in network.graph.findAllNodes(kind)}


@pytest.mark.parametrize("path", [DETECTOR, ZOO / "detector-efficientnet.pt", CHARACTERISER])
def test_shipped_networks_ask_nothing_of_the_host(path: Path) -> None:
    """It could not be recorded, and its batches would wait."""
    content = read_content(path)
    network = read_network(path, content, parse_spec(path, content), "cpu")
    assert not asked_of_host(torch.jit.freeze(network))


def test_a_network_that_asks_the_host_is_known() -> None:
    def forward(images: torch.Tensor) -> torch.Tensor:
        return images / float(images.max()) + torch.arange(3)

    assert asked_of_host(torch.jit.script(forward)) == {"aten::Float", "aten::arange"}


# -- what it does when that fails


class CannotRecord(Told):
    def record(self, launch: Callable[[], None]) -> Callable[[], None] | None:
        super().record(launch)
        raise RuntimeError("operation not permitted when stream is capturing\nand a page more")


class Forgets(Told):
    """What it recorded does nothing."""

    def record(self, launch: Callable[[], None]) -> Callable[[], None] | None:
        super().record(launch)
        return lambda: None


class Remembers(Told):
    """What it recorded answers for the batch that it was recorded with, whatever it is asked."""

    owner: OnDevice

    def record(self, launch: Callable[[], None]) -> Callable[[], None] | None:
        super().record(launch)
        launch()
        memory = self.owner._memory[4]
        recorded = memory.answer_there.clone()
        return lambda: memory.answer_there.copy_(recorded)  # type: ignore[func-returns-value, return-value]


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (CannotRecord(), "operation not permitted when stream is capturing"),
        (Forgets(), "left a batch without an answer"),
        (Remembers(), "a probability differs by"),
    ],
)
def test_what_cannot_be_recorded_is_launched_step_by_step_and_told_once(
    stream: Told, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    on_device = stream.owner = toy(stream)  # type: ignore[attr-defined]
    for size in (4, 1, 16):
        on_device.warm_up(size)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("no CUDA graph of batches of 4, each step is launched by itself: ")
    assert reason in record.getMessage()
    assert "\n" not in record.getMessage()
    assert stream.said.count("record") == 1, "not tried again"
    assert on_device.recorded == {4: False, 1: False, 16: False}
    windows = noise(4, spec().window_shape, 7)
    np.testing.assert_allclose(on_device.predict(windows), by_steps(windows, spec()), rtol=0, atol=TOLERANCE / 10)


class NothingArrives(torch.Tensor):
    def copy_(self, *_: object, **__: object) -> NothingArrives:  # type: ignore[override]
        return self


@pytest.mark.parametrize("what", ["a graph that does nothing", "a copy that never arrives"])
def test_the_answer_to_the_last_batch_is_never_given_for_the_next(what: str) -> None:
    on_device = toy(Told())
    on_device.warm_up(4)
    assert (on_device.predict(noise(4, spec().window_shape)) > 0).all()
    memory = on_device._memory[4]
    if what == "a graph that does nothing":
        memory.replay = lambda: None
    else:
        memory.answer = memory.answer.as_subclass(NothingArrives)
    with pytest.raises(RuntimeError, match="left a batch without an answer"):
        on_device.predict(noise(4, spec().window_shape, 1))


def test_answers_given_out_stay_as_they_are() -> None:
    on_device = toy()
    on_device.warm_up(4)
    first = on_device.predict(noise(4, spec().window_shape))
    kept = first.copy()
    on_device.predict(noise(4, spec().window_shape, 1))
    np.testing.assert_array_equal(first, kept)


class Lost(Told):
    lost = False

    def wait(self) -> None:
        super().wait()
        if self.lost:
            raise torch.OutOfMemoryError("CUDA out of memory")


def test_memory_of_a_batch_that_failed_is_not_used_again() -> None:
    """Copies may still be on their way when the next batch is filled in."""
    stream = Lost()
    on_device = toy(stream)
    on_device.warm_up(4)
    before = on_device._memory[4]
    stream.lost = True
    with pytest.raises(RuntimeError, match="out of memory"):
        on_device.predict(noise(4, spec().window_shape))
    assert not on_device.recorded
    stream.lost = False
    windows = noise(4, spec().window_shape, 2)
    np.testing.assert_allclose(on_device.predict(windows), by_steps(windows, spec()), rtol=0, atol=TOLERANCE / 10)
    assert (before.windows != torch.from_numpy(windows)).any()


# -- in a compiled model


def placed(monkeypatch: pytest.MonkeyPatch, made: Callable[[Any, ModelSpec], OnDevice]) -> CompiledModel:
    """The shipped detector, loaded as on a GPU."""
    monkeypatch.setattr("quake.backends.torchscript.TorchScript.on_device", lambda self, of: made(self.network, of))
    return CompiledModel.load(DETECTOR, "cpu", threads=1)


def test_a_model_with_a_device_predicts_there(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Told()
    model = placed(monkeypatch, lambda network, of: OnDevice(network, of, stream))
    assert stream.said == ["wait"], "its own test windows, against transform and score"
    model.warm_up((1, 4))
    assert model._on_device is not None
    assert model._on_device.recorded == {1: True, 4: True}
    stream.said.clear()
    windows = noise(4, model.spec.window_shape)
    np.testing.assert_allclose(
        model.predict(windows), model.score(model.transform(windows)), rtol=0, atol=TOLERANCE / 10
    )
    assert stream.said == ["replay", "wait"]
    windows[2, 1, 5] = np.nan
    with pytest.raises(ValueError, match="windows hold NaN or infinity, first in entry 2 of 4"):
        model.predict(windows)
    with pytest.raises(ValueError, match="windows are E/N/Z, the model reads Z/N/E"):
        model.predict(noise(4, model.spec.window_shape), components="ENZ")
    assert stream.said == ["replay", "wait"], "refused before the device saw them"


def test_an_answer_that_is_no_number_is_the_windows_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    model = placed(monkeypatch, lambda network, of: OnDevice(network, of, Processor()))
    assert model._on_device is not None
    model._on_device._network = lambda images: torch.full((len(images), 2), torch.inf)
    with pytest.raises(ValueError, match="windows are beyond what the network can add up: up to"):
        model.predict(noise(2, model.spec.window_shape))


def other_answers(network: Callable[[torch.Tensor], Any], of: ModelSpec) -> OnDevice:
    return OnDevice(lambda images: network(images) + torch.tensor([0.0, 0.01]), of, Processor())


def no_memory(network: object, of: ModelSpec) -> OnDevice:
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    ("made", "reason"), [(other_answers, "a probability differs by"), (no_memory, "CUDA out of memory")]
)
def test_a_device_that_transforms_otherwise_is_left_to_the_network_alone(
    made: Callable[[Any, ModelSpec], OnDevice],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = placed(monkeypatch, made)
    assert model._on_device is None
    assert f"{DETECTOR}: its transform stays on the processor: {reason}" in caplog.text
    windows = noise(3, model.spec.window_shape)
    np.testing.assert_array_equal(model.predict(windows), model.score(model.transform(windows)))


# -- what CUDA is asked for


class FakeCuda:
    """The calls of `torch.cuda` that a stream makes, written down."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def Stream(self) -> FakeCuda:  # noqa: N802
        self.said.append("Stream")
        return self

    def Event(self, blocking: bool) -> FakeCuda:  # noqa: N802
        self.said.append(f"Event blocking={blocking}")
        return self

    def CUDAGraph(self) -> FakeCuda:  # noqa: N802
        return self

    def current_stream(self) -> str:
        return "default"

    def wait_stream(self, other: str) -> None:
        self.said.append(f"wait_stream {other}")

    @contextmanager
    def stream(self, stream: FakeCuda) -> Iterator[None]:
        assert stream is self
        yield

    @contextmanager
    def graph(self, graph: FakeCuda, stream: FakeCuda, capture_error_mode: str) -> Iterator[None]:
        assert graph is stream is self
        assert device_module._recording.locked(), "torch records one graph at a time"
        self.said.append(f"graph {capture_error_mode}")
        yield
        self.said.append("recorded")

    def record(self, stream: FakeCuda) -> None:
        assert stream is self
        self.said.append("record")

    def synchronize(self) -> None:
        self.said.append("synchronize")

    def replay(self) -> None:
        self.said.append("replay")


def test_cuda_is_asked_for_one_stream_one_event_and_graphs_of_this_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda()
    monkeypatch.setattr(device_module, "cuda", cuda)
    stream = CudaStream()
    assert (stream.device.type, stream.pinned) == ("cuda", True)
    assert cuda.said == ["Stream", "Event blocking=True", "wait_stream default"]
    cuda.said.clear()
    replay = stream.record(lambda: cuda.said.append("launched"))
    assert replay is not None
    replay()
    stream.wait()
    assert cuda.said == ["graph thread_local", "launched", "recorded", "replay", "record", "synchronize"]
    assert not device_module._recording.locked()
    assert CudaStream(graphs=False).record(lambda: None) is None


@NEEDS_A_GPU
@pytest.mark.parametrize("graphs", [True, False])
def test_a_gpu_answers_as_the_processor_does_and_makes_nobody_wait(graphs: bool) -> None:
    on_cpu, on_gpu = (CompiledModel.load(DETECTOR, where, threads=1) for where in ("cpu", "cuda"))  # type: ignore[arg-type]
    on_device = OnDevice(on_gpu._backend.network, on_gpu.spec, CudaStream(graphs=graphs))  # type: ignore[attr-defined]
    for batch in (1, 4, 16):
        on_device.warm_up(batch)
    assert on_device.recorded == dict.fromkeys((1, 4, 16), graphs)
    for batch in (1, 4, 16):
        windows = 300 * noise(batch, on_gpu.spec.window_shape, batch)
        with torch.inference_mode(), on_device._stream.current():
            torch.cuda.set_sync_debug_mode("error")
            try:
                on_device.launch(on_device._memory[batch], torch.from_numpy(windows))
            finally:
                torch.cuda.set_sync_debug_mode("default")
            on_device._stream.wait()
        expected = on_cpu.predict(windows)
        np.testing.assert_allclose(on_device.predict(windows), expected, rtol=0, atol=10 * TOLERANCE)
        np.testing.assert_allclose(on_device._memory[batch].answer, expected, rtol=0, atol=10 * TOLERANCE)


@NEEDS_A_GPU
def test_a_model_on_a_gpu_goes_there_in_one_step() -> None:
    model = CompiledModel.load(DETECTOR, "cuda", threads=1)
    assert model._on_device is not None
    model.warm_up((1, 4))
    assert model._on_device.recorded == {1: True, 4: True}
    assert model._on_device._new(1).windows.is_pinned()
    windows = noise(4, model.spec.window_shape)
    np.testing.assert_allclose(model.predict(windows), model.score(model.transform(windows)), rtol=0, atol=TOLERANCE)


def test_no_probability_is_taken_for_an_answer() -> None:
    assert not 0.0 <= UNANSWERED <= 1.0
