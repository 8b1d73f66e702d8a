"""What happens to a picture on its way through the web: recompressed, resized, cropped, blurred.

The functions take and return one uint8 RGB picture ``(3, height, width)`` on the CPU, in the same size. Evaluation and
calibration use the named ones of :data:`ALTERATIONS`, which always do the same; augmentation draws their strengths.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from PIL import Image, ImageFilter

from bmrl._checks import check_dtype, check_integer, check_positive, check_shape
from bmrl._values import check_choice
from bmrl.errors import RangeError
from bmrl.images import MAX_IMAGE_SIZE, center_square, decoded, resize_image

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from bmrl.images import ImageSource

__all__ = [
    "ALTERATIONS",
    "FILTERS",
    "Alteration",
    "Subsampling",
    "add_noise",
    "blur",
    "crop",
    "move",
    "read_versions",
    "recompress",
    "rescale",
    "sharpen",
    "shift_colors",
]

FILTERS: dict[str, Image.Resampling] = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
"""The filters that pictures are resized by."""

Subsampling = Literal["4:4:4", "4:2:0"]

BLOCK = 8
"""Pixels on each side of the blocks that JPEG compresses."""


def recompress(
    image: Tensor,
    quality: int,
    *,
    codec: Literal["jpeg", "webp"] = "jpeg",
    subsampling: Subsampling = "4:2:0",
    offset: tuple[int, int] = (0, 0),
) -> Tensor:
    """Return a picture as it comes out of a lossy file.

    Args:
        image: ``(3, height, width)`` uint8.
        quality: 1 .. 100, as Pillow's encoders take it.
        codec: ``"webp"`` always subsamples the chroma 4:2:0.
        subsampling: of the chroma in a JPEG file.
        offset: rows and columns, 0 .. 7 each, by which the grid of blocks begins before the picture, as after a crop.

    Raises:
        ShapeError, DTypeError, RangeError: an argument does not fit.

    Example:
        >>> flat = torch.full((3, 16, 16), 200, dtype=torch.uint8)
        >>> recompress(flat, 75)[0, 0, 0]
        tensor(200, dtype=torch.uint8)
    """
    _check_image(image)
    check_integer("quality", quality, least=1, most=100)
    check_choice("codec", codec, ("jpeg", "webp"))
    check_choice("subsampling", subsampling, ("4:4:4", "4:2:0"))
    down, right = (_checked_offset(value) for value in offset)
    padded = _mirrored(image, down, right, 0, 0) if down or right else image
    file = io.BytesIO()
    if codec == "jpeg":
        _picture(padded).save(file, "JPEG", quality=quality, subsampling=subsampling)
    else:
        _picture(padded).save(file, "WEBP", quality=quality)
    with Image.open(file) as read:
        return _tensor(read.convert("RGB"))[:, down:, right:].contiguous()


def rescale(image: Tensor, factor: float, *, down: str = "bicubic", up: str = "bicubic") -> Tensor:
    """Return a picture resized by a factor and back.

    Args:
        image: ``(3, height, width)`` uint8.
        factor: > 0; each side becomes this many times as long, at least one pixel.
        down: the filter of the first resizing, a name of :data:`FILTERS`.
        up: the filter of the second.

    Raises:
        ShapeError, DTypeError, RangeError: an argument does not fit.
    """
    _check_image(image)
    check_positive("factor", factor)
    for name, value in (("down", down), ("up", up)):
        check_choice(name, value, FILTERS)
    height, width = image.shape[1:]
    size = max(1, round(width * factor)), max(1, round(height * factor))
    smaller = _picture(image).resize(size, FILTERS[down])
    return _tensor(smaller.resize((width, height), FILTERS[up]))


def crop(image: Tensor, share: float, *, place: tuple[float, float] = (0.5, 0.5), filter: str = "bicubic") -> Tensor:
    """Return a part of a picture, resized to the picture's size.

    Args:
        image: ``(3, height, width)`` uint8.
        share: above 0 and at most 1, of each side that is kept.
        place: 0 .. 1 from top to bottom and from left to right: where the part lies.
        filter: a name of :data:`FILTERS`.

    Raises:
        ShapeError, DTypeError, RangeError: an argument does not fit.
    """
    rows, columns = crop_window(image.shape[1:], share, place)
    _check_image(image)
    check_choice("filter", filter, FILTERS)
    part = _picture(image[:, rows, columns])
    return _tensor(part.resize((image.shape[2], image.shape[1]), FILTERS[filter]))


def crop_window(size: tuple[int, ...], share: float, place: tuple[float, float]) -> tuple[slice, slice]:
    """Return the rows and columns that :func:`crop` keeps of a picture of ``size``, height and width."""
    check_positive("share", share)
    if share > 1:
        raise RangeError(f"share: expected at most 1, got {share}")
    windows = []
    for length, at in zip(size, place, strict=True):
        if not 0 <= at <= 1:
            raise RangeError(f"place: expected numbers in 0 .. 1, got {at}")
        kept = max(1, round(length * share))
        first = round((length - kept) * at)
        windows.append(slice(first, first + kept))
    return windows[0], windows[1]


def move(image: Tensor, down: int, right: int) -> Tensor:
    """Return a picture moved by whole pixels, its border mirrored.

    Args:
        image: ``(channels, height, width)``, any dtype.
        down: rows, negative is up; less than the height.
        right: columns, negative is left; less than the width.

    Raises:
        ShapeError, RangeError, DTypeError: an argument does not fit.

    Example:
        >>> move(torch.tensor([[[1, 2, 3]]]), 0, 1)
        tensor([[[2, 1, 2]]])
    """
    check_shape("image", image, "channels height width")
    height, width = image.shape[1:]
    check_integer("down", down, least=1 - height, most=height - 1)
    check_integer("right", right, least=1 - width, most=width - 1)
    padded = _mirrored(image, max(down, 0), max(right, 0), max(-down, 0), max(-right, 0))
    top, left = max(-down, 0), max(-right, 0)
    return padded[:, top : top + height, left : left + width].contiguous()


def blur(image: Tensor, radius: float) -> Tensor:
    """Return a picture blurred by a Gaussian of this standard deviation in pixels, as Pillow approximates it.

    Raises:
        ShapeError, DTypeError, RangeError: an argument does not fit.
    """
    _check_image(image)
    check_positive("radius", radius)
    return _tensor(_picture(image).filter(ImageFilter.GaussianBlur(radius)))


def sharpen(image: Tensor, radius: float, amount: float) -> Tensor:
    """Return a picture plus ``amount`` times what a blur of this radius takes away (unsharp mask).

    Raises:
        ShapeError, DTypeError, RangeError: an argument does not fit.
    """
    _check_image(image)
    check_positive("radius", radius)
    check_positive("amount", amount)
    return _tensor(_picture(image).filter(ImageFilter.UnsharpMask(radius, round(100 * amount), threshold=0)))


def add_noise(image: Tensor, deviation: float, *, rng: np.random.Generator) -> Tensor:
    """Return a picture plus independent normal noise of this standard deviation, in gray levels of 255.

    Raises:
        ShapeError, DTypeError, RangeError: an argument does not fit.
    """
    _check_image(image)
    check_positive("deviation", deviation)
    noise = torch.from_numpy(rng.standard_normal(tuple(image.shape), dtype=np.float32))
    return (image + deviation * noise).round().clamp(0, 255).to(torch.uint8)


def shift_colors(image: Tensor, *, brightness: float, contrast: float, saturation: float) -> Tensor:
    """Return a picture with other colors; a factor of 1 leaves them.

    Args:
        image: ``(3, height, width)`` uint8.
        brightness: > 0, times which all values are taken.
        contrast: > 0, times which the differences from the mean gray are taken.
        saturation: > 0, times which the differences of each pixel from its own gray are taken.

    Raises:
        ShapeError, DTypeError, RangeError: an argument does not fit.
    """
    _check_image(image)
    for name, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
        check_positive(name, value)
    values = brightness * image.float()
    gray = (values * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=0, keepdim=True)
    values = gray + saturation * (values - gray)
    mean = gray.mean()
    return (mean + contrast * (values - mean)).round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True, slots=True)
class Alteration:
    """A named change of a picture that is always the same.

    Attributes:
        name: as the command line and reports have it.
        summary: in a few words, for people.
    """

    name: str
    summary: str
    change: Callable[[Tensor], Tensor]

    def __call__(self, image: Tensor) -> Tensor:
        """Return the altered picture.

        Args:
            image: ``(3, height, width)`` uint8 RGB on the CPU, both sides at least 4.

        Returns:
            The same shape and dtype.

        Raises:
            ShapeError, DTypeError: ``image`` is something else.
        """
        _check_image(image)
        return self.change(image)


def _same_noise(image: Tensor, deviation: float) -> Tensor:
    return add_noise(image, deviation, rng=np.random.default_rng(0))


_TABLE = (
    ("jpeg75", "JPEG of quality 75", partial(recompress, quality=75)),
    ("jpeg85", "JPEG of quality 85", partial(recompress, quality=85)),
    ("webp80", "WebP of quality 80", partial(recompress, quality=80, codec="webp")),
    ("half", "resized to half and back", partial(rescale, factor=0.5)),
    ("crop", "the middle 90 %, resized", partial(crop, share=0.9)),
    ("shift3", "moved by 3 pixels", partial(move, down=3, right=3)),
    ("blur", "blurred by 1 pixel", partial(blur, radius=1.0)),
    ("noise", "noise of 3 gray levels", partial(_same_noise, deviation=3.0)),
)

ALTERATIONS: dict[str, Alteration] = {name: Alteration(name, summary, change) for name, summary, change in _TABLE}
"""By name, as ``bmrl evaluate --alterations`` takes it."""


LEAST_SIDE = 16
"""A picture with a shorter side is altered after it is resized."""


def read_versions(
    source: ImageSource, image_size: int, alterations: Sequence[Alteration | None], *, name: str | None = None
) -> Tensor:
    """Decode a picture once, and return versions of it as a model takes them.

    A picture is altered at its own resolution, where that happens on the web: its center square is altered, then
    resized.

    Args:
        source: as :func:`bmrl.images.load_image` takes it.
        image_size: side S of the result in pixels.
        alterations: one for each version; None leaves the picture as it is, as :func:`bmrl.images.read_image` reads it.
        name: what errors call the image.

    Returns:
        uint8 ``(versions, 3, S, S)``, RGB.

    Raises:
        ImageError, MissingFileError, DTypeError, RangeError: as :func:`bmrl.images.read_image`.
    """
    check_integer("image_size", image_size, least=1, most=MAX_IMAGE_SIZE)
    with decoded(source, name=name) as image:
        square = image.crop(center_square(*image.size))
        resized = resize_image(square, image_size)
        small = square.width < LEAST_SIDE
        pixels = resized if small else _tensor(square)
        versions = []
        for alteration in alterations:
            if alteration is None:
                versions.append(resized)
            else:
                altered = alteration(pixels)
                versions.append(altered if small else resize_image(_picture(altered), image_size))
    return torch.stack(versions)


def _check_image(image: Tensor) -> None:
    check_shape("image", image, "channels height width", channels=3)
    check_dtype("image", image, torch.uint8)


def _checked_offset(value: int) -> int:
    check_integer("offset", value, least=0, most=BLOCK - 1)
    return value


def _mirrored(image: Tensor, top: int, left: int, bottom: int, right: int) -> Tensor:
    """Return an image with more rows and columns around it, mirrored without repeating the border."""
    padded = np.pad(image.numpy(), ((0, 0), (top, bottom), (left, right)), mode="reflect")
    return torch.from_numpy(padded)


def _picture(image: Tensor) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))


def _tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
