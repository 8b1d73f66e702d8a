"""The folder that an import writes: checked before the work, claimed while it lasts, emptied when it fails."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

from bmrl._files import CLAIM, claimed
from bmrl.data.manifest import FILENAME as MANIFEST
from bmrl.errors import DataError, FolderInUseError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["check_destination", "new_data_folder"]

_UNFINISHED = ".bmrl-unfinished-import"
"""In a folder while an import writes into it; after a kill it shows that the import wrote everything in there."""


def check_destination(source: Path, out: Path) -> None:
    """Check that ``out`` can take a data set without touching what is there.

    Raises:
        DataError: ``out`` is a file, holds something other than an unfinished import, or one of the two folders lies
            in the other.
    """
    if out.resolve().is_relative_to(source.resolve()):
        raise DataError(f"{out}: expected a folder outside {source}, which an import leaves as it is, got one inside")
    if source.resolve().is_relative_to(out.resolve()):
        raise DataError(f"{out}: expected a new or empty folder, got one that holds {source}")
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: expected a new or empty folder, got a file")
    if out.is_dir() and not _is_unfinished(out) and _contents(out):
        raise DataError(f"{out}: expected a new or empty folder, got one that holds files")


@contextlib.contextmanager
def new_data_folder(source: Path, out: Path) -> Iterator[None]:
    """Reserve ``out``, emptied, for this block; remove what is in it if the block fails.

    Raises:
        DataError: as :func:`check_destination`.
        FolderInUseError: another process writes into ``out`` now.
    """
    existed = out.exists()
    try:
        with claimed(out):
            check_destination(source, out)  # another import may have ended while this one began
            try:
                _clear(out)
                (out / _UNFINISHED).touch()
                yield
                (out / _UNFINISHED).unlink()
            except BaseException:
                _clear(out)
                raise
    except BaseException as error:
        if not existed and not isinstance(error, FolderInUseError):
            with contextlib.suppress(OSError):  # another process may have put something there
                out.rmdir()
        raise


def _contents(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if entry.name != CLAIM]


def _is_unfinished(folder: Path) -> bool:
    """Whether a folder holds what an import that was killed had written so far, and nothing but that."""
    return (folder / _UNFINISHED).is_file() and not (folder / MANIFEST).exists()


def _clear(folder: Path) -> None:
    for entry in _contents(folder):
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
