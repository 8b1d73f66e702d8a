"""Decode an image of unknown origin, safely, and resize it to what the model takes.

Everything that turns a file into the model's input (``Attributor``, data sets, the server's client) does it
here, so that training and serving see the same pixels. Needs only Pillow and torch.
"""

from __future__ import annotations

import contextlib
from io import BytesIO
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from bmrl._checks import check_integer
from bmrl._decoding import FORMATS, check_size, memory_to_decode, open_image, orientation, to_rgb
from bmrl._image_bytes import ImageSource, file_bytes, opened_file, source_name
from bmrl._text import one_line, printable
from bmrl._values import check_choice
from bmrl.errors import DTypeError, ImageError

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterator

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

MAX_IMAGE_SIZE = 16_384
"""The largest side that an image is resized to."""

SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".tif", ".tiff", ".gif"))
"""Suffixes of the accepted formats, to select files in a folder; on reading, the content decides."""


def load_image(
    source: ImageSource,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    formats: Collection[str] = FORMATS,
    name: str | None = None,
) -> Image.Image:
    """Decode an image and return it upright, in RGB, as a viewer would show it.

    JPEG, PNG, WebP, BMP, TIFF and GIF are accepted, recognized by content and not by name; of an animation the
    first frame is taken. The EXIF orientation is applied, what is transparent is laid on white, palette, gray,
    1-bit and CMYK images are converted, and gray levels of 16 bits are scaled to 8 (rounded v / 257), not clipped.
    Color profiles are not applied. Any size from 1 x 1 on is accepted.

    Safe to call from many threads: concurrent calls share 1.4 GiB of memory for pixels and 256 MiB for
    encoded files, and wait when it is used up. An image of the largest size that is accepted by default fits in, in
    any format.

    Args:
        source: path, encoded bytes, binary file (read from its current position) or PIL image (left unchanged).
        max_pixels: > 0, the largest width times height; checked in the header, before any pixel is decoded.
        max_bytes: > 0, the largest file; nothing beyond it is read.
        formats: which of "JPEG", "PNG", "WebP", "BMP", "TIFF" and "GIF" encoded sources may be in.
        name: what errors call the image; by default its path, or the kind of source.

    Raises:
        MissingFileError: there is no file at the path.
        ImageError: the file can't be read, is of no accepted format, damaged, truncated, or over a limit.
        DTypeError: ``source`` or a limit is of another type.
        RangeError: a limit is not positive, or there is no such format.

    Example:
        >>> load_image(Image.new("L", (3, 2), 255)).getpixel((0, 0))
        (255, 255, 255)
    """
    with contextlib.ExitStack() as memory:
        return _decode(memory, source, max_pixels, max_bytes, formats, name)


@contextlib.contextmanager
def decoded(
    source: ImageSource,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    formats: Collection[str] = FORMATS,
    name: str | None = None,
) -> Iterator[Image.Image]:
    """Yield what :func:`load_image` returns, to be used only in the block; until its end, the memory counts as used.

    The block must not decode another image: it might wait for the memory of this one.
    """
    with contextlib.ExitStack() as memory:
        image = _decode(memory, source, max_pixels, max_bytes, formats, name)
        try:
            yield image
        finally:
            image.close()  # now: the caller's variable would hold it for longer than it is counted


def _decode(
    memory: contextlib.ExitStack,
    source: ImageSource,
    max_pixels: int,
    max_bytes: int,
    formats: Collection[str],
    name: str | None,
) -> Image.Image:
    """Do what :func:`load_image` does; the memory that it takes counts as used until ``memory`` is closed."""
    check_integer("max_pixels", max_pixels, least=1)
    check_integer("max_bytes", max_bytes, least=1)
    formats = (formats,) if isinstance(formats, str) else formats
    for kind in formats:
        check_choice("formats", kind, FORMATS)
    name = printable(name or source_name(source))
    if isinstance(source, Image.Image):
        image = source
    else:
        image = open_image(BytesIO(memory.enter_context(file_bytes(source, max_bytes, name))), name, formats)
    check_size(image, max_pixels, name)
    memory.enter_context(memory_to_decode(image))
    try:
        image.load()
        turn = orientation(image)
        image = to_rgb(image)  # from here on, what was decoded is not held any more
        return image if turn is None else image.transpose(turn)
    except Exception as error:  # hostile bytes make Pillow's decoders raise almost anything
        raise ImageError(f"{name}: expected a whole, valid image, got: {one_line(error)}") from error


def check_header(path: str | os.PathLike[str], *, name: str) -> tuple[int, int]:
    """Check all that can be known of a file without decoding it, and return the image's width and height as stored.

    Raises:
        MissingFileError: there is no file at the path.
        ImageError: the file can't be read, is of no accepted format, over a limit, or its header is damaged.
    """
    name = printable(name)
    with opened_file(path, MAX_BYTES, name) as file:
        image = open_image(file, name)
        check_size(image, MAX_PIXELS, name)
        return image.size


def resize_image(image: Image.Image, image_size: int) -> Tensor:
    """Return the center square of an RGB image, resized to ``image_size`` with antialiased bicubic interpolation.

    The square's corner is rounded down to a whole pixel, so that an image whose shorter side is ``image_size`` is
    cropped without changing a pixel, and one of that size is returned unchanged.

    Args:
        image: upright RGB image (:func:`load_image` gives one), of any size.
        image_size: > 0, the side in pixels.

    Returns:
        uint8 ``(3, image_size, image_size)``, RGB, 0 to 255.

    Raises:
        DTypeError: ``image`` is not a PIL image in mode RGB, or ``image_size`` not an integer.
        RangeError: ``image_size`` is not positive, or above 16,384.
    """
    check_integer("image_size", image_size, least=1, most=MAX_IMAGE_SIZE)
    if not isinstance(image, Image.Image) or image.mode != "RGB":
        got = f"mode {image.mode}" if isinstance(image, Image.Image) else type(image).__name__
        raise DTypeError(f"image: expected a PIL image in mode RGB, got {got}")
    if image.width != image.height:
        image = image.crop(center_square(*image.size))  # resize(box=...) would blend in pixels from outside the square
    resized = image.resize((image_size, image_size), Image.Resampling.BICUBIC)
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

    Args:
        source: as :func:`load_image` takes it.
        image_size: height and width of the result in pixels, 1 to 16,384.
        max_pixels: largest width times height that is decoded.
        max_bytes: largest file that is read, in bytes.
        formats: which of "JPEG", "PNG", "WebP", "BMP", "TIFF" and "GIF" encoded sources may be in.
        name: what errors call the image; by default its path, or the kind of source.

    Raises:
        DTypeError, RangeError, MissingFileError, ImageError: as the two functions.

    Returns:
        uint8 ``(3, image_size, image_size)``, RGB, 0 to 255.
    """
    check_integer("image_size", image_size, least=1, most=MAX_IMAGE_SIZE)
    with decoded(source, max_pixels=max_pixels, max_bytes=max_bytes, formats=formats, name=name) as image:
        return resize_image(image, image_size)


def center_square(width: int, height: int) -> tuple[int, int, int, int]:
    """Return the largest centered square of an image, ``(left, top, right, bottom)`` in whole pixels.

    Args:
        width: of the image in pixels.
        height: of the image in pixels.
    """
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side
