"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bmrl.errors import MissingFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["locked", "new_file", "new_folder", "scratch_beside"]


def _parent(path: Path) -> Path:
    parent = path.absolute().parent
    if not parent.is_dir():
        raise MissingFileError(f"{path}: expected an existing parent folder, got none at {parent}")
    return parent


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time change something in ``folder``; the lock ends with its holder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def scratch_beside(path: Path) -> Iterator[Path]:
    """Yield the path of a file of the same name in a temporary folder beside ``path``.

    Raises:
        MissingFileError: the parent folder does not exist.
    """
    with tempfile.TemporaryDirectory(dir=_parent(path), prefix=f".{path.name}.") as scratch:
        yield Path(scratch) / path.name


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` to write to; it becomes ``path`` if the block succeeds.

    Raises:
        MissingFileError: the parent folder does not exist.
    """
    with scratch_beside(path) as temporary:
        yield temporary
        os.replace(temporary, path)


@contextlib.contextmanager
def new_folder(path: Path, finish: Callable[[Path], None] = lambda folder: None) -> Iterator[Path]:
    """Yield an empty temporary folder beside ``path``; it takes the place of ``path`` if the block succeeds.

    A folder that was there before is moved aside first and put back if the new one can't take its place.

    Args:
        path: the folder to be.
        finish: called with the temporary folder after the block, when nobody else can replace ``path`` any more.

    Raises:
        MissingFileError: the parent folder does not exist.
    """
    scratch = Path(tempfile.mkdtemp(dir=_parent(path), prefix=f".{path.name}."))
    try:
        temporary, old = scratch / "new", scratch / "old"
        temporary.mkdir()
        yield temporary
        with locked(scratch.parent):  # somebody else may be putting another one there
            finish(temporary)
            try:
                if path.exists():
                    os.replace(path, old)
                os.replace(temporary, path)
            finally:
                if old.exists() and not path.exists():
                    os.replace(old, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
