"""docs/reference/networks.md says what is so: its figures are held against the code.

Networks are built on the meta device. What was measured (times, resident memory) is not tested, nor are the examples,
which are `test_networks_examples.py`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from networks_document import DOCUMENT, files, names, number, says, table, tables
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import networks as benchmark
from quake.artifact import AZIMUTH_HEAD, MAGNITUDE_HEAD
from quake.models import Backbone, ConvNeXtMultiTask, ConvNeXtVariant, EfficientNet, EfficientNetBackbone, HybridViT

SIZES = {"output, 33 x 64": (33, 64), "output, 224 x 224": (224, 224)}
HYBRIDS = [(backbone, depth) for backbone in Backbone for depth in (4, 12)]


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return build().eval()


def parameters(network: nn.Module, parts: Sequence[str] | None = None) -> int:
    """Of the submodules and parameters that are named, or of all."""
    wanted = [""] if parts is None else parts
    found = network.named_parameters()
    return sum(p.numel() for name, p in found if any(not w or name == w or name.startswith(f"{w}.") for w in wanted))


def multiply_adds(network: nn.Module, size: tuple[int, int]) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, *size, device="meta"))
    return counter.get_total_flops() // 2


def outputs(network: nn.Module, size: tuple[int, int]) -> dict[str, str]:
    """Names of submodules -> the shape of what they gave, as the document writes it; an input stands under ``<name>``."""
    seen: dict[str, str] = {}

    def note(name: str, inputs: tuple[Any, ...], answer: Any) -> None:
        for key, tensor in ((f"<{name}>", inputs[0]), (name, answer)):
            if isinstance(tensor, Tensor):
                seen[key] = " x ".join(map(str, tensor.shape[1:]))

    for name, module in network.named_modules():
        module.register_forward_hook(lambda _, inputs, answer, name=name: note(name, inputs, answer))
    with torch.no_grad():
        network(torch.empty(1, 3, *size, device="meta"))
    return seen


def rounded(multiply_adds: int) -> str:
    return f"{multiply_adds / 1e6:.1f}"


@pytest.mark.parametrize(
    ("titles", "build"),
    [
        (["stage", "part of the network", "output, 33 x 64", "parameters"], HybridViT),
        (["stage", "part of the network", *SIZES, "parameters"], EfficientNet),
        (["stage", "part of the network", *SIZES, "parameters", "document"], ConvNeXtMultiTask),
    ],
)
def test_stages_have_the_parameters_and_the_shapes_of_their_table(
    titles: list[str], build: Callable[..., nn.Module]
) -> None:
    (found,) = [one for one in tables() if one.header == titles]
    *rows, total = found.dictionaries()
    network = on_meta(partial(build, pretrained=False))
    parts = [names(row["part of the network"]) for row in rows]
    counts = [number(row["parameters"]) for row in rows]
    assert counts == [parameters(network, of) for of in parts]
    assert sum(counts) == number(total["parameters"]) == parameters(network)
    for title in SIZES.keys() & set(titles):
        seen = outputs(network, SIZES[title])
        given = [seen.get(of[-1], seen.get("<blocks>")) for of in parts]  # the positions' sum is the blocks' input
        assert given == [row[title] for row in rows]


def test_hybrid_vits() -> None:
    said = {}
    for row in table("backbone", "width", "heads"):
        for backbone in names(row["backbone"]):
            said[backbone, int(row["depth"])] = row
    assert said.keys() == {(backbone.name, depth) for backbone, depth in HYBRIDS}
    for backbone, depth in HYBRIDS:
        row = said[backbone.name, depth]
        network = on_meta(partial(HybridViT, backbone, depth if depth < 12 else None, pretrained=False))
        attention: Any = network.blocks[0].attn
        assert (int(row["width"]), int(row["heads"])) == (network.head.in_features, attention.num_heads)
        assert number(row["parameters"]) == parameters(network)
        assert row["multiply-adds, M"] == rounded(multiply_adds(network, (33, 64)))


@pytest.mark.drill
def test_efficientnets() -> None:
    rows = table("backbone", "parameters, 2 classes")
    assert [names(row["backbone"])[0] for row in rows] == EfficientNetBackbone._member_names_
    for row, backbone in zip(rows, EfficientNetBackbone, strict=True):
        network = on_meta(partial(EfficientNet, backbone, pretrained=False))
        whole = on_meta(partial(torchvision.models.get_model, backbone.value, weights=None))
        assert number(row["parameters, 2 classes"]) == parameters(network)
        assert number(row["parameters, 1,000 classes"]) == parameters(whole)
        assert row["multiply-adds at 33 x 64, M"] == rounded(multiply_adds(network, (33, 64)))
        assert row["multiply-adds at 224 x 224, M"] == rounded(multiply_adds(network, (224, 224)))


def test_what_torchvision_says_of_its_efficientnets() -> None:
    rows = table("backbone", "image size")
    assert [names(row["backbone"])[0] for row in rows] == EfficientNetBackbone._member_names_
    for row, backbone in zip(rows, EfficientNetBackbone, strict=True):
        weights = torchvision.models.get_model_weights(backbone.value).DEFAULT
        assert [int(row["image size"])] == weights.transforms().crop_size
        assert float(row["top-1, %"]) == weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]


@pytest.mark.drill
def test_convnexts() -> None:
    rows = table("variant", "width")
    assert [names(row["variant"])[0] for row in rows] == list(ConvNeXtVariant)
    for row, variant in zip(rows, ConvNeXtVariant, strict=True):
        network = on_meta(partial(ConvNeXtMultiTask, variant, pretrained=False))
        assert (int(row["width"]),) == network.mag_head[0].normalized_shape
        assert number(row["parameters"]) == parameters(network)
        assert row["multiply-adds at 224 x 224, M"] == rounded(multiply_adds(network, (224, 224)))
        assert row["at 33 x 64, M"] == rounded(multiply_adds(network, (33, 64)))
        assert float(row["stochastic depth"]) == pytest.approx(last_drop_probability(network))


def last_drop_probability(network: nn.Module) -> float:
    """Of torchvision's or timm's last block."""
    drops = [m for m in network.modules() if type(m).__name__ in {"StochasticDepth", "DropPath"}]
    return float(drops[-1].p if hasattr(drops[-1], "p") else drops[-1].drop_prob)


@pytest.mark.parametrize(
    ("first", "subjects", "unit"),
    [
        ("network, 224 x 224", benchmark.baselines, 1e9),
        pytest.param("network", partial(benchmark.products, tuple(ConvNeXtVariant)), 1e6, marks=pytest.mark.drill),
    ],
)
def test_sizes_beside_the_measurements(
    first: str, subjects: Callable[[], list[benchmark.Subject]], unit: float
) -> None:
    (found,) = [one for one in tables() if one.header[:2] == [first, "parameters"]]
    given = [tuple(row[:4]) for row in found.rows]
    assert given == [benchmark.name_and_size(subject, benchmark.size_of(subject), unit) for subject in subjects()]


def test_what_the_convnext_document_miscounts() -> None:
    *rows, total = table("stage", "part of the network", *SIZES, "parameters", "document")
    claimed = sum(number(row["document"]) for row in rows if row["document"])
    assert claimed != number(total["document"])
    assert says(f"they add up to {claimed:,}")
    network = on_meta(partial(ConvNeXtMultiTask, pretrained=False))
    for stage, width in ((1, 96), (3, 192), (5, 384), (7, 768)):
        block = f"backbone.features.{stage}.0"
        assert parameters(network, [block]) == 8 * width**2 + 58 * width
    assert says("8 C² + 58 C parameters")
    assert parameters(network, ["azi_head"]) - parameters(network, ["mag_head"]) == 5 * (512 + 1)
    claims = {names(row["part of the network"])[0]: row["document"] for row in rows}
    stages = zip((1, 3, 5, 7), (96, 192, 384, 768), (3, 3, 9, 3), strict=True)
    factors = [number(claims[f"backbone.features.{s}"]) / (blocks * width**2) for s, width, blocks in stages]
    assert factors == [16, 16, 12, 4]


def test_what_is_said_of_hybrid_vit() -> None:
    blocks = (parameters(on_meta(partial(HybridViT, b, pretrained=False)), ["blocks"]) for b in list(Backbone)[:3])
    assert says("alone have {:.2f}, {:.2f} and {:.2f} million".format(*(count / 1e6 for count in blocks)))
    whole = parameters(on_meta(partial(timm.create_model, Backbone.TINY.value)))
    assert says(f"({whole:,} for `TINY`)")
    attention = 4 * 2 * 41 * 41 * 192  # four blocks; queries with keys, weights with values
    every = multiply_adds(on_meta(partial(HybridViT, pretrained=False)), (33, 64))
    assert says(f"{rounded(attention)} M of the {rounded(every)} M multiply-adds")


def test_what_is_said_of_efficientnet() -> None:
    network = on_meta(partial(EfficientNet, pretrained=False))
    convolutions = sum(isinstance(module, nn.Conv2d) for module in network.modules())
    assert sum(isinstance(module, nn.Linear) for module in network.modules()) == 1
    assert says(f"{convolutions} convolutions and one linear layer")
    squeezes = [m for m in network.modules() if isinstance(m, torchvision.ops.SqueezeExcitation)]
    assert {type(squeeze.activation) for squeeze in squeezes} == {nn.SiLU}
    assert says(f"{1.1**0.5 - 1:.0%}".replace("%", " %") + " wider")
    assert says(f"{1.2**3:.2f} deep, {1.1**3:.2f} wide and {224 * 1.15**3:.0f} pixels")


def test_vgg16_has_no_batch_norm() -> None:
    vgg = benchmark.baselines()[0]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in on_meta(vgg.build).modules())


def test_loud_and_quiet_patches_of_one_pattern_become_alike_in_convnext() -> None:
    torch.manual_seed(0)
    stem = ConvNeXtMultiTask("atto", pretrained=False).backbone.stem.eval()
    pattern = torch.randn(1, 3, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(stem(1e3 * pattern), stem(1e6 * pattern), rtol=0, atol=1e-2)
        assert (stem(1e3 * pattern) - stem(1e3 * torch.randn(1, 3, 4, 4))).abs().max() > 1


@pytest.mark.parametrize(
    ("family", "build"),
    [
        ("HybridViT", lambda size: HybridViT(img_size=size, pretrained=False)),
        ("EfficientNet", lambda _: EfficientNet(pretrained=False)),
        ("ConvNeXtMultiTask", lambda _: ConvNeXtMultiTask("atto", pretrained=False)),
    ],
)
def test_smallest_sizes(family: str, build: Callable[[tuple[int, int]], nn.Module]) -> None:
    (row,) = [row for row in table("class", "file", "reads") if names(row["class"]) == [family]]
    height, width = map(int, re.search(r"at least (\d+) x (\d+)", row["reads"]).groups())
    on_meta(lambda: build((height, width)))(torch.empty(1, 3, height, width, device="meta"))
    with pytest.raises(ValueError, match=f"{height} x {width}"):
        on_meta(lambda: build((height - 1, width)))(torch.empty(1, 3, height - 1, width, device="meta"))
    assert (DOCUMENT.parents[2] / names(row["file"])[0]).is_file()


def test_classes() -> None:
    said = {row["head"]: tuple(row["classes, in order"].split(", ")) for row in table("head", "classes, in order")}
    assert said == {head.name: head.classes for head in (MAGNITUDE_HEAD, AZIMUTH_HEAD)}
    network = on_meta(partial(ConvNeXtMultiTask, pretrained=False))
    widths = [head[-1].out_features for head in (network.mag_head, network.azi_head)]
    assert widths == [len(classes) for classes in said.values()]


def test_files_of_pretrained_weights() -> None:
    said = files()
    assert len(said) == len(Backbone) + len(EfficientNetBackbone) + len(ConvNeXtVariant)
    for name, file in said.items():
        if "/" in file:
            assert timm.get_pretrained_cfg(name).hf_hub_id == file
        else:
            assert Path(torchvision.models.get_model_weights(name).DEFAULT.url).name == file
