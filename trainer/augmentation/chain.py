"""Augmentations in the order of the recipe: `WaveformChain` on windows, `ImageChain` on their spectrograms.

Each augmentation is one class, its table in the recipe (``[[augmentation.waveform]]``, ``[[augmentation.image]]``) and
its effect side by side. What is drawn depends on the generator that is handed in, and on nothing else. What is not here:
what mixes the items of a batch (`trainer.augmentation.batch`), and where a window lies in its record.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import dropwhile
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from trainer.augmentation.base import Picture, Rng, Waveform
from trainer.augmentation.faults import ChannelDropout, Clipping, Gaps, Ring, Silence, Spikes, Steps, drawn_share
from trainer.augmentation.image import (
    AutoAugment,
    ColorJitter,
    RandAugment,
    RandomAffine,
    RandomErasing,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomRotation,
    TrivialAugment,
)
from trainer.augmentation.mixing import AddNoise, Gust, Superpose
from trainer.augmentation.sensor import LowPass, Through, Tilt
from trainer.augmentation.traffic import Footsteps, Passing
from trainer.augmentation.waveform import Gain, PlaySpeed, Polarity, RateJitter, Rotate, TimeShift, TimeStretch
from trainer.data.record import Example, Material
from trainer.section import RecipeError

Single = (
    AddNoise
    | ChannelDropout
    | Clipping
    | Footsteps
    | Gain
    | Gaps
    | Gust
    | LowPass
    | Passing
    | PlaySpeed
    | Polarity
    | RateJitter
    | Ring
    | Rotate
    | Silence
    | Spikes
    | Steps
    | Superpose
    | Through
    | Tilt
    | TimeShift
    | TimeStretch
)


class OneOf(Waveform):
    """One of several changes, drawn in proportion to their ``p``; where wished, several such draws in turn."""

    type: Literal["one_of"]
    choices: tuple[Annotated[Single, Field(discriminator="type")], ...] = Field(
        min_length=1, description="what is drawn from; p of each is its share"
    )
    times: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        default=(1.0,), min_length=1, description="shares of one draw, two draws, and so on"
    )

    @model_validator(mode="after")
    def _drawable(self) -> Self:
        if any(choice.moves_time for choice in self.choices):
            raise ValueError("what moves time stands in the list itself, before the others")
        if not sum(self.times) or not all(choice.p for choice in self.choices):
            raise ValueError("a share is zero")
        return self

    def apply(self, example: Example, rng: Rng, material: Material) -> Example:
        choices = [choice for choice in self.choices if choice.concerns(example)]
        if not choices:
            return example
        for _ in range(1 + drawn_share(rng, self.times)):
            chosen = choices[drawn_share(rng, tuple(choice.p for choice in choices))]
            example = chosen.apply(example, rng, material)
        return example


WaveformAugmentation = Annotated[Single | OneOf, Field(discriminator="type")]
"""A table of ``[[augmentation.waveform]]``."""
ImageAugmentation = Annotated[
    AutoAugment
    | ColorJitter
    | RandAugment
    | RandomAffine
    | RandomErasing
    | RandomHorizontalFlip
    | RandomResizedCrop
    | RandomRotation
    | TrivialAugment,
    Field(discriminator="type"),
]
"""A table of ``[[augmentation.image]]``."""

BREAKS_PHYSICS: Mapping[str, str] = {
    "auto_augment": "shears, rotates and inverts: time and frequency mix, loud becomes quiet",
    "color_jitter": "saturation and hue mix the components, brightness and contrast change the level of noise and signal",
    "cutmix": "a rectangle has a beginning and an end in time and in frequency that no ground motion has",
    "mixup": "the mean of two logarithms is not the logarithm of two signals added",
    "rand_augment": "shears, rotates and solarises: time and frequency mix, loud becomes quiet",
    "random_affine": "a shift up or down moves frequencies; what moves in is empty",
    "random_erasing": "the rectangle may cover the onset, and the label stays",
    "random_horizontal_flip": "a mirrored spectrogram runs time backwards: the coda comes before the onset",
    "random_resized_crop": "the scales of time and frequency change, one apart from the other; the onset may be cut off",
    "random_rotation": "mixes time and frequency: an onset is no longer at one time",
    "trivial_augment": "shears, rotates and solarises: time and frequency mix, loud becomes quiet",
}
"""Why a picture's change makes of a spectrogram what no station records; by the type. No default holds one of these."""

