"""What the families share: a network is a row of named stages, from input to output.

Stages are what is frozen, released one by one, and given learning rates of their own. Here too: the check of what
comes in, and the first convolution for another number of channels. What is not here: the networks (`hybrid_vit`,
`efficientnet`, `convnext`) and where weights come from (`pretrained`).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, NamedTuple, Self, TypeVar

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

NO_DECAY = frozenset({"cls_token", "pos_embed", "layer_scale"})
"""Parameters that weight decay leaves alone though they have more than one dimension."""

_jit: Any = torch.jit  # its functions are not typed, and a script may hold no comment that says so

Choice = TypeVar("Choice", bound=StrEnum)


class Stage(NamedTuple):
    """A part of a network that is frozen, or learns, as one."""

    name: str
    parts: tuple[str, ...]
    """Names of its submodules and parameters within the network."""
    pretrained: bool = True
    """Whether published weights fill it; the others always learn."""


class Staged(nn.Module):
    """Base of the networks; a subclass sets ``stages``, from input to output, the heads last.

    The backbone is the stages that published weights fill. Every trainable parameter belongs to exactly one stage.
    """

    def __init__(self, in_channels: int, smallest: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.smallest = smallest  # height and width of an image, pixels
        self.stages: tuple[Stage, ...] = ()
        self._frozen = 0  # stages of the backbone, counted from the input

    def freeze(self) -> None:
        """Hold parameters and normalisation statistics of the whole backbone; the other stages go on learning."""
        self._hold(len(self._backbone()))

    def unfreeze(self, last: int | None = None) -> None:
        """Let the ``last`` stages of the backbone learn again, None for all; what learns already goes on learning.

        ValueError for a number of stages that the backbone does not have.
        """
        count = len(self._backbone())
        if last is not None and not 1 <= last <= count:
            raise ValueError(f"last {last} is not within 1 to {count}, the stages of the backbone")
        self._hold(min(self._frozen, 0 if last is None else count - last))

    def train(self, mode: bool = True) -> Self:
        """As `nn.Module.train`; frozen stages stay in evaluation: no statistics move, nothing is dropped in them."""
        super().train(mode)
        held = {part for stage in self._backbone()[: self._frozen] for part in stage.parts}
        for name, module in self.named_modules():
            if name in held:
                module.eval()
        return self

    def parameter_groups(self, rate: float, decay: float = 1.0, weight_decay: float = 0.05) -> list[dict[str, Any]]:
        """Groups for `torch.optim`: the heads learn at ``rate``, a stage n before them at rate x decay ** n.

        No weight decay on norms, biases, class token, positions and layer scale. Frozen parameters are left out, so
        the groups are made anew after `unfreeze`.
        """
        groups = []
        for distance, stage in enumerate(reversed(self.stages)):
            learning = [(name, one) for name, one in self._parameters_of(stage) if one.requires_grad]
            for decays in (True, False):
                chosen = [parameter for name, parameter in learning if _decays(name, parameter) is decays]
                if chosen:
                    share = {"lr": rate * decay**distance, "weight_decay": weight_decay if decays else 0.0}
                    groups.append({"params": chosen, "stage": stage.name, **share})
        return groups

    def _backbone(self) -> tuple[Stage, ...]:
        return tuple(stage for stage in self.stages if stage.pretrained)

    def _parameters_of(self, stage: Stage) -> Iterator[tuple[str, nn.Parameter]]:
        for name, parameter in self.named_parameters():
            if any(name == part or name.startswith(f"{part}.") for part in stage.parts):
                yield name, parameter

    def _hold(self, frozen: int) -> None:
        self._frozen = frozen
        for index, stage in enumerate(self._backbone()):
            for _, parameter in self._parameters_of(stage):
                parameter.requires_grad_(index >= frozen)
        self.train(self.training)


def check_images(images: Tensor, in_channels: int, smallest: int) -> None:
    """ValueError unless ``images`` are (B, in_channels, H, W) with H and W at least ``smallest``.

    Silent while `torch.jit.trace` runs, which would take the answer for a constant, and say so.
    """
    if tracing():
        return
    if images.dim() != 4 or images.shape[1] != in_channels:
        raise ValueError(f"images must have the shape (B, {in_channels}, H, W), not {list(images.shape)}")
    if min(images.shape[2], images.shape[3]) < smallest:
        size = f"{images.shape[2]} x {images.shape[3]}"
        raise ValueError(f"images of {size} are too small: the smallest are {smallest} x {smallest}")


def tracing() -> bool:
    """Whether `torch.jit.trace` runs."""
    return bool(_jit.is_tracing())


def adapt_input(convolution: nn.Conv2d, in_channels: int, learned: bool) -> None:
    """Give a library's first convolution another number of input channels, in place.

    ``learned`` filters are adapted by timm: summed for one channel, else repeated in turn and scaled by 3 / in_channels.
    Random ones are drawn anew with the same spread, which in neither library depends on the number of input channels.
    """
    if in_channels == convolution.in_channels:
        return
    old = convolution.weight.detach()  # (O, 3, k, k)
    drawn = torch.randn(len(old), in_channels, *old.shape[2:]) * old.std()
    convolution.in_channels = in_channels
    convolution.weight = nn.Parameter(adapt_input_conv(in_channels, old) if learned else drawn)  # (O, C, k, k)


def choose(kind: type[Choice], value: str) -> Choice:
    """The member of ``kind`` that has this value; ValueError names all that there are."""
    if value not in set(kind):
        raise ValueError(f"{kind.__name__} {value!r} is none of {', '.join(kind)}")
    return kind(value)


def check_positive(**counts: int) -> None:
    """ValueError for the first that is below 1, by its name."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} {count} is not positive")


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and name.rpartition(".")[2] not in NO_DECAY
