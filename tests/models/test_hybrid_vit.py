"""HybridViT: shapes of its stages, its one size, and what it takes from a published ViT."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from made_weights import Caches
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from models.hybrid_vit import resize_positions
from quake.models import Backbone, HybridViT

WIDTHS = {
    Backbone.TINY: (192, 3),
    Backbone.SMALL: (384, 6),
    Backbone.BASE: (768, 12),
    Backbone.DEIT_TINY: (192, 3),
    Backbone.DEIT_SMALL: (384, 6),
}
"""Width of the tokens and number of heads, from the design."""


@pytest.fixture(scope="module")
def network() -> HybridViT:
    torch.manual_seed(0)
    return HybridViT(pretrained=False).eval()


def shapes_of(network: nn.Module, images: Tensor) -> dict[str, tuple[int, ...]]:
    """Name of each submodule -> shape of what it answers, the batch left out."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> None:
        def hook(_: nn.Module, __: object, answer: Tensor) -> None:
            shapes[name] = tuple(answer.shape[1:])

        network.get_submodule(name).register_forward_hook(hook)

    for name, _ in network.named_modules():
        note(name)
    network(images)
    return shapes


WHOLE = (Backbone.SMALL, Backbone.BASE, Backbone.DEIT_SMALL)


@pytest.mark.parametrize(
    ("backbone", "depth"),
    [
        pytest.param(backbone, depth, marks=[pytest.mark.drill] if depth is None and backbone in WHOLE else [])
        for backbone in Backbone
        for depth in (4, None)
    ],
)
def test_every_backbone_has_the_documents_shapes_and_learns(backbone: Backbone, depth: int | None) -> None:
    made = HybridViT(backbone, depth=depth, pretrained=False)
    width, heads = WIDTHS[backbone]
    shapes = shapes_of(made, torch.randn(2, 3, 33, 64))
    assert [shapes[f"stem.{last}"] for last in (2, 5, 7)] == [(64, 17, 32), (128, 9, 16), (width, 5, 8)]
    blocks = [shapes[f"blocks.{index}"] for index in range(len(made.blocks))]
    assert blocks == [(41, width)] * (depth or 12)
    assert [shapes[name] for name in ("norm", "dropout", "head", "")] == [(41, width), (width,), (2,), (2,)]
    assert all(block.attn.num_heads == heads for block in made.blocks)
    made(torch.randn(2, 3, 33, 64)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in made.parameters())


def test_convolutions_have_no_bias_and_the_stem_ends_without_relu(network: HybridViT) -> None:
    kinds = [type(part).__name__ for part in network.stem]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d"]
    convolutions = [part for part in network.stem if isinstance(part, nn.Conv2d)]
    assert all(part.bias is None for part in convolutions)
    assert [(part.kernel_size[0], part.padding[0]) for part in convolutions] == [(7, 3), (3, 1), (3, 1)]


def test_answers_do_not_depend_on_the_batch(network: HybridViT) -> None:
    images = torch.randn(4, 3, 33, 64)
    with torch.no_grad():
        together, alone = network(images), torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_features_are_what_the_head_reads(network: HybridViT) -> None:
    images = torch.randn(2, 3, 33, 64)
    features = network.features(images)
    assert features.shape == (2, 192)
    torch.testing.assert_close(network.head(features), network(images))


def test_other_sizes_channels_and_classes() -> None:
    made = HybridViT(depth=1, in_channels=1, num_classes=5, img_size=(65, 40), pretrained=False)
    assert made.grid == (9, 5)
    assert made.eval()(torch.zeros(1, 1, 65, 40)).shape == (1, 5)
    smallest = HybridViT(depth=1, img_size=(8, 8), pretrained=False).eval()
    assert smallest(torch.zeros(1, 3, 8, 8)).shape == (1, 2)


def test_a_replaced_head_answers_for_other_classes_on_the_same_features() -> None:
    made = HybridViT(depth=1, freeze_backbone=True, pretrained=False).double().eval()
    images = torch.randn(2, 3, 33, 64, dtype=torch.float64)
    before = made.features(images)
    made.replace_head(7)
    assert made(images).shape == (2, 7)
    assert made(images).dtype == torch.float64
    torch.testing.assert_close(made.features(images), before, rtol=0, atol=0)
    assert made.head.weight.requires_grad


@pytest.mark.parametrize("grid", [(5, 8), (9, 5), (1, 1), (20, 28), (14, 14)])
def test_positions_are_timms_without_antialias(grid: tuple[int, int]) -> None:
    positions = torch.randn(1, 197, 8)
    expected = resample_abs_pos_embed(positions, list(grid), old_size=[14, 14], antialias=False)
    torch.testing.assert_close(resize_positions(positions, grid), expected, rtol=0, atol=1e-6)


