"""Image transforms: torchvision's parameters, Pillow's pixels, made by the loader's threads.

>>> mrm.transforms.pretrain(448).size
448
>>> import dataclasses
>>> dataclasses.replace(mrm.transforms.finetune(224), flip=0.0).flip
0.0

A transform crops, resizes and flips, then does its augmentations in their order, then normalizes. In their ranges, `(low,
high)`, a value is drawn uniformly; `probability` is that with which one acts on an image. Masks and boxes move with `Affine`;
a box of which less than a tenth stays inside is dropped.

>>> augment = (mrm.transforms.Affine(degrees=(-10, 10)), mrm.transforms.GaussianNoise((0.0, 0.05), probability=0.5))
>>> dataclasses.replace(mrm.transforms.finetune(224), augment=augment).augment[0].degrees
(-10, 10)

Images of 16 bits (``mrm.ingest(…, bits=16)``) are cropped and resized as they are stored, then windowed to gray levels that are
not rounded. `window` chooses the window, `window_jitter` changes it at random.

>>> narrow = mrm.transforms.FixedWindow(center=2048, width=1024)
>>> dataclasses.replace(mrm.transforms.evaluate(224), window=narrow, window_jitter=(0.05, 0.2)).window.width
1024
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal, get_args

from ._mrm import check_transform
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
class Random:
    """torchvision's `Resize(shorter)`, then `RandomCrop`; black beside an image smaller than the output."""

    shorter: int


@dataclass(frozen=True)
class Pad:
    """The longer side is resized to the output's; black beside the image."""


@dataclass(frozen=True)
class Stretch:
    """Both sides are resized to the output's, whatever the aspect ratio."""


Range = tuple[float, float]
"""The smallest and the largest value."""


@dataclass(frozen=True)
class Affine:
    """torchvision's `RandomAffine`, bilinear: shear, rotation and scaling about the center, translation."""

    kind: ClassVar[str] = "affine"
    degrees: Range = (0.0, 0.0)
    """Clockwise rotation."""
    translate: tuple[float, float] = (0.0, 0.0)
    """Largest translation along x and y, as shares of the side; whole pixels are drawn."""
    scale: Range = (1.0, 1.0)
    """Factor of the scale."""
    shear_x: Range = (0.0, 0.0)
    """Shear along x in degrees."""
    shear_y: Range = (0.0, 0.0)
    """Shear along y in degrees."""
    fill: float = 0.0
    """Gray level beside the image, 0 to 1."""
    probability: float = 1.0


@dataclass(frozen=True)
class Brightness:
    """torchvision's `adjust_brightness`: gray levels times a factor."""

    kind: ClassVar[str] = "brightness"
    factor: Range
    probability: float = 1.0


@dataclass(frozen=True)
class Contrast:
    """torchvision's `adjust_contrast`: differences to the mean of the image times a factor."""

    kind: ClassVar[str] = "contrast"
    factor: Range
    probability: float = 1.0


@dataclass(frozen=True)
class Gamma:
    """torchvision's `adjust_gamma`: gray levels from 0 to 1 to a power; more than 1 darkens."""

    kind: ClassVar[str] = "gamma"
    gamma: Range
    probability: float = 1.0


@dataclass(frozen=True)
class Clahe:
    """OpenCV's `createCLAHE`: contrast-limited adaptive histogram equalization."""

    kind: ClassVar[str] = "clahe"
    clip: Range
    """Limit of a bin, in multiples of the mean count of a bin."""
    tiles: int = 8
    """Tiles along each axis."""
    probability: float = 1.0


@dataclass(frozen=True)
class GaussianNoise:
    """torchvision's `GaussianNoise`, clipped."""

    kind: ClassVar[str] = "gaussian_noise"
    sigma: Range
    """Standard deviation; the range of gray levels is 1."""
    probability: float = 1.0


@dataclass(frozen=True)
class GaussianBlur:
    """torchvision's `GaussianBlur`, with a kernel of four standard deviations on either side."""

    kind: ClassVar[str] = "gaussian_blur"
    sigma: Range
    """Standard deviation in pixels of the output."""
    probability: float = 1.0


@dataclass(frozen=True)
class Erase:
    """torchvision's `RandomErasing`, before normalization."""

    kind: ClassVar[str] = "erase"
    scale: Range = (0.02, 0.33)
    """Share of the area."""
    aspect: Range = (0.3, 3.3)
    """Aspect ratio, height over width."""
    fill: float = 0.0
    """Gray level of the rectangle, 0 to 1."""
    probability: float = 1.0


