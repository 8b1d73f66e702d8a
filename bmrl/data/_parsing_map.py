"""Read a face-parsing map: a PNG of class indices that belongs to an image."""

from __future__ import annotations

import contextlib
from io import BytesIO
from typing import TYPE_CHECKING, cast

import torch
from PIL import Image

from bmrl._decoding import memory_to_decode, open_image
from bmrl._image_bytes import file_bytes, opened_file
from bmrl._text import one_line, printable
from bmrl.errors import DataError, ImageError
from bmrl.images import MAX_BYTES, center_square
from bmrl.parsing import PARSING_CLASSES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

_LOWER_LIP = PARSING_CLASSES.index("l_lip")
_MOST_LOWER_LIP = 0.08  # of the pixels, on average: some .01 in pictures of faces, where hair takes .2 and more


def lower_lip_share(parsing: Image.Image | Tensor) -> float:
    """Return the share of pixels that a map says are the lower lip, 0 to 1; see :func:`order_problem`."""
    if isinstance(parsing, Image.Image):
        return parsing.histogram()[_LOWER_LIP] / (parsing.width * parsing.height)
    return (parsing == _LOWER_LIP).float().mean().item()


def order_problem(shares: Sequence[float]) -> str | None:
    """Return what is wrong with maps whose index 13 covers what only hair can cover; None if all is well.

    Maps made by CelebAMask-HQ's own script have the same classes in another order, with hair at 13: as indices they
    are as valid, and 15 of 19 mean something else.

    Args:
        shares: what :func:`lower_lip_share` says of each map.
    """
    mean = sum(shares) / len(shares) if shares else 0.0
    if mean <= _MOST_LOWER_LIP:
        return None
    return (
        f"parsing maps: expected the order of BiSeNet, where class 13 is the lower lip, got maps with {mean:.0%} of it "
        "on average, as of hair, which is 13 in CelebAMask-HQ's own order; convert them first"
    )


def check_parsing_header(path: Path, original_size: tuple[int, int]) -> None:
    """Check all of a parsing map that can be known without decoding it.

    Args:
        path: the PNG, in mode L or P, whose values are the classes.
        original_size: width and height of the image that the map belongs to, as stored or upright.

    Raises:
        MissingFileError, ImageError, DataError: as :func:`decoded_parsing_map`.
    """
    name = printable(path.name)
    with opened_file(path, MAX_BYTES, name) as file:
        parsing = open_image(file, name)
        _check_kind(parsing, name)
        _check_size(parsing, (original_size, original_size[::-1]), name)


@contextlib.contextmanager
def decoded_parsing_map(path: Path, original_size: tuple[int, int]) -> Iterator[Image.Image]:
    """Yield a parsing map after checking that it is one, and of the size of its image.

    Args:
        path: the PNG, in mode L or P, whose values are the classes.
        original_size: width and height of the upright image that the map belongs to.

    Raises:
        MissingFileError: there is no file at the path.
        ImageError: the file can't be read, is not an image or damaged.
        DataError: it is not a map of classes, or of another size than the image.
    """
    name = printable(path.name)
    with file_bytes(path, MAX_BYTES, name) as data:
        parsing: Image.Image = open_image(BytesIO(data), name)
        _check_kind(parsing, name)
        _check_size(parsing, (original_size,), name)
        with memory_to_decode(parsing):
            try:
                parsing.load()
            except Exception as error:  # damaged bytes make Pillow's decoders raise nearly anything
                raise ImageError(f"{name}: expected a whole, valid image, got: {one_line(error)}") from error
            _, highest = cast("tuple[int, int]", parsing.getextrema())
            if highest >= len(PARSING_CLASSES):
                raise DataError(f"{name}: expected class indices 0 to {len(PARSING_CLASSES) - 1}, got {highest}")
            yield parsing


def resize_parsing_map(parsing: Image.Image, image_size: int) -> Tensor:
    """Return the center square of a parsing map, resized to the nearest index: the geometry of ``resize_image``.

    Returns:
        uint8 ``(image_size, image_size)``, 0 to 18.
    """
    box = center_square(*parsing.size)
    resized = parsing.resize((image_size, image_size), Image.Resampling.NEAREST, box=box)
    return torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8).view(image_size, image_size)


def _check_kind(parsing: Image.Image, name: str) -> None:
    if parsing.format != "PNG" or parsing.mode not in ("L", "P"):
        raise DataError(f"{name}: expected a PNG of 8-bit indices, got {parsing.format} in mode {parsing.mode}")


def _check_size(parsing: Image.Image, allowed: tuple[tuple[int, ...], ...], name: str) -> None:
    if parsing.size not in allowed:
        expected, got = (" x ".join(map(str, size)) for size in (allowed[0], parsing.size))
        raise DataError(f"{name}: expected the image's {expected} pixels, got {got}")
