"""Transform and network on a device: what it answers, what it copies, launches and waits for.

A GPU is not needed: `Processor` takes the same steps, and torch's fake tensors know on which device they would be. What a
GPU alone can say stands at the end, and is skipped without one.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_device import NETWORK, Told, TwoHeads, by_steps, noise, spec, toy
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from quake.artifact import CompiledModel
from quake.backends.torchscript import read_network
from quake.data.spec_file import parse_spec, read_content
from quake.device import TOLERANCE, WARM_UPS, CudaStream, OnDevice, Processor
from quake.versions import ZOO

DETECTOR, CHARACTERISER = ZOO / "detector.pt", ZOO / "characteriser.pt"
NEEDS_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


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
        answer = on_device.predict(windows, stream.say)
        assert ",".join(stream.said) == expected
        np.testing.assert_allclose(answer, by_steps(windows, spec()), rtol=0, atol=TOLERANCE / 10)


def test_memory_on_the_host_is_pinned_and_that_on_the_device_is_the_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[bool] = []

    def empty(shape: tuple[int, ...], *, pin_memory: bool = False, device: torch.device | None = None) -> torch.Tensor:
        assert stream.is_current
        pinned.append(pin_memory)
        assert device is None if pin_memory else device == stream.device
        return torch.zeros(shape)

    stream = Told()
    stream.pinned = True  # type: ignore[misc]
    on_device = toy(stream)
    monkeypatch.setattr(torch, "empty", empty)
    on_device.warm_up(4)
    on_device.predict(noise(4, spec().window_shape))
    assert pinned == [True, True, False, False], "once, and used again"


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


# -- on a GPU


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
