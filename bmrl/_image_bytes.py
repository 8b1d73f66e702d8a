"""The encoded bytes of an image: from a path, a file or memory, bounded in size and counted while they are held."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, BinaryIO

from PIL import Image

from bmrl._memory import MemoryBudget
from bmrl._regular_files import open_regular
from bmrl._text import one_line
from bmrl.errors import BMRLError, DTypeError, ImageError, MissingFileError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ImageSource", "file_bytes", "opened_file", "source_name", "unreadable"]

ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image

# What all threads together may hold: enough for the largest file that is accepted by default.
_FILES = MemoryBudget(256 * 2**20)


def source_name(source: ImageSource) -> str:
    """What to call a source in an error."""
    if isinstance(source, (str, os.PathLike)):
        return os.fsdecode(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "bytes image"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "PIL image")
    if not hasattr(source, "read"):
        expected = "a path, bytes, a binary file or a PIL image"
        raise DTypeError(f"source: expected {expected}, got {type(source).__name__}")
    return str(getattr(source, "name", "file image"))


@contextlib.contextmanager
def opened_file(path: str | os.PathLike[str], limit: int, name: str) -> Iterator[BinaryIO]:
    """Yield a regular file of 1 to ``limit`` bytes, opened for reading.

    Raises:
        MissingFileError: there is nothing at the path.
        ImageError: it is not a regular file, can't be read, is empty, or over the limit.
    """
    try:
        file = open_regular(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingFileError(f"{name}: expected an image file, got nothing at this path") from error
    except IsADirectoryError as error:
        raise ImageError(f"{name}: expected an image file, got a folder") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the path, or one that no path can have
        raise unreadable(name, error) from error
    with file:
        _check_length(os.fstat(file.fileno()).st_size, limit, name)
        yield file


@contextlib.contextmanager
def file_bytes(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO, limit: int, name: str
) -> Iterator[bytes]:
    """Yield the encoded bytes, at most ``limit`` of them; those of files count as used memory until the block ends.

    Raises:
        MissingFileError, ImageError: as :func:`opened_file`.
    """
    with contextlib.ExitStack() as stack:
        try:
            if isinstance(source, (str, os.PathLike)):
                with opened_file(source, limit, name) as file:
                    stack.enter_context(_FILES.taken(os.fstat(file.fileno()).st_size))
                    data = file.read(limit + 1)
            elif isinstance(source, (bytes, bytearray, memoryview)):
                data = bytes(source[: limit + 1])
            else:
                data = source.read(limit + 1)
        except BMRLError:
            raise
        except Exception as error:  # the caller's file object may raise anything
            raise unreadable(name, error) from error
        if not isinstance(data, bytes):
            raise ImageError(f"{name}: expected a file opened in binary mode, got {type(data).__name__}")
        _check_length(len(data), limit, name)
        yield data


def unreadable(name: str, error: Exception) -> ImageError:
    """Return the error for an image whose bytes can't be read."""
    reason = getattr(error, "strerror", None) or one_line(error)
    return ImageError(f"{name}: expected a readable image file, got: {reason}")


def _check_length(length: int, limit: int, name: str) -> None:
    if not length:
        raise ImageError(f"{name}: expected an image, got no bytes")
    if length > limit:
        raise ImageError(f"{name}: expected at most {limit} bytes, got more")
