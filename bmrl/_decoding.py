"""The steps behind :func:`bmrl.images.load_image` after the bytes: header, pixels, RGB, upright."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import warnings
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

from bmrl._image_bytes import unreadable
from bmrl._memory import MemoryBudget, trim
from bmrl._text import one_line
from bmrl.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

__all__ = [
    "FORMATS",
    "check_size",
    "memory_to_decode",
    "open_image",
    "orientation",
    "to_rgb",
]

# The accepted formats by their first bytes. The classes are called instead of Image.open because that one warns of
# big images, and silencing a warning changes the filters of the whole process, which no thread can do safely.
_FORMATS: tuple[tuple[str, tuple[bytes, ...], Callable[[BinaryIO], ImageFile.ImageFile]], ...] = (
    ("JPEG", (b"\xff\xd8\xff",), JpegImagePlugin.JpegImageFile),
    ("PNG", (b"\x89PNG\r\n\x1a\n",), PngImagePlugin.PngImageFile),
    ("WebP", (b"RIFF",), WebPImagePlugin.WebPImageFile),
    ("BMP", (b"BM",), BmpImagePlugin.BmpImageFile),
    ("TIFF", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), TiffImagePlugin.TiffImageFile),
    ("GIF", (b"GIF87a", b"GIF89a"), GifImagePlugin.GifImageFile),
)

FORMATS = tuple(kind for kind, _, _ in _FORMATS)

# Of a damaged file, Pillow and libtiff print many warnings that do not name it; what can't be decoded is reported as an
# ImageError anyway. Set once, here: a temporary filter would change the filters of other threads.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.(Tiff|Png)ImagePlugin")
logging.getLogger("PIL.TiffImagePlugin").addFilter(lambda record: record.levelno < logging.ERROR)
with contextlib.suppress(AttributeError, OSError):  # a Pillow with libtiff built in does not show its functions
    _libtiff = ctypes.CDLL(Image.core.__file__)  # type: ignore[attr-defined]
    _libtiff.TIFFSetErrorHandler.argtypes = [ctypes.c_void_p]
    _libtiff.TIFFSetErrorHandler.restype = ctypes.c_void_p
    _libtiff.TIFFSetErrorHandler(None)

# What a picture in no accepted format is, by the bytes at an offset, for a clearer error.
_OTHERS: tuple[tuple[int, tuple[bytes, ...], str], ...] = (
    (4, (b"ftypavif", b"ftypavis"), "AVIF"),
    (4, tuple(b"ftyp" + brand for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")), "HEIC"),
    (4, (b"ftyp", b"moov"), "a video"),
    (0, (b"\x1aE\xdf\xa3",), "a video"),
    (8, (b"AVI ",), "a video"),
    (0, (b"\xff\x0a", b"\0\0\0\x0cJXL "), "JPEG XL"),
    (0, (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"), "JPEG 2000"),
    (0, (b"8BPS",), "a Photoshop file"),
    (0, (b"%PDF",), "a PDF file"),
    (0, (b"<svg", b"<?xml"), "an XML or SVG file"),
    (0, (b"<!DOCTYPE", b"<!doctype", b"<html", b"<HTML"), "a web page"),
    (0, (b"version https://git-lfs",), "a pointer of Git LFS, whose file was not fetched"),
)

# What all threads together may take: enough for the largest image that is accepted by default.
_PIXELS = MemoryBudget(16 * 89_478_485)

# Peak bytes per pixel, measured: the decoder's buffers and the image, or the image and its RGB copy.
_DECODING = {"JPEG": 12, "WEBP": 16, "TIFF": 16}
_CONVERTING = 8
_LARGE = 2**23  # pixels of an image whose memory is worth giving back at once
_TILE = 2**20  # pixels that are converted at a time: conversions take up to 20 bytes per pixel

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


def open_image(file: BinaryIO, name: str, formats: Collection[str] = FORMATS) -> ImageFile.ImageFile:
    """Read the header; no pixel is decoded yet."""
    try:
        start = file.read(32)
        file.seek(0)
    except OSError as error:
        raise unreadable(name, error) from error
    for kind, signatures, opener in _FORMATS:
        if kind in formats and start.startswith(signatures) and start[8:12] != b"AVI ":
            try:
                return opener(file)
            except Exception as error:  # damaged bytes make Pillow's parsers raise almost anything
                raise ImageError(f"{name}: expected a valid {kind} image, got: {one_line(error)}") from error
    for place, signatures, what in _OTHERS:
        if start.startswith(signatures, place):
            raise ImageError(f"{name}: expected an image ({', '.join(formats)}), got {what}")
    raise ImageError(f"{name}: expected an image ({', '.join(formats)}), got other data that starts with {start[:8]!r}")


def check_size(image: Image.Image, max_pixels: int, name: str) -> None:
    """Check what the header says of the size, before any pixel is decoded.

    Raises:
        ImageError: the image has no pixels or more than ``max_pixels``.
    """
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{name}: expected at least 1 x 1 pixels, got {width} x {height}")
    if width * height > max_pixels:
        raise ImageError(f"{name}: expected at most {max_pixels} pixels, got {width} x {height}")
    if _tile_pixels(image) > max(max_pixels, _TILE):
        raise ImageError(f"{name}: expected tiles of at most {max_pixels} pixels, got {_tile_pixels(image)}")


@contextlib.contextmanager
def memory_to_decode(image: Image.Image) -> Iterator[None]:
    """Count the memory that decoding, converting and cropping an image takes as used until the block ends."""
    pixels = image.width * image.height
    decoded = max(pixels, _tile_pixels(image))
    amount = decoded * _DECODING.get(image.format or "", _CONVERTING) + 16 * min(pixels, _TILE)
    del image  # the block may want to release it
    with _PIXELS.taken(amount):
        try:
            yield
        finally:
            if decoded > _LARGE:
                trim()


def _tile_pixels(image: Image.Image) -> int:
    """Return the size of a TIFF's tiles, each of which is decoded as a whole even if the image is smaller; else 0."""
    tags = getattr(image, "tag_v2", None)
    width, height = (tags.get(tag) if tags else 0 for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH))
    return width * height if isinstance(width, int) and isinstance(height, int) else 0


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a loaded image in RGB: on white where transparent, 16 bits of gray scaled to 8.

    Raises:
        ValueError: the mode has no meaning as a picture (floats, integers beyond 16 bits).
    """
    if image.mode == "I":
        low, high = cast("tuple[int, int]", image.getextrema())
        if not 0 <= low <= high <= 65535:
            raise ValueError(f"gray levels from {low} to {high}, beyond 16 bits")
    if image.mode == "F":
        raise ValueError("floating-point gray levels, whose range is unknown")
    width, height = image.size
    if width * height <= _TILE:
        return _to_rgb(image)
    rgb = Image.new("RGB", image.size)
    columns = min(width, _TILE)
    rows = _TILE // columns
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            tile = image.crop((left, top, min(left + columns, width), min(top + rows, height)))
            rgb.paste(_to_rgb(tile), (left, top))
    return rgb


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return image.convert("I").point(lambda level: level * (1 / 257) + 0.5).convert("L").convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def orientation(image: Image.Image) -> Image.Transpose | None:
    """Return how an image must be turned by its EXIF data; damaged EXIF data is ignored, as by viewers."""
    try:
        return _UPRIGHT.get(cast("int", image.getexif().get(_ORIENTATION_TAG)))
    except MemoryError:  # not the data's fault: the image would be shown as it is stored, and answered wrongly
        raise
    except Exception:  # the parser raises almost anything on damaged data
        return None