Augmentation = Affine | Brightness | Contrast | Gamma | Clahe | GaussianNoise | GaussianBlur | Erase


@dataclass(frozen=True)
class FixedWindow:
    """The same window for all images of 16 bits, in stored values: DICOM's linear function of a center and a width."""

    center: float
    width: float
    """At least 1."""


Window = FixedWindow | Literal["stored", "full"]
"""Window of images of 16 bits: the one that is stored with each image, or from its smallest to its largest value."""


@dataclass(frozen=True)
class Transform:
    """From a stored image to a model's input: `float32 [1, size, size]`."""

    crop: RandomResized | Center | Random | Pad | Stretch
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
    augment: tuple[Augmentation, ...] = ()
    """What is done to the cropped image, in this order."""
    window: Window = "stored"
    """Which values of an image of 16 bits become black and white. An image of 8 bits has the window (128, 256)."""
    window_jitter: tuple[float, float] = (0.0, 0.0)
    """Changes windows at random: the largest shift of the center, in widths, and the largest relative change of the width. Both
    directions."""

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or not 1 <= self.size <= 8192:
            raise ArgumentError(f"transform: size {self.size!r}: give a number of pixels from 1 to 8192")
        if self.filter not in get_args(Filter):
            raise ArgumentError(f"transform: filter {self.filter!r}: give one of {', '.join(get_args(Filter))}")
        if not 0 <= self.flip <= 1:
            raise ArgumentError(f"transform: flip {self.flip!r}: give a probability from 0 to 1")
        if not self.std > 0:
            raise ArgumentError(f"transform: std {self.std!r}: give a number above 0")
        if isinstance(self.crop, (Center, Random)) and not 1 <= self.crop.shorter <= 8192:
            raise ArgumentError(f"transform: shorter {self.crop.shorter!r}: give a number of pixels from 1 to 8192")
        if isinstance(self.crop, RandomResized):
            ranges = {"scale": self.crop.scale, "aspect": self.crop.aspect}
            for name, (low, high) in ranges.items():
                if not 0 < low <= high or (name == "scale" and high > 1):
                    raise ArgumentError(f"transform: {name} ({low}, {high}) is not a range of positive numbers")
        for step in self.augment:
            if not isinstance(step, Augmentation):
                raise TypeError(f"transform: augment: give augmentations of mrm.transforms, not {type(step).__name__}")
        if not isinstance(self.window, FixedWindow) and self.window not in ("stored", "full"):
            raise ArgumentError(f"transform: window {self.window!r}: give 'stored', 'full' or a FixedWindow")
        if self.augment or isinstance(self.window, FixedWindow) or tuple(self.window_jitter) != (0.0, 0.0):
            check_transform(self.to_json())

    def to_json(self) -> str:
        """The transform as the crate `dataset` reads it."""
        crop: object
        match self.crop:
            case RandomResized(scale, aspect):
                crop = {"random_resized": {"scale": scale, "aspect": aspect}}
            case Center(shorter):
                crop = {"center": {"shorter": shorter}}
            case Random(shorter):
                crop = {"random": {"shorter": shorter}}
            case Pad():
                crop = "pad"
            case Stretch():
                crop = "stretch"
        augment = [{"kind": step.kind, **asdict(step)} for step in self.augment]
        values = {"size": self.size, "filter": self.filter, "flip": self.flip, "mean": self.mean, "std": self.std}
        window = self.window if isinstance(self.window, str) else f"{self.window.center},{self.window.width}"
        windows = {"window": window, "window_jitter": self.window_jitter}
        return json.dumps({"crop": crop, **values, "augment": augment, **windows})


def pretrain(size: int) -> Transform:
    """Pre-training augmentation of MRM's recipe: random crops of scale (0.2, 1), bicubic, flips."""
    return Transform(RandomResized((0.2, 1.0)), size, filter="bicubic", flip=0.5)


def finetune(size: int) -> Transform:
    """Fine-tuning augmentation of MRM's recipe: random crops of scale (0.08, 1), bilinear, flips."""
    return Transform(RandomResized((0.08, 1.0)), size, flip=0.5)


def evaluate(size: int) -> Transform:
    """Evaluation: the shorter side is resized to `size`, then the center is cropped; no flips."""
    return Transform(Center(size), size)
