"""ConvNeXtMultiTask: a ConvNeXt with two heads, the class of magnitude and that of back-azimuth.

Liu et al. 2022 ("A ConvNet for the 2020s", arXiv:2201.03545). Tiny to large are torchvision's, xlarge and the small
ones timm's (atto to nano are timm originals), blocks and weights alike. LayerNorm works over channels at each pixel,
GELU is exact unless its tanh approximation is chosen. What the classes mean stands in the model's spec, not here.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import timm
import torch
import torchvision
from torch import Tensor, nn

from models.pretrained import obtain, timm_file, torchvision_file
from models.staged import Stage, Staged, adapt_input, check_images, check_positive, choose

STRIDE = 32
"""Pixels that one pixel of the last feature map stands for: the smallest height and width."""
HIDDEN = 512
"""Width of the hidden layer of a head."""
LAYER_SCALES = ("layer_scale", "gamma")
"""What torchvision and timm call the factors of a block's branch."""

Gelu = Literal["none", "tanh"]


class ConvNeXtVariant(StrEnum):
    """Sizes of ConvNeXt."""

    ATTO = "atto"
    FEMTO = "femto"
    PICO = "pico"
    NANO = "nano"
    TINY = "tiny"
    SMALL = "small"
    BASE = "base"
    LARGE = "large"
    XLARGE = "xlarge"


STOCHASTIC_DEPTH = {
    ConvNeXtVariant.ATTO: 0.05,
    ConvNeXtVariant.FEMTO: 0.05,
    ConvNeXtVariant.PICO: 0.05,
    ConvNeXtVariant.NANO: 0.05,
    ConvNeXtVariant.TINY: 0.1,
    ConvNeXtVariant.SMALL: 0.2,
    ConvNeXtVariant.BASE: 0.3,
    ConvNeXtVariant.LARGE: 0.4,
    ConvNeXtVariant.XLARGE: 0.5,
}
"""Of the last block. Less than tiny's for the smaller ones: they have little to spare."""
OF_TORCHVISION = frozenset({ConvNeXtVariant.TINY, ConvNeXtVariant.SMALL, ConvNeXtVariant.BASE, ConvNeXtVariant.LARGE})


