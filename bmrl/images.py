"""Decode an image of unknown origin, safely, and resize it to what the model takes.

Everything that turns a file into the model's input (``Attributor``, data sets, the server's client) does it
here, so that training and serving see the same pixels. Needs Pillow and torch alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from bmrl._checks import check_positive
from bmrl._decoding import FORMATS, ImageSource, one_line, open_image, read_bytes, source_name, to_rgb, upright
from bmrl.errors import DTypeError, ImageError

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = [
    "FORMATS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "SUFFIXES",
    "ImageSource",
    "center_square",
    "load_image",
    "read_image",
    "resize_image",
]

MAX_PIXELS = 89_478_485
"""Pixels accepted by default: Pillow's own limit, 256 MiB of RGB; any larger image is refused undecoded."""

MAX_BYTES = 256 * 2**20
"""Bytes of a file accepted by default."""

SUFFIXES = frozenset((".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"))
"""Names that files of the accepted formats end with, for whoever walks a folder; the content decides on reading."""


def load_image(
    source: ImageSource,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    formats: Collection[str] = FORMATS,
    name: str | None = None,
) -> Image.Image:
    """Decode an image and return it upright, in RGB, as a viewer would show it.

    JPEG, PNG, WebP, BMP, TIFF and GIF are accepted, told by their content and not by their name; of an animation
    the first frame is taken. The EXIF orientation is applied, what is transparent is laid on white, palette, grey,
    1-bit and CMYK images are converted, and grey levels of 16 bits are scaled to 8 (rounded v / 257), not clipped.
    Colour profiles are not applied. Any size from 1 x 1 on is accepted. Safe to call from many threads.

    Args:
        source: path, encoded bytes, binary file (read from where it stands) or PIL image (left unchanged).
        max_pixels: > 0, the largest width times height; checked in the header, before any pixel is decoded.
        max_bytes: > 0, the largest file; nothing beyond it is read.
        formats: which of "JPEG", "PNG", "WebP", "BMP", "TIFF" and "GIF" encoded sources may be in.
        name: what errors call the image; by default its path, or the kind of source.

    Raises:
        MissingFileError: there is no file at the path.
        ImageError: the file can't be read, is of no accepted format, damaged, truncated, or over a limit.
        DTypeError: ``source`` is of another type.
        RangeError: a limit is not positive.

    Example:
        >>> load_image(Image.new("L", (3, 2), 255)).getpixel((0, 0))
        (255, 255, 255)
    """
    check_positive("max_pixels", max_pixels)
    check_positive("max_bytes", max_bytes)
    name = one_line(name or source_name(source))
    if isinstance(source, Image.Image):
        image = source
    else:
        image = open_image(read_bytes(source, max_bytes, name), name, formats)
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{name}: expected at least 1 x 1 pixels, got {width} x {height}")
    if width * height > max_pixels:
        raise ImageError(f"{name}: expected at most {max_pixels} pixels, got {width} x {height}")
    try:
        image.load()
        return upright(to_rgb(image), image)
    except Exception as error:  # hostile bytes make Pillow's decoders raise nearly anything
        raise ImageError(f"{name}: expected a whole, valid image, got: {one_line(error)}") from error


def resize_image(image: Image.Image, image_size: int) -> Tensor:
    """Return the centre square of an RGB image, resized to ``image_size`` with antialiased bicubic interpolation.

    The square's corner is rounded down to a whole pixel, so that an image whose shorter side is ``image_size`` is
    cropped without changing a pixel, and one of that very size is returned bit by bit.

    Args:
        image: upright RGB image (:func:`load_image` gives one), of any size.
        image_size: > 0, the side in pixels.

    Returns:
        uint8 ``(3, image_size, image_size)``, RGB, 0 to 255.

    Raises:
        DTypeError: ``image`` is no PIL image in mode RGB.
        RangeError: ``image_size`` is not positive.
    """
    check_positive("image_size", image_size)
    if not isinstance(image, Image.Image) or image.mode != "RGB":
        got = f"mode {image.mode}" if isinstance(image, Image.Image) else type(image).__name__
        raise DTypeError(f"image: expected a PIL image in mode RGB, got {got}")
    square = image.crop(center_square(*image.size))  # resize(box=...) would blend in pixels from outside the square
    resized = square.resize((image_size, image_size), Image.Resampling.BICUBIC)
    pixels = torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8)
    return pixels.view(image_size, image_size, 3).permute(2, 0, 1).contiguous()


def read_image(
    source: ImageSource,
    image_size: int,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    formats: Collection[str] = FORMATS,
    name: str | None = None,
) -> Tensor:
    """Decode an image and resize it: :func:`load_image`, then :func:`resize_image`.

    Returns:
        uint8 ``(3, image_size, image_size)``, RGB, 0 to 255.
    """
    image = load_image(source, max_pixels=max_pixels, max_bytes=max_bytes, formats=formats, name=name)
    return resize_image(image, image_size)


def center_square(width: int, height: int) -> tuple[int, int, int, int]:
    """Return the largest centred square of whole pixels as (left, top, right, bottom)."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side
