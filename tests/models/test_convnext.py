"""ConvNeXtMultiTask: shapes, two heads, stochastic depth, layer scale, GELU, and state dicts of the document's class."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from made_weights import Caches
from timm.layers import DropPath
from timm.models._manipulate import adapt_input_conv
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import StochasticDepth

from quake.models import ConvNeXtMultiTask, ConvNeXtVariant

TABLE = {
    "atto": (40, (2, 2, 6, 2), 0.05),
    "femto": (48, (2, 2, 6, 2), 0.05),
    "pico": (64, (2, 2, 6, 2), 0.05),
    "nano": (80, (2, 2, 8, 2), 0.05),
    "tiny": (96, (3, 3, 9, 3), 0.1),
    "small": (96, (3, 3, 27, 3), 0.2),
    "base": (128, (3, 3, 27, 3), 0.3),
    "large": (192, (3, 3, 27, 3), 0.4),
    "xlarge": (256, (3, 3, 27, 3), 0.5),
}
"""Channels of the first stage, blocks of each, stochastic depth of the last block."""
OF_TORCHVISION = ("tiny", "small", "base", "large")


class DocumentNetwork(nn.Module):
    """The network that the users' document describes, on torchvision's ConvNeXt-Tiny."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = torchvision.models.convnext_tiny(weights=None)
        self.backbone.classifier = nn.Identity()
        self.mag_head, self.azi_head = (self._head(classes) for classes in (4, 9))

    @staticmethod
    def _head(classes: int) -> nn.Sequential:
        first = (nn.LayerNorm(768), nn.Dropout(0.5), nn.Linear(768, 512))
        return nn.Sequential(*first, nn.GELU(), nn.Dropout(0.25), nn.Linear(512, classes))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = torch.flatten(self.backbone(images), 1)
        return self.mag_head(features), self.azi_head(features)


def stages_of(network: ConvNeXtMultiTask) -> list[nn.Sequential]:
    """The four stages' blocks."""
    if hasattr(network.backbone, "features"):
        return [network.backbone.features[index] for index in (1, 3, 5, 7)]
    return [stage.blocks for stage in network.backbone.stages]


def drop_rates(network: ConvNeXtMultiTask) -> list[float]:
    """Of every block, from the input on; timm has no module where nothing is dropped."""
    rates = []
    for stage in stages_of(network):
        for block in stage:
            found = [module for module in block.modules() if isinstance(module, StochasticDepth | DropPath)]
            rates.append(float(getattr(found[0], "p", None) or getattr(found[0], "drop_prob", 0)) if found else 0.0)
    return rates


def layer_scales(network: ConvNeXtMultiTask) -> list[Tensor]:
    state = network.state_dict()
    return [tensor for key, tensor in state.items() if key.endswith((".layer_scale", ".gamma"))]


LARGEST = (ConvNeXtVariant.BASE, ConvNeXtVariant.LARGE, ConvNeXtVariant.XLARGE)


@pytest.mark.parametrize(
    "variant", [pytest.param(v, marks=pytest.mark.drill) if v in LARGEST else v for v in ConvNeXtVariant]
)
def test_every_variant_has_the_documents_shapes_and_learns(variant: ConvNeXtVariant) -> None:
    width, depths, rate = TABLE[variant]
    made = ConvNeXtMultiTask(variant, pretrained=False)
    stages, shapes = stages_of(made), list[tuple[int, ...]]()
    for stage in stages:
        stage.register_forward_hook(lambda _, __, answer: shapes.append(tuple(answer.shape[1:])))
    assert tuple(len(stage) for stage in stages) == depths
    assert drop_rates(made) == pytest.approx(torch.linspace(0, rate, sum(depths)).tolist(), abs=1e-6)
    magnitudes, azimuths = made(torch.randn(1, 3, 64, 32))
    assert shapes == [(width << n, 16 >> n, 8 >> n) for n in range(4)]
    assert (magnitudes.shape, azimuths.shape) == ((1, 4), (1, 9))
    (magnitudes.square().sum() + azimuths.square().sum()).backward()
    assert all(parameter.grad is not None for parameter in made.parameters())
    assert [float(scale.mean()) for scale in layer_scales(made)] == pytest.approx([1e-6] * sum(depths))


@pytest.fixture(scope="module")
def atto() -> ConvNeXtMultiTask:
    torch.manual_seed(0)
    return ConvNeXtMultiTask("atto", pretrained=False).eval()


