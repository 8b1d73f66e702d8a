"""Read the image of one row of a manifest and its face-parsing map, or only their headers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bmrl._text import printable
from bmrl.data._parsing_map import check_parsing_header, decoded_parsing_map, resize_parsing_map
from bmrl.errors import DataError, ImageError, MissingFileError
from bmrl.images import check_header, decoded, resize_image

if TYPE_CHECKING:
    from torch import Tensor

    from bmrl.data.manifest import Manifest
    from bmrl.data.row import Row

__all__ = ["header_problem", "read_row", "reason"]


def read_row(
    manifest: Manifest, row: Row, image_size: int, *, parsing: bool
) -> tuple[Tensor, Tensor | None, str | None]:
    """Return the image, its map if there is a usable one, and otherwise what is wrong with the map.

    Args:
        manifest: knows where the files are.
        row: the image.
        image_size: > 0, the side of what is returned, in pixels.
        parsing: read the map.

    Returns:
        uint8 ``(3, image_size, image_size)``; uint8 ``(image_size, image_size)`` with values 0 to 18, or None; the
        problem of the map, None if there is a map or none was asked for.

    Raises:
        MissingFileError, ImageError: the image can't be read.
    """
    with decoded(manifest.image_path(row), name=row.path) as image:
        pixels, size = resize_image(image, image_size), image.size
    del image  # the map may take the memory now
    if not parsing:
        return pixels, None, None
    path = manifest.parsing_path(row)
    try:
        with decoded_parsing_map(path, size) as indices:
            return pixels, resize_parsing_map(indices, image_size), None
    except (DataError, ImageError, MissingFileError) as error:
        return pixels, None, reason(error, path.name)


def header_problem(manifest: Manifest, row: Row, *, parsing: bool) -> str | None:
    """Check the header of the image, and return what is wrong with that of its map, if ``parsing`` asks for it.

    Raises:
        MissingFileError, ImageError: the image can't be read, as far as its header shows.
    """
    size = check_header(manifest.image_path(row), name=row.path)
    if parsing:
        path = manifest.parsing_path(row)
        try:
            check_parsing_header(path, size)
        except (DataError, ImageError, MissingFileError) as error:
            return reason(error, path.name)
    return None


def reason(error: Exception, name: str) -> str:
    """Return what an error says, without the name of the file."""
    return str(error).removeprefix(f"{printable(name)}: ")
