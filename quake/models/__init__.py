"""The face of the networks: ``from quake.models import Backbone, HybridViT``.

Names are looked up when they are used: `quake` itself needs neither torch nor timm.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.convnext import ConvNeXtMultiTask, ConvNeXtVariant
    from models.efficientnet import EfficientNet, EfficientNetBackbone
    from models.hybrid_vit import Backbone, HybridViT
    from models.pretrained import WeightsError

__all__ = [
    "Backbone",
    "ConvNeXtMultiTask",
    "ConvNeXtVariant",
    "EfficientNet",
    "EfficientNetBackbone",
    "HybridViT",
    "WeightsError",
]

_MODULES = {
    "Backbone": "models.hybrid_vit",
    "ConvNeXtMultiTask": "models.convnext",
    "ConvNeXtVariant": "models.convnext",
    "EfficientNet": "models.efficientnet",
    "EfficientNetBackbone": "models.efficientnet",
    "HybridViT": "models.hybrid_vit",
    "WeightsError": "models.pretrained",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)  # the networks need timm, which a station box lacks
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