class TestTheDocumentsClass:
    """State dicts that were saved from it load, and answer alike."""

    def test_its_state_dict_loads_strictly(self) -> None:
        torch.manual_seed(1)
        document = DocumentNetwork().eval()
        made = ConvNeXtMultiTask(pretrained=False).eval()
        made.load_state_dict(document.state_dict(), strict=True)
        images = torch.randn(2, 3, 33, 64)
        with torch.no_grad():
            torch.testing.assert_close(made(images), document(images))

    def test_its_figures_of_parameters(self) -> None:
        made = ConvNeXtMultiTask(pretrained=False)
        assert sum(parameter.numel() for parameter in made.parameters()) == 28_615_789

    @pytest.mark.parametrize(("head", "classes"), [("mag_head", 4), ("azi_head", 9)])
    def test_its_heads(self, atto: ConvNeXtMultiTask, head: str, classes: int) -> None:
        parts = list(getattr(atto, head))
        kinds = [nn.LayerNorm, nn.Dropout, nn.Linear, nn.GELU, nn.Dropout, nn.Linear]
        assert [type(part) for part in parts] == kinds
        assert (parts[1].p, parts[4].p) == (0.5, 0.25)
        assert (parts[2].in_features, parts[2].out_features, parts[5].out_features) == (320, 512, classes)


def test_features_are_what_both_heads_read(atto: ConvNeXtMultiTask) -> None:
    images = torch.randn(2, 3, 33, 64)
    features = atto.features(images)
    assert features.shape == (2, 320)
    torch.testing.assert_close((atto.mag_head(features), atto.azi_head(features)), atto(images))


def test_timms_features_are_means_without_its_classifiers_norm(atto: ConvNeXtMultiTask) -> None:
    images = torch.randn(2, 3, 33, 64)
    means = atto.backbone.forward_features(images).mean((2, 3))
    torch.testing.assert_close(atto.features(images), means)
    assert not any(key.startswith("backbone.head.") for key in atto.state_dict())


@pytest.mark.parametrize("variant", ["atto", "tiny"])
def test_layer_norm_works_over_channels_at_each_pixel(variant: str) -> None:
    made = ConvNeXtMultiTask(variant, pretrained=False).eval()
    stem = made.backbone.features[0] if variant in OF_TORCHVISION else made.backbone.stem
    maps = stem(torch.randn(2, 3, 64, 64))  # (B, D, 16, 16)
    torch.testing.assert_close(maps.mean(1), torch.zeros(2, 16, 16), rtol=0, atol=1e-4)
    torch.testing.assert_close(maps.var(1, unbiased=False), torch.ones(2, 16, 16), rtol=0, atol=1e-2)


@pytest.mark.parametrize("variant", ["atto", "tiny"])
def test_stochastic_depth_is_a_parameter(variant: str) -> None:
    blocks = sum(TABLE[variant][1])
    made = ConvNeXtMultiTask(variant, pretrained=False, stochastic_depth=0.3)
    assert drop_rates(made) == pytest.approx(torch.linspace(0, 0.3, blocks).tolist(), abs=1e-6)
    assert drop_rates(ConvNeXtMultiTask(variant, pretrained=False, stochastic_depth=0)) == [0.0] * blocks


@pytest.mark.parametrize("variant", ["atto", "tiny"])
def test_layer_scale_begins_where_it_is_told(variant: str) -> None:
    made = ConvNeXtMultiTask(variant, pretrained=False, layer_scale=0.5)
    assert {float(scale.unique()) for scale in layer_scales(made)} == {0.5}


@pytest.mark.parametrize("variant", ["atto", "tiny"])
def test_layer_scale_0_is_a_factor_of_one_that_does_not_learn(variant: str) -> None:
    torch.manual_seed(2)
    off = ConvNeXtMultiTask(variant, pretrained=False, layer_scale=0).eval()
    ones = ConvNeXtMultiTask(variant, pretrained=False, layer_scale=1).eval()
    ones.load_state_dict(off.state_dict(), strict=True)
    assert [float(scale.mean()) for scale in layer_scales(off)] == [1.0] * sum(TABLE[variant][1])
    assert not any(name.endswith((".layer_scale", ".gamma")) for name, _ in off.named_parameters())
    images = torch.randn(1, 3, 33, 64)
    with torch.no_grad():
        torch.testing.assert_close(off(images), ones(images))


