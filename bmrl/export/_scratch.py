"""Folders for what an export makes on its way; those of exports that were killed are removed by the next one."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bmrl._files import locked

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["scratch"]


LOCK = ".in-use"


@contextlib.contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Yield a new folder beside ``path``, which is removed in the end.

    While it is in use this process holds a lock on a file in it, which a kill ends: so a folder of the same ``path``
    that nobody holds is one that was left behind.
    """
    parent, prefix = path.absolute().parent, f".{path.name}.export-"
    with locked(parent):
        for left in glob.glob(f"{glob.escape(prefix)}*", root_dir=parent, include_hidden=True):
            _remove_unless_in_use(parent / left)
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
        handle = _open(folder)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _open(folder: Path) -> int:
    return os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def _remove_unless_in_use(folder: Path) -> None:
    with contextlib.suppress(OSError):  # its holder is at work, or has just removed it
        handle = _open(folder)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)
