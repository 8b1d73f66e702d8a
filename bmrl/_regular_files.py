"""Open a file that untrusted data names: only a regular file, never one that blocks or has no end."""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO

__all__ = ["open_regular", "special_kind"]

_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def special_kind(mode: int) -> str | None:
    """Return what a file of this ``st_mode`` is if it is neither a regular file nor a folder."""
    return next((name for is_kind, name in _KINDS if is_kind(mode)), None)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file to read its bytes; anything else is not even opened, since that alone may have effects.

    Raises:
        OSError: as ``open`` does, with a ``strerror`` that says "a named pipe" and the like; IsADirectoryError.
        ValueError: the path has a null character, or can't be encoded.
    """
    _check_regular(os.stat(path).st_mode, path)
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # it may have become a pipe since
    try:
        _check_regular(os.fstat(handle).st_mode, path)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _check_regular(mode: int, path: str | os.PathLike[str]) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, special_kind(mode) or "no regular file", os.fspath(path))
