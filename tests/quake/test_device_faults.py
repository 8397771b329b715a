"""A device that cannot record, that leaves batches out, or is lost: what is never given out, and who goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from made_device import Told, by_steps, noise, spec, toy

from quake import device as device_module
from quake.artifact import CompiledModel, ModelSpec
from quake.device import TOLERANCE, UNANSWERED, CudaStream, OnDevice, Processor
from quake.versions import ZOO

DETECTOR = ZOO / "detector.pt"


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


def test_no_probability_is_taken_for_an_answer() -> None:
    assert not 0.0 <= UNANSWERED <= 1.0


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
