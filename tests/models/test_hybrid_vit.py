"""HybridViT: shapes of its stages, what is frozen, and weights that cannot be had."""

from __future__ import annotations

import pytest
import torch

import models.hybrid_vit
from quake.models import Backbone, HybridViT


@pytest.fixture(scope="module")
def network() -> HybridViT:
    torch.manual_seed(0)
    return HybridViT(pretrained=False).eval()


def test_stages_have_the_designs_shapes(network: HybridViT) -> None:
    image = torch.zeros(2, 3, 33, 64)
    heights = [tuple(network.stem[: last + 1](image).shape[1:]) for last in (0, 3, 6)]
    assert heights == [(64, 17, 32), (128, 9, 16), (192, 5, 8)]
    assert network.grid == (5, 8)
    assert network.pos_embed.shape == (1, 41, 192)
    assert len(network.blocks) == 4
    assert network(image).shape == (2, 2)


def test_convolutions_have_no_bias_and_the_stem_ends_without_relu(network: HybridViT) -> None:
    kinds = [type(part).__name__ for part in network.stem]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d"]
    assert all(part.bias is None for part in network.stem if isinstance(part, torch.nn.Conv2d))


def test_answers_do_not_depend_on_the_batch(network: HybridViT) -> None:
    images = torch.randn(4, 3, 33, 64)
    with torch.no_grad():
        together, alone = network(images), torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backbone", [Backbone.TINY, Backbone.SMALL, Backbone.DEIT_TINY, Backbone.DEIT_SMALL])
def test_every_backbone_takes_other_sizes_and_classes(backbone: Backbone) -> None:
    made = HybridViT(backbone, depth=1, in_channels=1, num_classes=5, img_size=(65, 40), pretrained=False)
    assert made.eval()(torch.zeros(1, 1, 65, 40)).shape == (1, 5)


def test_a_frozen_backbone_learns_in_stem_positions_and_head_only() -> None:
    made = HybridViT(depth=1, freeze_backbone=True, pretrained=False)
    learning = {name.split(".")[0] for name, parameter in made.named_parameters() if parameter.requires_grad}
    assert learning == {"stem", "pos_embed", "head"}


def test_positions_keep_the_class_tokens_and_interpolate_the_others() -> None:
    positions = torch.randn(1, 197, 8)
    resized = models.hybrid_vit.resize_positions(positions, (5, 8))
    assert resized.shape == (1, 41, 8)
    torch.testing.assert_close(resized[:, 0], positions[:, 0])
    flat = models.hybrid_vit.resize_positions(torch.full((1, 197, 8), 3.0), (5, 8))
    torch.testing.assert_close(flat, torch.full((1, 41, 8), 3.0))


def test_pretrained_weights_that_cannot_be_had_are_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_hub(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(models.hybrid_vit.timm, "create_model", no_hub)
    with pytest.raises(RuntimeError, match=r"no pretrained weights of vit_tiny_patch16_224 .*pretrained=False"):
        HybridViT()


@pytest.mark.parametrize("depth", [0, 13])
def test_a_depth_that_cannot_be_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=f"depth {depth} is not within 1 to 12"):
        HybridViT(depth=depth, pretrained=False)