@pytest.mark.parametrize("variant", ["atto", "tiny"])
@pytest.mark.parametrize("gelu", ["none", "tanh"])
def test_gelu_is_exact_or_tanh_throughout(variant: str, gelu: str) -> None:
    made = ConvNeXtMultiTask(variant, pretrained=False, gelu=gelu).eval()  # type: ignore[arg-type]
    checked = []

    def check(_: nn.Module, given: tuple[Tensor], answer: Tensor) -> None:
        checked.append(torch.equal(answer, functional.gelu(given[0], approximate=gelu)))

    for module in made.modules():
        if "GELU" in type(module).__name__:
            module.register_forward_hook(check)
    made(torch.randn(1, 3, 33, 64))
    assert checked == [True] * (sum(TABLE[variant][1]) + 2)  # one a block, one a head


def test_weights_of_torchvisions_cache_are_loaded(caches: Caches) -> None:
    published = caches.lay_torchvision("convnext_tiny")
    made = ConvNeXtMultiTask(in_channels=2)
    reference = torchvision.models.convnext_tiny(weights="DEFAULT").state_dict()  # from the same cache
    own = made.backbone.state_dict()
    first = reference.pop("features.0.0.weight")
    torch.testing.assert_close(own.pop("features.0.0.weight"), adapt_input_conv(2, first), rtol=0, atol=0)
    assert len(own) == len(published) - 1 - 4  # less the first filters, and the classifier's norm and linear layer
    for key, tensor in own.items():
        torch.testing.assert_close(tensor, reference[key], rtol=0, atol=0)


@pytest.mark.parametrize("in_channels", [1, 3, 5])
def test_weights_of_timms_cache_are_loaded_as_timm_does(
    caches: Caches, monkeypatch: pytest.MonkeyPatch, in_channels: int
) -> None:
    caches.lay_timm("convnext_atto")
    made = ConvNeXtMultiTask("atto", in_channels=in_channels)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # spares the reference its tries
    reference = timm.create_model("convnext_atto", pretrained=True, in_chans=in_channels).state_dict()
    own = made.backbone.state_dict()
    assert len(own) == len(reference) - 4  # less the classifier's norm and linear layer
    for key, tensor in own.items():
        torch.testing.assert_close(tensor, reference[key], rtol=0, atol=0)


@pytest.mark.parametrize("variant", ["atto", "tiny"])
def test_replaced_heads_answer_for_other_classes(variant: str) -> None:
    made = ConvNeXtMultiTask(variant, pretrained=False, freeze_backbone=True).eval()
    kept = made.mag_head[2].weight.detach().clone()
    made.replace_head(3, 16)
    magnitudes, azimuths = made(torch.zeros(1, 3, 32, 32))
    assert (magnitudes.shape, azimuths.shape) == ((1, 3), (1, 16))
    torch.testing.assert_close(made.mag_head[2].weight, kept, rtol=0, atol=0)
    assert made.azi_head[5].weight.requires_grad


def test_images_that_do_not_fit_are_refused(atto: ConvNeXtMultiTask) -> None:
    assert atto(torch.zeros(1, 3, 32, 32))[0].shape == (1, 4)
    with pytest.raises(ValueError, match="images of 31 x 64 are too small: the smallest are 32 x 32"):
        atto(torch.zeros(1, 3, 31, 64))
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\), not \[1, 4, 33, 64\]"):
        atto(torch.zeros(1, 4, 33, 64))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "huge"}, r"ConvNeXtVariant 'huge' is none of atto, .*, xlarge"),
        ({"stochastic_depth": 1.0}, "stochastic_depth 1.0 is not within 0 to 1"),
        ({"stochastic_depth": -0.1}, "stochastic_depth -0.1 is not within 0 to 1"),
        ({"layer_scale": -1e-6}, "layer_scale -1e-06 is negative"),
        ({"layer_scale": 0, "pretrained": True}, "layer_scale 0 is for pretrained=False"),
        ({"gelu": "exact"}, "gelu 'exact' is none of none, tanh"),
        ({"num_mag_classes": 0}, "num_mag_classes 0 is not positive"),
        ({"num_azi_classes": 0}, "num_azi_classes 0 is not positive"),
        ({"in_channels": 0}, "in_channels 0 is not positive"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConvNeXtMultiTask(**{"variant": "atto", "pretrained": False, **settings})  # type: ignore[arg-type]