def test_antialias_would_smooth_where_the_grid_shrinks() -> None:
    positions = torch.randn(1, 197, 64)
    smoothed = resample_abs_pos_embed(positions, [5, 8], old_size=[14, 14])
    ours = resize_positions(positions, (5, 8))
    assert smoothed[:, 1:].std() < 0.7 * ours[:, 1:].std()


@pytest.mark.parametrize("backbone", [Backbone.TINY, Backbone.DEIT_TINY])
def test_published_weights_but_for_stem_and_head(caches: Caches, backbone: Backbone) -> None:
    published = caches.lay_timm(backbone)
    made = HybridViT(backbone, depth=3)
    own = made.state_dict()
    kept = [key for key in published if key.startswith(("blocks.0.", "blocks.1.", "blocks.2.", "norm.", "cls_token"))]
    assert len(kept) == 3 * 12 + 2 + 1
    for key in kept:
        torch.testing.assert_close(own[key], published[key], rtol=0, atol=0)
    positions = resample_abs_pos_embed(published["pos_embed"], [5, 8], antialias=False)
    torch.testing.assert_close(own["pos_embed"], positions, rtol=0, atol=1e-6)


def test_blocks_answer_as_timms_own_network(caches: Caches) -> None:
    published = caches.lay_timm(Backbone.TINY)
    reference = timm.create_model(Backbone.TINY.value, pretrained=False)
    reference.load_state_dict(published)
    made = HybridViT(depth=None, img_size=(112, 112), in_channels=1).eval()  # 14 x 14 tokens, as the reference
    tokens = torch.randn(1, 197, 192)
    with torch.no_grad():
        torch.testing.assert_close(made.norm(made.blocks(tokens)), reference.norm(reference.eval().blocks(tokens)))
    torch.testing.assert_close(made.pos_embed, reference.pos_embed)


def test_the_size_is_the_networks_own(network: HybridViT) -> None:
    with pytest.raises(ValueError, match="images are 33 x 65, and the network is for img_size 33 x 64"):
        network(torch.zeros(1, 3, 33, 65))
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\), not \[1, 2, 33, 64\]"):
        network(torch.zeros(1, 2, 33, 64))


@pytest.mark.parametrize("img_size", [(7, 64), (33, 7), (0, 0)])
def test_a_size_below_the_stride_is_refused(img_size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="is too small: the smallest is 8 x 8"):
        HybridViT(img_size=img_size, pretrained=False)


@pytest.mark.parametrize("img_size", [64, (64,), (3, 33, 64)])
def test_a_size_is_a_height_and_a_width(img_size: Any) -> None:
    with pytest.raises(ValueError, match=r"img_size is \(height, width\), not "):
        HybridViT(img_size=img_size, pretrained=False)


@pytest.mark.parametrize("depth", [0, 13, -1])
def test_a_depth_that_cannot_be_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=f"depth {depth} is not within 1 to 12"):
        HybridViT(depth=depth, pretrained=False)


def test_settings_that_cannot_be_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"Backbone 'vit' is none of vit_tiny_patch16_224, .*deit_small_patch16_224"):
        HybridViT("vit", pretrained=False)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_classes 0 is not positive"):
        HybridViT(num_classes=0, pretrained=False)
    with pytest.raises(ValueError, match="in_channels 0 is not positive"):
        HybridViT(in_channels=0, pretrained=False)


def test_stochastic_depth_rises_over_the_blocks_that_are_kept() -> None:
    made = HybridViT(depth=4, stochastic_depth=0.3, pretrained=False)
    rates = [path.drop_prob for block in made.blocks for path in (block.drop_path1, block.drop_path2)]
    assert rates == pytest.approx([0, 0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3])
    alone = HybridViT(depth=1, stochastic_depth=0.3, pretrained=False)
    assert alone.blocks[0].drop_path1.drop_prob == 0
    assert list(made.state_dict()) == list(HybridViT(depth=4, pretrained=False).state_dict())


@pytest.mark.parametrize("stochastic_depth", [0.0, 0.9])
def test_stochastic_depth_acts_in_training_alone(stochastic_depth: float) -> None:
    made = HybridViT(depth=2, dropout=0.0, stochastic_depth=stochastic_depth, pretrained=False)
    images = torch.randn(8, 3, 33, 64)
    with torch.no_grad():
        assert torch.equal(made(images), made(images)) is (stochastic_depth == 0)
        made.eval()
        assert torch.equal(made(images), made(images))


@pytest.mark.parametrize("stochastic_depth", [-0.1, 1.0])
def test_a_stochastic_depth_that_cannot_be_is_refused(stochastic_depth: float) -> None:
    with pytest.raises(ValueError, match=rf"stochastic_depth {stochastic_depth} is not within 0 to 1, 1 excluded"):
        HybridViT(depth=1, stochastic_depth=stochastic_depth, pretrained=False)