class ConvNeXtMultiTask(Staged):
    """(B, in_channels, H, W) images -> (B, num_mag_classes) and (B, num_azi_classes) logits, H and W at least 32.

    ``pretrained``: True for the library's weights, a path for a file of the backbone's or of this network's, False
    for random ones. ``stochastic_depth``: the probability that the last block is left out in training, which rises
    linearly from 0 at the first; None for the variant's own. ``layer_scale``: initial factor of every block's branch;
    0 turns it off: the factors are ones and do not learn, yet stay in the state dict. ``gelu``: torch's names, "none"
    for the exact one. ``freeze_backbone``: all but the heads does not learn until `unfreeze`. WeightsError
    (`models.pretrained`) for weights that cannot be had or do not fit; ValueError for settings that cannot be, for
    layer_scale=0 with pretrained weights, which need their factors, and for images that are too small.
    """

    def __init__(  # the design's signature
        self,
        variant: str = "tiny",
        pretrained: bool | str | Path = True,
        num_mag_classes: int = 4,
        num_azi_classes: int = 9,
        dropout: float = 0.5,
        *,
        in_channels: int = 3,
        stochastic_depth: float | None = None,
        layer_scale: float = 1e-6,
        gelu: Gelu = "none",
        freeze_backbone: bool = False,
    ) -> None:
        super().__init__(in_channels, smallest=STRIDE)
        check_positive(in_channels=in_channels, num_mag_classes=num_mag_classes, num_azi_classes=num_azi_classes)
        size = choose(ConvNeXtVariant, variant)
        rate = STOCHASTIC_DEPTH[size] if stochastic_depth is None else stochastic_depth
        _check(rate, layer_scale, gelu, pretrained is not False)
        name, of_torchvision = f"convnext_{size}", size in OF_TORCHVISION
        hub = torchvision_file(name) if of_torchvision else timm_file(name)
        published, whole = obtain(pretrained, hub, mark="backbone.")
        self.backbone, width = (_torchvision if of_torchvision else _timm)(name, rate, layer_scale, gelu)
        if published:
            published.load(self.backbone, without="classifier." if of_torchvision else "head.")
        if layer_scale == 0:
            _turn_layer_scale_off(self.backbone)
        first = self.backbone.features[0][0] if of_torchvision else self.backbone.stem[0]
        adapt_input(first, in_channels, learned=published is not None)
        self.mag_head = _head(width, num_mag_classes, dropout, gelu)
        self.azi_head = _head(width, num_azi_classes, dropout, gelu)
        self.stages = _stages(of_torchvision)
        if whole:
            whole.load(self)
        if freeze_backbone:
            self.freeze()

    def features(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D): the means of the last feature map, which both heads read."""
        check_images(images, self.in_channels, self.smallest)
        means: Tensor = self.backbone(images)  # (B, C, H, W) -> (B, D, 1, 1), of timm (B, D)
        return means.flatten(1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(images)
        return self.mag_head(features), self.azi_head(features)  # (B, D) -> (B, magnitudes), (B, azimuths)

    def replace_head(self, num_mag_classes: int, num_azi_classes: int) -> None:
        """New, random last layers for other numbers of classes; all before them stays."""
        check_positive(num_mag_classes=num_mag_classes, num_azi_classes=num_azi_classes)
        for head, classes in ((self.mag_head, num_mag_classes), (self.azi_head, num_azi_classes)):
            head[-1] = nn.Linear(HIDDEN, classes).to(next(head.parameters()))


def _check(stochastic_depth: float, layer_scale: float, gelu: str, pretrained: bool) -> None:
    if not 0 <= stochastic_depth < 1:
        raise ValueError(f"stochastic_depth {stochastic_depth} is not within 0 to 1, 1 excluded")
    if layer_scale < 0:
        raise ValueError(f"layer_scale {layer_scale} is negative")
    if layer_scale == 0 and pretrained:
        raise ValueError("layer_scale 0 is for pretrained=False: pretrained weights need their factors")
    if gelu not in {"none", "tanh"}:
        raise ValueError(f"gelu {gelu!r} is none of none, tanh")


def _torchvision(name: str, stochastic_depth: float, layer_scale: float, gelu: Gelu) -> tuple[Any, int]:
    """The backbone and the width of its features."""
    backbone: Any = torchvision.models.get_model(
        name, weights=None, stochastic_depth_prob=float(stochastic_depth), layer_scale=layer_scale
    )
    for module in backbone.modules():
        if isinstance(module, nn.GELU):
            module.approximate = gelu
    width = backbone.classifier[2].in_features
    backbone.classifier = nn.Identity()
    return backbone, width


def _timm(name: str, stochastic_depth: float, layer_scale: float, gelu: Gelu) -> tuple[Any, int]:
    """The backbone and the width of its features; without the classifier's norm, since the heads begin with one."""
    backbone: Any = timm.create_model(
        name,
        pretrained=False,
        drop_path_rate=float(stochastic_depth),
        ls_init_value=layer_scale,
        act_layer="gelu_tanh" if gelu == "tanh" else "gelu",
    )
    backbone.reset_classifier(0, reset_other=True)
    return backbone, backbone.num_features


def _turn_layer_scale_off(backbone: nn.Module) -> None:
    """Make the factors buffers of ones: they do not learn, and the keys of the state dict stay."""
    for block in list(backbone.modules()):
        for name in LAYER_SCALES:
            factor = getattr(block, name, None)
            if isinstance(factor, nn.Parameter):
                delattr(block, name)
                block.register_buffer(name, torch.ones_like(factor))


def _head(width: int, classes: int, dropout: float, gelu: Gelu) -> nn.Sequential:
    """(B, width) -> (B, classes)."""
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Dropout(float(dropout)),
        nn.Linear(width, HIDDEN),
        nn.GELU(approximate=gelu),
        nn.Dropout(dropout / 2),
        nn.Linear(HIDDEN, classes),
    )


def _stages(of_torchvision: bool) -> tuple[Stage, ...]:
    """Stem, four stages with the downsampling that leads to each, heads."""
    if of_torchvision:
        parts = (("features.0",), ("features.1",), *((f"features.{n}", f"features.{n + 1}") for n in (2, 4, 6)))
    else:
        parts = (("stem",), *((f"stages.{n}",) for n in range(4)))
    names = ("stem", *(f"stage {n}" for n in range(1, 5)))
    backbone = [Stage(name, tuple(f"backbone.{part}" for part in of)) for name, of in zip(names, parts, strict=True)]
    return *backbone, Stage("heads", ("mag_head", "azi_head"), pretrained=False)
