"""Places to write to, checked before the work whose results they take."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from bmrl.errors import DTypeError, MissingFileError, OutputError

__all__ = ["check_out_file", "check_out_folder", "check_utf8"]


def check_out_folder(name: str, path: str | os.PathLike[str]) -> None:
    """Check, before the work for it begins, that files can be written into a folder, which may still have to be made.

    Args:
        name: of the argument.
        path: the folder.

    Raises:
        OutputError: it is something else, can't be made, or can't be written into.
    """
    if not isinstance(path, str | os.PathLike):
        raise DTypeError(f"{name}: expected a path, got {type(path).__name__}")
    place = Path(path)
    if not os.fspath(path):
        raise OutputError(f"{name}: expected a folder, got ''")
    try:
        with contextlib.suppress(FileNotFoundError):
            place.lstat()  # among others, notices names that are too long
        while not os.path.lexists(place.absolute()):
            place = place.absolute().parent
        tempfile.TemporaryFile(dir=place).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{name}: expected a folder that can be written, got {path} ({reason})") from error


def check_out_file(name: str, path: str | os.PathLike[str]) -> None:
    """Check, before the work for it begins, that a file can be written or replaced.

    Args:
        name: of the argument.
        path: the file; its parent folder must exist.

    Raises:
        OutputError: it is a folder, or can't be written.
        MissingFileError: the parent folder does not exist.
    """
    if not isinstance(path, str | os.PathLike):
        raise DTypeError(f"{name}: expected a path, got {type(path).__name__}")
    file = Path(path)
    if os.path.isdir(file):
        raise OutputError(f"{name}: expected a file, got the folder {path}")
    try:
        with contextlib.suppress(FileNotFoundError):
            file.lstat()
        parent = file.absolute().parent
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{name}: expected a file that can be written, got {path} ({reason})") from error
    if not parent.is_dir():
        raise MissingFileError(f"{name}: expected an existing parent folder, got none at {parent}")
    check_out_folder(name, parent)


def check_utf8(name: str, path: str) -> None:
    """Check that a path is text: PyTorch and ONNX write into no other.

    Raises:
        OutputError: it holds a stray byte.
    """
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise OutputError(f"{name}: expected a path in UTF-8, got {path!r}") from error
