"""The face of the networks: ``from quake.models import Backbone, HybridViT``.

Names are looked up when they are used: `quake` itself needs neither torch nor timm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.hybrid_vit import Backbone, HybridViT

__all__ = ["Backbone", "HybridViT"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from models import hybrid_vit  # the networks need timm, which a station box lacks

        return getattr(hybrid_vit, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
