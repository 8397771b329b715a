"""The documents' examples, as docs/reference/networks.md quotes them, run as they stand.

What they load comes the real way, from the libraries' caches, where random weights lie in place of the published ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import cos, pi
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from networks_document import DOCUMENT, blocks, files, text
from torch import Tensor, nn

from quake.models import Backbone, ConvNeXtMultiTask, EfficientNetBackbone

EXAMPLES = "## The documents' examples"


def published(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Lay random weights where the document says that published ones go; returned by the library's name."""
    made = {}
    for name in (Backbone.TINY.value, EfficientNetBackbone.B0.value, "convnext_tiny"):
        file, of_timm = files()[name], "/" in files()[name]
        network = timm.create_model(name) if of_timm else torchvision.models.get_model(name, weights=None)
        made[name] = network.state_dict()
        if of_timm:
            place = folder / "hub" / f"models--{file.replace('/', '--')}" / "snapshots" / "main" / "model.safetensors"
        else:
            place = folder / "hub" / "checkpoints" / file
        place.parent.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(made[name], place) if of_timm else torch.save(made[name], place)
    return made


def events() -> list[pd.DataFrame]:
    """Twenty, of different lengths, some with NaN; the shortest has 2080 samples once those are dropped."""
    rng = np.random.default_rng(0)
    made = []
    for index in range(20):
        frame = pd.DataFrame(rng.normal(size=(2080 + 7 * index, 3)), columns=["Z", "N", "E"])
        frame.loc[2080 : 2080 + index, "N"] = np.nan
        made.append(frame)
    return made


Spaces = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Tensor]]]:
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(folder))
        patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder / "hub"))  # read from HF_HOME at import
        yield published(folder)


@pytest.fixture(scope="module")
def ran(weights: dict[str, dict[str, Tensor]]) -> Spaces:
    """Title of each example -> the names as they were after it."""
    space: dict[str, Any] = {
        "events": events(),
        "labels": np.array(["earthquake", "noise"] * 10),
        "channels": ("Z", "N", "E"),
        "freq_bins": 33,
        "time_frames": 64,
        "nn": nn,
        "AdamW": torch.optim.AdamW,
        "cos": cos,
        "π": pi,
        "train_loader": range(3),
    }
    after: Spaces = {}
    for title, code in blocks(EXAMPLES):
        if "Optimizer Settings" in title:
            space["model"] = ConvNeXtMultiTask(variant="tiny", pretrained=True)
        exec(compile(code, str(DOCUMENT), "exec"), space)
        after[title] = dict(space)
    return after


def names_of(ran: Spaces, document: str, section: str) -> dict[str, Any]:
    (found,) = [space for title, space in ran.items() if title.startswith(f'*{document}*, "{section}')]
    return found


def answer(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model.eval()(torch.rand(2, 3, 33, 64))


HYBRID, PIPELINE, README = (
    "Hybrid CNN-ViT Model",
    "Hybrid ViT Training Pipeline",
    "Seismic Event Classification with Neural Networks",
)


@pytest.mark.parametrize(
    ("document", "section", "depth"),
    [
        (HYBRID, "Usage", 4),
        (HYBRID, "Depth Selection", 12),
        (PIPELINE, "Model Parameters", 4),
        (README, "Hybrid CNN-ViT", 4),
    ],
)
def test_hybrid_vits_of_the_examples_have_the_published_blocks(
    ran: Spaces, weights: dict[str, dict[str, Tensor]], document: str, section: str, depth: int
) -> None:
    model = names_of(ran, document, section)["model"]
    assert len(model.blocks) == depth
    ours, theirs = model.state_dict(), weights[Backbone.TINY.value]
    for name in ("cls_token", f"blocks.{depth - 1}.mlp.fc2.weight", "norm.bias"):
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=0)
    assert answer(model).shape == (2, 2)


@pytest.mark.parametrize(("document", "section"), [(HYBRID, "Input Requirements"), (PIPELINE, "Preprocessing")])
def test_adapters_of_the_examples_give_what_the_model_reads(ran: Spaces, document: str, section: str) -> None:
    train, test = names_of(ran, document, section)["adapter"].get_datasets()
    assert (len(train), len(test)) == (14, 6)
    assert train[0][0].shape == (3, 33, 64)
    assert answer(names_of(ran, PIPELINE, "Model Parameters")["model"]).shape == (2, 2)


def test_the_example_with_a_spectrum_gives_one(ran: Spaces) -> None:
    space = names_of(ran, README, "Preprocessing")
    assert len(space["events_train"]) + len(space["events_test"]) == 20
    assert space["events_train"][0][0].shape == (3, 17)


@pytest.mark.parametrize(("section", "shape"), [("LSTM Pipeline (FFT)", (3, 257)), ("HybridViT Pipeline", (3, 33, 64))])
def test_transforms_of_the_examples_are_applied_on_reading_and_those_of_training_change_items(
    ran: Spaces, section: str, shape: tuple[int, ...]
) -> None:
    space = names_of(ran, "Data Processing Module", section)
    assert space["test_ds"][0][0].shape == shape
    assert space["train_ds"][0][0].shape == shape
    unchanged = space["adapter"].get_datasets(space["test_transform"])[0]
    assert any(not torch.equal(space["train_ds"][i][0], unchanged[i][0]) for i in range(len(unchanged)))


def test_the_efficientnet_of_the_examples_has_the_published_weights(
    ran: Spaces, weights: dict[str, dict[str, Tensor]]
) -> None:
    model = names_of(ran, "EfficientNet Model", "Usage")["model"]
    key = "features.8.0.weight"
    torch.testing.assert_close(model.backbone.state_dict()[key], weights["efficientnet_b0"][key], rtol=0, atol=0)
    image = names_of(ran, "EfficientNet Model", "Input Requirements")["transform"](np.ones((3, 2080)))
    assert image.shape == (3, 33, 64)
    assert answer(model).shape == (2, 2)


def test_the_convnext_of_the_examples_is_trained(ran: Spaces, weights: dict[str, dict[str, Tensor]]) -> None:
    space = names_of(ran, "ConvNeXt Model Architecture", "Learning Rate Schedule")
    key = "features.7.2.layer_scale"
    torch.testing.assert_close(space["model"].backbone.state_dict()[key], weights["convnext_tiny"][key], rtol=0, atol=0)
    assert sum(p.numel() for group in space["optimizer"].param_groups for p in group["params"]) == 28_615_789
    assert [space["lr_lambda"](step) for step in (0, 15, 150)] == pytest.approx([0, 1, 0], abs=1e-12)


def test_every_document_that_is_named_is_quoted(ran: Spaces) -> None:
    introduction = " ".join(text().partition("## ")[0].split())
    documents = set(re.findall(r"\*([^*]+)\*", introduction))
    assert documents == {title.split("*")[1] for title in ran}
    assert len(ran) == 14


def test_our_own_example_frees_the_last_two_stages() -> None:
    ((_, code),) = blocks("## What all three have in common")
    space: dict[str, Any] = {}
    exec(code, space)
    free = {stage.name for stage in space["network"].stages if learns(space["network"], stage.parts)}
    assert free == {"stage 3", "stage 4", "heads"}
    learning = sum(p.numel() for group in space["optimizer"].param_groups for p in group["params"])
    assert learning == sum(p.numel() for p in space["network"].parameters() if p.requires_grad)


def learns(network: nn.Module, parts: Sequence[str]) -> bool:
    return any(p.requires_grad for name, p in network.named_parameters() if name.startswith(tuple(parts)))
