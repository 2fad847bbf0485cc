"""Image transforms: torchvision's parameters, Pillow's pixels, made by the loader's threads.

>>> mrm.transforms.pretrain(448).size
448
>>> import dataclasses
>>> dataclasses.replace(mrm.transforms.finetune(224), flip=0.0).flip
0.0
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal, get_args

from .errors import ArgumentError

MEAN = 0.4978
"""Mean of the pixels, 0 to 1, that MRM's recipe subtracts."""

STD = 0.2449
"""Standard deviation of the pixels, by which MRM's recipe divides."""

ASPECT = (3 / 4, 4 / 3)
"""Smallest and largest aspect ratio of a random crop: torchvision's default."""

Filter = Literal["bilinear", "bicubic", "lanczos"]


@dataclass(frozen=True)
class RandomResized:
    """torchvision's `RandomResizedCrop`: shares of the area, and aspect ratios (width over height)."""

    scale: tuple[float, float]
    aspect: tuple[float, float] = ASPECT


@dataclass(frozen=True)
class Center:
    """torchvision's `Resize(shorter)`, then `CenterCrop`; black beside an image smaller than the output."""

    shorter: int


@dataclass(frozen=True)
class Pad:
    """The longer side is resized to the output's; black beside the image."""


@dataclass(frozen=True)
class Stretch:
    """Both sides are resized to the output's, whatever the aspect ratio."""


@dataclass(frozen=True)
class Transform:
    """From a stored image to a model's input: `float32 [1, size, size]`."""

    crop: RandomResized | Center | Pad | Stretch
    """Which part of the image is used."""
    size: int
    """Side of the output in pixels."""
    filter: Filter = "bilinear"
    """Filter of the resampling, as Pillow's."""
    flip: float = 0.0
    """Probability of a horizontal flip."""
    mean: float = MEAN
    """Mean of the pixels, 0 to 1, which becomes 0."""
    std: float = STD
    """Standard deviation of the pixels, which becomes 1."""

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or not 1 <= self.size <= 8192:
            raise ArgumentError(f"transform: size {self.size!r}: give a number of pixels from 1 to 8192")
        if self.filter not in get_args(Filter):
            raise ArgumentError(f"transform: filter {self.filter!r}: give one of {', '.join(get_args(Filter))}")
        if not 0 <= self.flip <= 1:
            raise ArgumentError(f"transform: flip {self.flip!r}: give a probability from 0 to 1")
        if not self.std > 0:
            raise ArgumentError(f"transform: std {self.std!r}: give a number above 0")
        if isinstance(self.crop, Center) and not 1 <= self.crop.shorter <= 8192:
            raise ArgumentError(f"transform: shorter {self.crop.shorter!r}: give a number of pixels from 1 to 8192")
        if isinstance(self.crop, RandomResized):
            ranges = {"scale": self.crop.scale, "aspect": self.crop.aspect}
            for name, (low, high) in ranges.items():
                if not 0 < low <= high or (name == "scale" and high > 1):
                    raise ArgumentError(f"transform: {name} ({low}, {high}) is not a range of positive numbers")

    def to_json(self) -> str:
        """The transform as the crate `dataset` reads it."""
        crop: object
        match self.crop:
            case RandomResized(scale, aspect):
                crop = {"random_resized": {"scale": scale, "aspect": aspect}}
            case Center(shorter):
                crop = {"center": {"shorter": shorter}}
            case Pad():
                crop = "pad"
            case Stretch():
                crop = "stretch"
        values = {"size": self.size, "filter": self.filter, "flip": self.flip, "mean": self.mean, "std": self.std}
        return json.dumps({"crop": crop, **values})


def pretrain(size: int) -> Transform:
    """Pre-training augmentation of MRM's recipe: random crops of scale (0.2, 1), bicubic, flips."""
    return Transform(RandomResized((0.2, 1.0)), size, filter="bicubic", flip=0.5)


def finetune(size: int) -> Transform:
    """Fine-tuning augmentation of MRM's recipe: random crops of scale (0.08, 1), bilinear, flips."""
    return Transform(RandomResized((0.08, 1.0)), size, flip=0.5)


def evaluate(size: int) -> Transform:
    """Evaluation: the shorter side is resized to `size`, then the center is cropped; no flips."""
    return Transform(Center(size), size)