FAULTS = (Spikes(type="spikes"), Steps(type="steps"), Ring(type="ring"), Gaps(type="gaps"))
DEFAULT_DETECTOR_WAVEFORM: tuple[Single | OneOf, ...] = (
    PlaySpeed(type="play_speed"),
    Rotate(type="rotate"),
    AddNoise(type="add_noise", on="earthquake"),
    AddNoise(type="add_noise", p=0.25, on="noise", snr_db=(-10.0, 10.0)),
    Gust(type="gust"),
    OneOf(type="one_of", p=0.2, on="earthquake", choices=FAULTS),
    OneOf(type="one_of", p=0.4, on="noise", choices=FAULTS, times=(0.75, 0.25)),
    Tilt(type="tilt"),
    OneOf(
        type="one_of",
        p=0.34,
        choices=(Through(type="through"), Through(type="through", p=0.04, rate_hz=40), LowPass(type="low_pass")),
    ),
    ChannelDropout(type="channel_dropout"),
    Silence(type="silence"),
)
"""What the first detector was fitted on; later ones hear traffic too (`trainer.augmentation.traffic`)."""


@dataclass(frozen=True, eq=False)
class WaveformChain:
    """Changes of windows, one after the other. RecipeError where one that moves time stands behind another.

    In that order the rules that keep an earthquake audible are about the window itself, not about longer samples.
    """

    augmentations: tuple[Waveform, ...]

    def __post_init__(self) -> None:
        others = dropwhile(lambda change: change.moves_time, self.augmentations)
        late = [change.type for change in others if change.moves_time]
        if late:
            raise RecipeError(f"augmentation.waveform: {late[0]} moves time, and must stand before all that does not")

    def length(self, n: int) -> int:
        """Samples that a cut must have so that ``n`` remain at its end."""
        return _needed(self, n)[0]

    def apply(self, example: Example, rng: Rng, material: Material) -> Example:
        """(3, length(n)) -> (3, n), float32; the kind stays. A function of ``rng`` and ``material`` alone."""
        n = _kept(self, example.samples.shape[1])
        for change, needed in zip(self.augmentations, _needed(self, n)[1:], strict=True):
            if change.concerns(example) and rng.random() < change.p:
                example = change.apply(example, rng, material)
            example = example.last(needed)
        return example.having(np.ascontiguousarray(example.samples, np.float32))


@lru_cache(maxsize=64)
def _needed(chain: WaveformChain, n: int) -> tuple[int, ...]:
    """(changes + 1,) samples before each change, and at the end ``n``."""
    lengths = [n]
    for change in reversed(chain.augmentations):
        lengths.append(change.length(lengths[-1]))
    return tuple(reversed(lengths))


@lru_cache(maxsize=64)
def _kept(chain: WaveformChain, given: int) -> int:
    """The largest n with ``chain.length(n) <= given``."""
    return bisect_right(range(given + 1), given, key=lambda n: _needed.__wrapped__(chain, n)[0]) - 1


@dataclass(frozen=True, eq=False)
class ImageChain:
    """Changes of pictures: `apply` before ImageNet's statistics are taken off, `after` what acts on the result."""

    augmentations: tuple[ImageAugmentation, ...]

    def apply(self, image: Picture, rng: Rng) -> Picture:
        """(C, H, W) float32 -> (C, H, W) float32."""
        return self._changed(image, rng, after=False)

    def after(self, image: Picture, rng: Rng) -> Picture:
        """(C, H, W) float32, normalised -> (C, H, W) float32."""
        return self._changed(image, rng, after=True)

    def _changed(self, image: Picture, rng: Rng, *, after: bool) -> Picture:
        for change in self.augmentations:
            if change.after_normalisation == after and rng.random() < change.p:
                image = change.apply(image, rng)
        return image
