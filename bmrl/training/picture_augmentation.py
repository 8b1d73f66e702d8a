"""Random changes of one training picture, as pictures on the web have been through: compressed, resized, cropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset

from bmrl._fields import Bounds, Positive, check_fields
from bmrl.data import alterations
from bmrl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from bmrl.data.dataset import Sample

__all__ = ["AugmentationConfig", "AugmentedFaces", "augment"]

Probability = Annotated[float, Bounds(least=0, most=1)]
Quality = Annotated[int, Bounds(least=1, most=100)]

FILTERS = tuple(alterations.FILTERS)


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentationConfig:
    """How often and how strongly training pictures are changed; the default changes none.

    Changes are drawn for each picture in each epoch, by the seed, the epoch and the picture alone. They act on
    uint8 pictures of the model's size, in this order: container, crop, color, sharpening or blur, rescaling, noise,
    compression. Parsing maps follow the crop.

    Raises:
        ConfigError: a value of another type or out of its range; the message names it.

    Example:
        >>> AugmentationConfig.lived(noise=0).compress
        0.7
    """

    compress: Probability = 0.0
    """Probability of a lossy file: JPEG, or WebP."""
    compress_twice: Probability = 0.3
    """Of those, the share that is compressed twice, with the grid of blocks moved between."""
    webp: Probability = 0.15
    """Of the files, the share that is WebP."""
    least_quality: Quality = 30
    """The lowest quality of a file."""
    most_quality: Quality = 98
    """The highest quality of a file."""
    rescale: Probability = 0.0
    """Probability of being resized down and back up, each by a random filter."""
    least_scale: Annotated[float, Bounds(above=0, most=1)] = 0.4
    """The smallest size on the way, as a share of the side."""
    crop: Probability = 0.0
    """Probability of being cropped, and of being resized or else moved back to the old size."""
    least_crop: Annotated[float, Bounds(above=0, most=1)] = 0.85
    """The smallest share of each side that a crop keeps."""
    blur: Probability = 0.0
    """Probability of a Gaussian blur."""
    most_blur: Positive = 1.5
    """The largest standard deviation of a blur, in pixels."""
    sharpen: Probability = 0.0
    """Probability of sharpening, where there is no blur."""
    noise: Probability = 0.0
    """Probability of normal noise."""
    most_noise: Positive = 5.0
    """The largest standard deviation of noise, in gray levels of 255."""
    color: Probability = 0.0
    """Probability of other brightness, contrast and saturation."""
    most_color: Annotated[float, Bounds(above=0, below=1)] = 0.1
    """The largest change of each of the three, as a share."""
    container: bool = False
    """Send every picture through the same random container first: resized slightly, then JPEG with subsampled chroma.
    Where sources come in files of different kinds, it keeps the file from being the label."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.least_quality > self.most_quality:
            raise ConfigError(f"least_quality: expected at most {self.most_quality}, got {self.least_quality}")

    @classmethod
    def lived(cls, **changes: Any) -> AugmentationConfig:
        """Return the strengths for pictures from the web; ``changes`` are fields that differ."""
        strengths: dict[str, Any] = {
            "compress": 0.7, "rescale": 0.4, "crop": 0.25, "blur": 0.1, "sharpen": 0.1, "noise": 0.1, "color": 0.2,
        }  # fmt: skip
        return cls(**(strengths | changes))

    @property
    def is_on(self) -> bool:
        """Whether any picture is ever changed."""
        often = (self.compress, self.rescale, self.crop, self.blur, self.sharpen, self.noise, self.color)
        return self.container or any(often)


class AugmentedFaces(Dataset[Any]):
    """A data set whose samples are changed by the seed, the epoch and their index, no matter which process asks.

    Args:
        faces: of samples, see :class:`~bmrl.data.FaceDataset`.
        config: which changes.
        seed: >= 0.
    """

    def __init__(self, faces: Dataset[Any], config: AugmentationConfig, *, seed: int) -> None:
        self.faces = faces
        self.config = config
        self.seed = seed

    def __len__(self) -> int:
        return len(self.faces)  # type: ignore[arg-type]

    def __getitem__(self, drawn: tuple[int, int]) -> Sample:
        """Return the sample of an epoch and an index."""
        epoch, index = drawn
        sample: Sample = self.faces[index]
        rng = np.random.default_rng((self.seed, epoch, index))
        image, parsing = augment(sample["image"], sample["parsing"], self.config, rng=rng)
        return {**sample, "image": image, "parsing": parsing}


