"""HybridViT: a convolutional stem before the first blocks of a vision transformer, for small spectrograms.

A ViT's patch embedding of 16 x 16 would leave of a 33 x 64 spectrogram eight patches. Three convolutions of stride 2
make 40 tokens of it instead, and see every pixel's neighbourhood first (Xiao et al. 2021, "Early convolutions help
transformers see better", arXiv:2106.14881). The blocks and their weights come from timm (Wightman; Dosovitskiy et al.
2021; Touvron et al. 2021).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

STEM_STRIDE = 8
"""Pixels a token spans: three convolutions of stride 2."""
STEM_CHANNELS = (64, 128)
SOURCE_GRID = (14, 14)
"""Patches of the 224 x 224 images that the backbones' position embeddings were made for."""


class Backbone(StrEnum):
    """Where the transformer's blocks come from: names of timm models."""

    TINY = "vit_tiny_patch16_224"
    SMALL = "vit_small_patch16_224"
    BASE = "vit_base_patch16_224"
    DEIT_TINY = "deit_tiny_patch16_224"
    DEIT_SMALL = "deit_small_patch16_224"


class HybridViT(nn.Module):
    """(B, in_channels, H, W) spectrograms -> (B, num_classes) logits.

    ``depth``: how many of the backbone's blocks are kept. ``freeze_backbone``: the blocks, the final norm and the
    class token do not learn; stem, position embeddings and head do. ``pretrained``: weights of the hub; RuntimeError
    where they cannot be had, never random ones in their place. ValueError for a size or a depth that cannot be.
    """

    def __init__(  # the design's signature; timm's models take theirs by position too
        self,
        backbone: Backbone = Backbone.TINY,
        depth: int = 4,
        in_channels: int = 3,
        num_classes: int = 2,
        img_size: tuple[int, int] = (33, 64),
        dropout: float = 0.2,
        freeze_backbone: bool = False,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        vit = _vit(Backbone(backbone), pretrained)
        if not 1 <= depth <= len(vit.blocks):
            raise ValueError(f"depth {depth} is not within 1 to {len(vit.blocks)}, the blocks of {backbone}")
        if min(img_size) < 1:
            raise ValueError(f"img_size {img_size} is not positive")
        self.img_size = img_size
        self.grid = (-(-img_size[0] // STEM_STRIDE), -(-img_size[1] // STEM_STRIDE))
        self.stem = _stem(in_channels, vit.embed_dim)
        self.cls_token = nn.Parameter(vit.cls_token.detach().clone())
        self.pos_embed = nn.Parameter(resize_positions(vit.pos_embed.detach(), self.grid))
        self.blocks = nn.Sequential(*vit.blocks[:depth])
        self.norm = vit.norm
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(vit.embed_dim, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        if freeze_backbone:
            self._freeze()

    def _freeze(self) -> None:
        self.cls_token.requires_grad_(False)
        for part in (self.blocks, self.norm):
            part.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.stem(images)  # (B, C, H, W) -> (B, D, H/8, W/8)
        tokens = patches.flatten(2).transpose(1, 2)  # (B, D, h, w) -> (B, h w, D)
        first = self.cls_token.expand(tokens.shape[0], -1, -1)  # (B, 1, D)
        tokens = torch.cat([first, tokens], dim=1) + self.pos_embed  # (B, 1 + h w, D)
        tokens = self.norm(self.blocks(tokens))
        logits: Tensor = self.head(self.dropout(tokens[:, 0]))  # (B, classes)
        return logits


def resize_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """(1, 1 + 14 x 14, D) -> (1, 1 + h x w, D), bicubic; the class token's position is kept as it is."""
    first, patches = positions[:, :1], positions[:, 1:]
    height, width = SOURCE_GRID
    square = patches.reshape(1, height, width, -1).permute(0, 3, 1, 2)  # (1, D, 14, 14)
    resized = functional.interpolate(square, size=grid, mode="bicubic", align_corners=False)  # (1, D, h, w)
    return torch.cat([first, resized.flatten(2).transpose(1, 2)], dim=1)


def _vit(backbone: Backbone, pretrained: bool) -> Any:
    try:
        vit = timm.create_model(backbone.value, pretrained=pretrained, num_classes=0)
    except Exception as error:
        if not pretrained:
            raise
        message = (
            f"no pretrained weights of {backbone.value} ({error}); pass pretrained=False to start from random ones"
        )
        raise RuntimeError(message) from error
    return vit


def _stem(in_channels: int, width: int) -> nn.Sequential:
    """(B, in_channels, H, W) -> (B, width, ceil(H / 8), ceil(W / 8)); no ReLU before the transformer."""
    first, second = STEM_CHANNELS
    return nn.Sequential(
        nn.Conv2d(in_channels, first, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(first),
        nn.ReLU(),
        nn.Conv2d(first, second, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(second),
        nn.ReLU(),
        nn.Conv2d(second, width, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width),
    )
