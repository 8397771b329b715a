"""EfficientNet: shapes of its stages, other channels and classes, and torchvision's weights in it."""

from __future__ import annotations

import pytest
import torch
import torchvision
from made_weights import Caches
from timm.models._manipulate import adapt_input_conv
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from quake.models import EfficientNet, EfficientNetBackbone

HALVINGS = (1, 1, 2, 3, 4, 4, 5, 5, 5)
HALVINGS_V2 = (1, 1, 2, 3, 4, 4, 5, 5)
TABLE: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    "B0": ((32, 16, 24, 40, 80, 112, 192, 320, 1280), (1, 2, 2, 3, 3, 4, 1), HALVINGS),
    "B1": ((32, 16, 24, 40, 80, 112, 192, 320, 1280), (2, 3, 3, 4, 4, 5, 2), HALVINGS),
    "B2": ((32, 16, 24, 48, 88, 120, 208, 352, 1408), (2, 3, 3, 4, 4, 5, 2), HALVINGS),
    "B3": ((40, 24, 32, 48, 96, 136, 232, 384, 1536), (2, 3, 3, 5, 5, 6, 2), HALVINGS),
    "B4": ((48, 24, 32, 56, 112, 160, 272, 448, 1792), (2, 4, 4, 6, 6, 8, 2), HALVINGS),
    "V2_S": ((24, 24, 48, 64, 128, 160, 256, 1280), (2, 4, 4, 6, 9, 15), HALVINGS_V2),
    "V2_M": ((24, 24, 48, 80, 160, 176, 304, 512, 1280), (3, 5, 5, 7, 14, 18, 5), HALVINGS),
}
"""Channels of every stage, layers of those between the first and the last, and how often each has halved the image."""


LARGEST = (EfficientNetBackbone.B4, EfficientNetBackbone.V2_M)


@pytest.mark.parametrize(
    "backbone", [pytest.param(b, marks=pytest.mark.drill) if b in LARGEST else b for b in EfficientNetBackbone]
)
def test_every_backbone_has_the_documents_shapes_and_learns(backbone: EfficientNetBackbone) -> None:
    channels, layers, halvings = TABLE[backbone.name]
    made = EfficientNet(backbone, pretrained=False)
    shapes: list[tuple[int, ...]] = []
    for stage in made.backbone.features:
        stage.register_forward_hook(lambda _, __, answer: shapes.append(tuple(answer.shape[1:])))
    logits = made(torch.randn(2, 3, 64, 32))
    assert shapes == [(count, 64 >> by, 32 >> by) for count, by in zip(channels, halvings, strict=True)]
    assert tuple(len(stage) for stage in made.backbone.features[1:-1]) == layers
    assert logits.shape == (2, 2)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in made.parameters())


@pytest.fixture(scope="module")
def network() -> EfficientNet:
    torch.manual_seed(0)
    return EfficientNet(pretrained=False).eval()


def test_features_are_what_the_head_reads(network: EfficientNet) -> None:
    images = torch.randn(2, 3, 33, 64)
    features = network.features(images)
    assert features.shape == (2, 1280)
    torch.testing.assert_close(network.backbone.classifier(features), network(images))
    assert [type(part) for part in network.backbone.classifier] == [nn.Dropout, nn.Linear]


def test_torchvisions_state_dict_maps_plainly(network: EfficientNet) -> None:
    reference = torchvision.models.efficientnet_b0(weights=None, num_classes=2)
    keys = {key.removeprefix("backbone.") for key in network.state_dict()}
    assert keys == set(reference.state_dict())
    reference.load_state_dict(network.backbone.state_dict())
    images = torch.randn(1, 3, 40, 50)
    with torch.no_grad():
        torch.testing.assert_close(network(images), reference.eval()(images))


def test_weights_of_torchvisions_cache_are_loaded(caches: Caches) -> None:
    published = caches.lay_torchvision("efficientnet_b0")
    made = EfficientNet().backbone
    reference = torchvision.models.efficientnet_b0(weights="DEFAULT")  # from the same cache
    kept = {key: tensor for key, tensor in reference.state_dict().items() if not key.startswith("classifier.")}
    assert len(kept) == len(published) - 2
    for key, tensor in kept.items():
        torch.testing.assert_close(made.state_dict()[key], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("in_channels", [1, 2, 6])
def test_the_first_filters_are_adapted_as_timm_does(caches: Caches, in_channels: int) -> None:
    published = caches.lay_torchvision("efficientnet_b0")
    made = EfficientNet(in_channels=in_channels)
    expected = adapt_input_conv(in_channels, published["features.0.0.weight"])
    torch.testing.assert_close(made.backbone.features[0][0].weight.detach(), expected, rtol=0, atol=0)
    assert made.eval()(torch.zeros(1, in_channels, 32, 32)).shape == (1, 2)


def spread(filters: Tensor) -> float:
    return float(filters.std())


def test_random_first_filters_are_no_copies_and_have_torchvisions_spread() -> None:
    torch.manual_seed(1)
    filters = EfficientNet(in_channels=6, pretrained=False).backbone.features[0][0].weight.detach()
    assert not torch.allclose(filters[:, :3], filters[:, 3:])
    three = EfficientNet(pretrained=False).backbone.features[0][0].weight.detach()
    assert spread(filters) == pytest.approx(spread(three), rel=0.15)


def test_a_replaced_head_answers_for_other_classes() -> None:
    made = EfficientNet(dropout=0.4, freeze_backbone=True, pretrained=False).eval()
    made.replace_head(5)
    assert made(torch.zeros(1, 3, 32, 32)).shape == (1, 5)
    assert made.backbone.classifier[0].p == 0.4
    assert made.backbone.classifier[1].weight.requires_grad


def test_images_that_do_not_fit_are_refused(network: EfficientNet) -> None:
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 2)
    for height, width in ((31, 64), (64, 31)):
        with pytest.raises(ValueError, match=f"images of {height} x {width} are too small: the smallest are 32 x 32"):
            network(torch.zeros(1, 3, height, width))
    for shape in ((1, 1, 33, 64), (3, 33, 64)):
        with pytest.raises(ValueError, match=r"must have the shape \(B, 3, H, W\), not \[") as raised:
            network(torch.zeros(shape))
        assert str(list(shape)) in str(raised.value)


def test_settings_that_cannot_be_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"EfficientNetBackbone 'b0' is none of efficientnet_b0, .*efficientnet_v2_m"):
        EfficientNet("b0", pretrained=False)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_classes -1 is not positive"):
        EfficientNet(num_classes=-1, pretrained=False)


@pytest.mark.parametrize("given", [{}, {"stochastic_depth": 0.5}])
def test_stochastic_depth_is_torchvisions(given: dict[str, float]) -> None:
    made = EfficientNet(pretrained=False, **given)
    probability = given.get("stochastic_depth", 0.2)  # torchvision's own
    reference = torchvision.models.efficientnet_b0(weights=None, stochastic_depth_prob=probability)
    rates = [[m.p for m in network.modules() if isinstance(m, StochasticDepth)] for network in (made, reference)]
    assert rates[0] == rates[1]
    assert max(rates[0]) == pytest.approx(probability * 15 / 16)


@pytest.mark.parametrize("stochastic_depth", [-0.1, 1.0])
def test_a_stochastic_depth_that_cannot_be_is_refused(stochastic_depth: float) -> None:
    with pytest.raises(ValueError, match=rf"stochastic_depth {stochastic_depth} is not within 0 to 1, 1 excluded"):
        EfficientNet(stochastic_depth=stochastic_depth, pretrained=False)
