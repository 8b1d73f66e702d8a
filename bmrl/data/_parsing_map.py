"""Read a face-parsing map: a PNG of class indices beside the image that it describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from PIL import Image

from bmrl._decoding import one_line, open_image, read_bytes
from bmrl.errors import DataError, ImageError
from bmrl.images import MAX_BYTES, center_square

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

NUM_CLASSES = 19
"""Classes of CelebAMask-HQ: background 0, skin 1, and so on up to hat 18."""


def open_parsing_map(path: Path, original_size: tuple[int, int]) -> Image.Image:
    """Return a parsing map after checking that it is one, and of the size of its image.

    Args:
        path: the PNG, in mode L or P, whose values are the classes.
        original_size: width and height of the upright image that the map belongs to.

    Raises:
        MissingFileError: there is no file at the path.
        ImageError: the file can't be read, is no image or damaged.
        DataError: it is no map of classes, or of another size than the image.
    """
    parsing: Image.Image = open_image(read_bytes(path, MAX_BYTES, path.name), path.name)
    if parsing.format != "PNG" or parsing.mode not in ("L", "P"):
        raise DataError(f"{path.name}: expected a PNG of 8-bit indices, got {parsing.format} in mode {parsing.mode}")
    if parsing.size != original_size:
        expected, got = (" x ".join(map(str, size)) for size in (original_size, parsing.size))
        raise DataError(f"{path.name}: expected the image's {expected} pixels, got {got}")
    try:
        parsing.load()
    except Exception as error:  # damaged bytes make Pillow's decoders raise nearly anything
        raise ImageError(f"{path.name}: expected a whole, valid image, got: {one_line(error)}") from error
    _, highest = cast("tuple[int, int]", parsing.getextrema())
    if highest >= NUM_CLASSES:
        raise DataError(f"{path.name}: expected class indices 0 to {NUM_CLASSES - 1}, got {highest}")
    return parsing


def resize_parsing_map(parsing: Image.Image, image_size: int) -> Tensor:
    """Return the centre square of a parsing map, resized to the nearest index: the geometry of ``resize_image``.

    Returns:
        uint8 ``(image_size, image_size)``, 0 to 18.
    """
    box = center_square(*parsing.size)
    resized = parsing.resize((image_size, image_size), Image.Resampling.NEAREST, box=box)
    return torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8).view(image_size, image_size)