def augment(
    image: Tensor, parsing: Tensor, config: AugmentationConfig, *, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Change one picture at random, and its parsing map with it.

    Args:
        image: ``(3, size, size)`` uint8 RGB on the CPU.
        parsing: ``(size, size)`` uint8 class indices.
        config: how often and how strongly.
        rng: of all that is drawn.

    Returns:
        New tensors of the same shapes and dtypes, or those that came in.

    Raises:
        ShapeError, DTypeError: ``image`` is something else.
    """
    if config.container:
        image = _contained(image, rng)
    if rng.random() < config.crop:
        image, parsing = _cropped(image, parsing, config, rng)
    if rng.random() < config.color:
        factors = 1 + rng.uniform(-config.most_color, config.most_color, 3)
        image = alterations.shift_colors(
            image, brightness=float(factors[0]), contrast=float(factors[1]), saturation=float(factors[2])
        )
    draw = rng.random()
    if draw < config.blur:
        image = alterations.blur(image, float(rng.uniform(0.2, 1) * config.most_blur))
    elif draw < config.blur + config.sharpen:
        image = alterations.sharpen(image, float(rng.uniform(0.5, 1.5)), float(rng.uniform(0.2, 1)))
    if rng.random() < config.rescale:
        factor = float(rng.uniform(config.least_scale, 1))
        image = alterations.rescale(image, factor, down=_any(FILTERS, rng), up=_any(FILTERS, rng))
    if rng.random() < config.noise:
        image = alterations.add_noise(image, float(rng.uniform(0.1, 1) * config.most_noise), rng=rng)
    if rng.random() < config.compress:
        for _ in range(2 if rng.random() < config.compress_twice else 1):
            image = _compressed(image, config, rng)
    return image, parsing


def _any(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def _offset(rng: np.random.Generator) -> tuple[int, int]:
    down, right = rng.integers(0, alterations.BLOCK, 2).tolist()
    return (down, right) if rng.random() < 0.5 else (0, 0)


def _compressed(image: Tensor, config: AugmentationConfig, rng: np.random.Generator) -> Tensor:
    quality = int(rng.integers(config.least_quality, config.most_quality + 1))
    codec, subsampling, offset = rng.random() < config.webp, rng.random() < 0.5, _offset(rng)
    return alterations.recompress(
        image,
        quality,
        codec="webp" if codec else "jpeg",
        subsampling="4:4:4" if subsampling else "4:2:0",
        offset=offset,
    )


def _contained(image: Tensor, rng: np.random.Generator) -> Tensor:
    factor, filters = float(rng.uniform(0.7, 1)), (_any(FILTERS, rng), _any(FILTERS, rng))
    resized = alterations.rescale(image, factor, down=filters[0], up=filters[1])
    return alterations.recompress(resized, int(rng.integers(75, 96)), offset=_offset(rng))


def _cropped(
    image: Tensor, parsing: Tensor, config: AugmentationConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Crop picture and map; half of the time they are resized, half of the time moved, which keeps each pixel."""
    share, place = float(rng.uniform(config.least_crop, 1)), rng.uniform(0, 1, 2)
    resized, filter = rng.random() < 0.5, _any(FILTERS, rng)
    size = tuple(image.shape[1:])
    at = float(place[0]), float(place[1])
    if resized:
        rows, columns = alterations.crop_window(size, share, at)
        part = parsing[rows, columns][None, None].float()
        nearest = F.interpolate(part, size=size, mode="nearest-exact")[0, 0].to(parsing.dtype)
        return alterations.crop(image, share, place=at, filter=filter), nearest
    down, right = (round((1 - share) * side * (2 * where - 1)) for side, where in zip(size, at, strict=True))
    moved = alterations.move(torch.cat((image, parsing[None])), down, right)
    return moved[:-1], moved[-1]
