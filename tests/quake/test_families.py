"""Every network of every family becomes a file and comes back: any batch, both backends."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from quake.artifact import AZIMUTH_HEAD, MAGNITUDE_HEAD, CompiledModel, ModelSpec, compile_model, export_onnx
from quake.data.spectrogram import spectrogram
from quake.models import Backbone, ConvNeXtMultiTask, ConvNeXtVariant, EfficientNet, EfficientNetBackbone, HybridViT

BATCHES = (1, 2, 7, 64)
"""1 and 64 are the ends, 7 is no power of two."""
LARGEST_FOR_ONNX = 60_000_000
"""Parameters. Beyond it every file would be half a gigabyte, and of the same operators."""
EVENT = {"name": "event", "classes": ("noise", "earthquake")}
FIELDS: dict[str, Any] = {
    "name": "toy",
    "version": "0.1.0",
    "architecture": "one of the families, random",
    "components": ("Z", "N", "E"),
    "sampling_rate_hz": 100.0,
    "window_samples": 2080,
    "stft": {"nperseg": 64, "hop": 32, "window": "hann"},
    "gain": 1e5,
    "training_data": (),
}
DETECTOR = {"task": "detect", "heads": (EVENT,), "thresholds": {"on": 0.9, "off": 0.5}}
CHARACTERISER = {
    "task": "characterise",
    "heads": (MAGNITUDE_HEAD, AZIMUTH_HEAD),
    "image": {"height": 32, "width": 32, "normalisation": "imagenet"},  # as small as it may be: 64 of them are scored
}
AS_DESIGNED = {
    **CHARACTERISER,
    "unit": "m/s",
    "normalisation": "demean",
    "representation": "cross_decibel",
    "decibels": {"floor": -80.0, "ceiling": 20.0},
    "gain": 1.0,
    "image": {"height": 224, "width": 224},
}
"""Size and sign of the motion, at the size of photographs."""

LARGE = {
    Backbone.BASE,
    Backbone.DEIT_SMALL,  # built as SMALL is
    EfficientNetBackbone.B4,
    EfficientNetBackbone.V2_S,
    EfficientNetBackbone.V2_M,
    ConvNeXtVariant.SMALL,
    ConvNeXtVariant.BASE,
    ConvNeXtVariant.LARGE,
    ConvNeXtVariant.XLARGE,
    # Small of their family, and still ten seconds: a smaller one of it is compiled in every run.
    EfficientNetBackbone.B1,
    EfficientNetBackbone.B2,
    EfficientNetBackbone.B3,
    ConvNeXtVariant.PICO,
    ConvNeXtVariant.NANO,
    ConvNeXtVariant.FEMTO,
    ConvNeXtVariant.TINY,
}
"""Built as the others are, and ten seconds to some minutes each."""


def variants(family: type[Any], names: type[StrEnum], task: dict[str, Any]) -> list[Any]:
    return [
        pytest.param(partial(family, name, pretrained=False), task, id=name.name, marks=drill if name in LARGE else ())
        for name in names
    ]


drill = (pytest.mark.drill, pytest.mark.timeout(900))
vits = variants(HybridViT, Backbone, DETECTOR)
whole_vit = pytest.param(partial(HybridViT, depth=None, pretrained=False), DETECTOR, id="TINY-12", marks=drill)
efficient = variants(EfficientNet, EfficientNetBackbone, DETECTOR)
photographs = pytest.param(
    partial(ConvNeXtMultiTask, "atto", pretrained=False), AS_DESIGNED, id="ATTO-224", marks=drill
)
convnexts = variants(ConvNeXtMultiTask, ConvNeXtVariant, CHARACTERISER)


def rounded(network: nn.Module) -> nn.Module:
    for parameter in network.parameters():
        if parameter.ndim >= 2 and parameter.numel() > len(parameter):
            parameter.data = parameter.data.half().float()
    return network


def logits(network: nn.Module, images: np.ndarray) -> list[np.ndarray]:
    with torch.inference_mode():
        answer = network(torch.from_numpy(images))
    return [head.numpy() for head in (answer if isinstance(answer, tuple) else (answer,))]


def settled(network: nn.Module, images: np.ndarray) -> nn.Module:
    """Statistics of the images in the norms: without them a deep random network answers the same to every window."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of all that was seen
    with torch.no_grad():
        network.train()(torch.from_numpy(images))
    return network.eval()


@pytest.mark.parametrize(("make", "task"), [*vits, whole_vit, *efficient, *convnexts, photographs])
def test_compiles_and_comes_back(make: Callable[[], nn.Module], task: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = ModelSpec.model_validate({**FIELDS, **task})
    windows = np.random.default_rng(0).standard_normal((max(BATCHES), 3, 2080)).astype(np.float32)
    images = spectrogram(windows, spec.spectrogram)
    network = settled(make(), images)
    path = tmp_path / "toy.pt"
    path.write_bytes(compile_model(network, spec, images[:8]))
    model = CompiledModel.load(path, "cpu")
    # A deep random network doubles each rounding many times over: the file's own float16 weights, then, not others.
    expected = [torch.softmax(torch.from_numpy(head), 1).numpy() for head in logits(rounded(network), images)]
    for batch in BATCHES:
        answer = model.spec.by_head(model.score(images[:batch]))
        for head, wanted in zip(answer.values(), expected, strict=True):
            np.testing.assert_allclose(head, wanted[:batch], atol=1e-3)
    if sum(parameter.numel() for parameter in network.parameters()) < LARGEST_FOR_ONNX:
        small = tmp_path / "toy.onnx"
        small.write_bytes(export_onnx(path))
        twin = CompiledModel.load(small, "cpu", "onnxruntime")
        for batch in BATCHES:
            np.testing.assert_allclose(twin.score(images[:batch]), model.score(images[:batch]), atol=1e-4)


@pytest.mark.parametrize(
    ("make", "task"),
    [
        pytest.param(partial(HybridViT, pretrained=False), DETECTOR, id="HybridViT"),
        pytest.param(partial(EfficientNet, pretrained=False), DETECTOR, id="EfficientNet", marks=pytest.mark.drill),
        pytest.param(
            partial(ConvNeXtMultiTask, "tiny", pretrained=False),
            CHARACTERISER,
            id="torchvision-ConvNeXt",
            marks=pytest.mark.drill,
        ),
        pytest.param(partial(ConvNeXtMultiTask, "atto", pretrained=False), CHARACTERISER, id="timm-ConvNeXt"),
    ],
)
def test_each_family_can_be_scripted(make: Callable[[], nn.Module], task: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = make()
    spec = ModelSpec.model_validate({**FIELDS, **task})
    images = np.random.default_rng(1).random((5, *spec.input_shape), np.float32)
    answers = []
    for method in ("trace", "script"):
        path = tmp_path / f"{method}.pt"
        path.write_bytes(compile_model(network, spec, images, method))  # type: ignore[arg-type]
        answers.append(CompiledModel.load(path, "cpu").score(images))
    np.testing.assert_allclose(*answers, atol=1e-5)
