"""Files and folders that appear whole or not at all, and folders that one process at a time may write into.

What is written is flushed to the disk before it is renamed into place, so that neither a kill, a full disk nor a
power cut leaves half a file under the name that others read.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bmrl.errors import FolderInUseError, MissingFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["claimed", "flush", "locked", "new_file", "new_folder", "scratch_beside", "write_text"]

CLAIM = ".bmrl-in-use"
"""The file in a folder that its writer holds a lock on; after a kill it stays behind, but the lock does not."""


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
def claimed(folder: Path) -> Iterator[None]:
    """Keep ``folder``, made if missing, for this process alone while the block runs; the claim ends with its holder.

    Raises:
        FolderInUseError: another process, or another thread of this one, writes into it now.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / CLAIM
    handle = _take(mark)
    while handle is None:
        handle = _take(mark)
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)  # while it is locked: see _take
        os.close(handle)


def _take(mark: Path) -> int | None:
    """Return a locked handle of the file; None if its last holder removed it between our opening and locking it."""
    handle = os.open(mark, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), os.stat(mark)):
            return handle
    except BlockingIOError as error:
        os.close(handle)
        message = (
            f"{mark.parent}: expected a folder that nobody else writes into, got one that another process uses now"
        )
        raise FolderInUseError(message) from error
    except FileNotFoundError:
        pass
    os.close(handle)
    return None


def flush(path: Path) -> None:
    """Wait until a file, or a folder with all that is in it, is on the disk."""
    if path.is_symlink():
        return
    if path.is_dir():
        for entry in path.iterdir():
            flush(entry)
    _flush_one(path)


def _flush_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # some network file systems can't flush a folder's list of names
            raise
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
        flush(temporary)
        os.replace(temporary, path)
        _flush_one(path.absolute().parent)


def write_text(path: Path, text: str) -> None:
    """Write a file of UTF-8 text, whole or not at all.

    Raises:
        MissingFileError: the parent folder does not exist.
    """
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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
            flush(temporary)
            try:
                if path.exists():
                    os.replace(path, old)
                os.replace(temporary, path)
                _flush_one(path.absolute().parent)
            finally:
                if old.exists() and not path.exists():
                    os.replace(old, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
