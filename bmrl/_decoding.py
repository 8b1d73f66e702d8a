"""The steps behind :func:`bmrl.images.load_image`: bytes, header, RGB, upright."""

from __future__ import annotations

import os
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO, cast

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from bmrl.errors import DTypeError, ImageError, MissingFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image

# The accepted formats by their first bytes. The classes are called instead of Image.open because that one warns of
# big images, and silencing a warning changes the filters of the whole process, which no thread can do safely.
_FORMATS: tuple[tuple[str, tuple[bytes, ...], Callable[[BytesIO], ImageFile.ImageFile]], ...] = (
    ("JPEG", (b"\xff\xd8\xff",), JpegImagePlugin.JpegImageFile),
    ("PNG", (b"\x89PNG\r\n\x1a\n",), PngImagePlugin.PngImageFile),
    ("WebP", (b"RIFF",), WebPImagePlugin.WebPImageFile),
    ("BMP", (b"BM",), BmpImagePlugin.BmpImageFile),
    ("TIFF", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), TiffImagePlugin.TiffImageFile),
    ("GIF", (b"GIF87a", b"GIF89a"), GifImagePlugin.GifImageFile),
)

FORMATS = tuple(kind for kind, _, _ in _FORMATS)

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def source_name(source: ImageSource) -> str:
    """What to call a source in an error."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "bytes image"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "PIL image")
    if not hasattr(source, "read"):
        expected = "a path, bytes, a binary file or a PIL image"
        raise DTypeError(f"source: expected {expected}, got {type(source).__name__}")
    return str(getattr(source, "name", "file image"))


def read_bytes(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO, limit: int, name: str
) -> bytes:
    """Return the encoded bytes, at most ``limit`` of them."""
    try:
        if isinstance(source, (str, os.PathLike)):
            with open(source, "rb") as file:
                data = file.read(limit + 1)
        elif isinstance(source, (bytes, bytearray, memoryview)):
            data = bytes(source[: limit + 1])
        else:
            data = source.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingFileError(f"{name}: expected an image file, got nothing at this path") from error
    except IsADirectoryError as error:
        raise ImageError(f"{name}: expected an image file, got a folder") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the path, a closed file
        reason = getattr(error, "strerror", None) or one_line(error)
        raise ImageError(f"{name}: expected a readable image file, got: {reason}") from error
    if not isinstance(data, bytes):
        raise ImageError(f"{name}: expected a file opened in binary mode, got {type(data).__name__}")
    if not data:
        raise ImageError(f"{name}: expected an image, got no bytes")
    if len(data) > limit:
        raise ImageError(f"{name}: expected at most {limit} bytes, got more")
    return data


def open_image(data: bytes, name: str, formats: Collection[str] = FORMATS) -> ImageFile.ImageFile:
    """Read the header; no pixel is decoded yet."""
    for kind, signatures, opener in _FORMATS:
        if kind in formats and data.startswith(signatures):
            try:
                return opener(BytesIO(data))
            except Exception as error:  # as above
                raise ImageError(f"{name}: expected a valid {kind} image, got: {one_line(error)}") from error
    raise ImageError(f"{name}: expected an image ({', '.join(formats)}), got other data that starts with {data[:8]!r}")


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a loaded image in RGB: on white where transparent, 16 bits of grey scaled to 8.

    Raises:
        ValueError: the mode has no meaning as a picture (floats, integers beyond 16 bits).
    """
    if image.mode.startswith("I"):
        grey = image.convert("I")
        low, high = cast("tuple[int, int]", grey.getextrema())
        if not 0 <= low <= high <= 65535:
            raise ValueError(f"grey levels from {low} to {high}, beyond 16 bits")
        return grey.point(lambda level: level * (1 / 257) + 0.5).convert("L").convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point grey levels, whose range is unknown")
    if image.has_transparency_data:
        rgba = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def upright(rgb: Image.Image, original: Image.Image) -> Image.Image:
    """Turn ``rgb`` as the EXIF data of ``original`` say; damaged EXIF data say nothing, as in a viewer."""
    try:
        orientation = original.getexif().get(_ORIENTATION_TAG)
    except Exception:  # the parser raises nearly anything on damaged data
        return rgb
    return rgb.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else rgb


def one_line(text: str | Exception) -> str:
    """Return a text, or what an exception says, without line breaks."""
    return " ".join(str(text).split()) or type(text).__name__
