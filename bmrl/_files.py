"""Files and folders that appear whole or not at all, and folders that one process at a time may write into.

What is written is flushed to the disk before it is renamed into place, so that neither a kill, a full disk nor a
power cut leaves half a file under the name that others read.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bmrl.errors import ConfigError, FolderInUseError, MissingFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["claimed", "flush", "locked", "new_file", "new_folder", "remove_leftovers", "scratch", "write_text"]

CLAIM = ".bmrl-in-use"
"""The file in a folder that its writer holds a lock on; after a kill it stays behind, but the lock does not."""

SCRATCH = ".bmrl-scratch"
"""The file in a temporary folder of ours that its holder has locked; a kill ends the lock and leaves the file."""

NEW, OLD = "new", "old"
"""What :func:`new_folder` writes, and what was there before, in its temporary folder."""
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""Errors of writing: the disk or a quota is full, the file is too large, the disk is broken."""


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
    """Reserve ``folder``, made if missing, for this process while the block runs; the claim ends with its holder.

    Raises:
        FolderInUseError: another process, or another thread of this one, writes into it now.
        ConfigError: it is a file.
    """
    if not folder.is_dir() and (folder.exists() or folder.is_symlink()):
        raise ConfigError(f"{folder}: expected a folder, got a file or a broken link")
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
            f"{mark.parent}: expected a folder that no other process writes into, got one that another process is using"
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
def scratch(path: Path) -> Iterator[Path]:
    """Yield a new folder next to ``path``, which is removed at the end.

    While it is in use this process holds a lock on a file in it, which a kill ends: so a folder of the same ``path``
    that no process holds was left behind, and the next call removes it.

    Raises:
        MissingFileError: the parent folder does not exist.
    """
    parent = _parent(path)
    with locked(parent):
        _recover(path)
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=f".{path.name}."))
        handle = os.open(folder / SCRATCH, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def remove_leftovers(path: Path) -> None:
    """Remove what a kill left of :func:`new_file` for ``path``, whose folder the caller has claimed."""
    for left in path.parent.glob(f".{path.name}.{'[a-z0-9_]' * 8}"):
        if left.is_dir() and not left.is_symlink() and {entry.name for entry in left.iterdir()} <= {path.name}:
            shutil.rmtree(left)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path`` to write to; it becomes ``path`` if the block succeeds.

    Raises:
        MissingFileError: the parent folder does not exist.
    """
    parent, prefix = _parent(path), f".{path.name}."
    try:
        with tempfile.TemporaryDirectory(dir=parent, prefix=prefix) as folder:
            temporary = Path(folder) / path.name
            yield temporary
            flush(temporary)
            os.replace(temporary, path)
            _flush_one(parent)
    except OSError as error:
        # The system names the temporary file, or none at all where the disk is full.
        if str(error.filename).startswith(str(parent / prefix)) or (error.filename is None and error.errno in _DISK):
            error.filename, error.filename2 = str(path), None
        raise


def write_text(path: Path, text: str) -> None:
    """Write a file of UTF-8 text, whole or not at all.

    Raises:
        MissingFileError: the parent folder does not exist.
    """
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def new_folder(path: Path, finish: Callable[[Path], None] = lambda folder: None) -> Iterator[Path]:
    """Yield an empty temporary folder next to ``path``; it takes the place of ``path`` if the block succeeds.

    A folder that was there before is moved aside first and put back if the new one can't take its place. If the process
    is killed between the two, the next call for ``path`` puts it back, and removes what kills left behind.

    Args:
        path: the folder to be.
        finish: called with the temporary folder after the block, when no other process can replace ``path`` any more.

    Raises:
        MissingFileError: the parent folder does not exist.
    """
    with scratch(path) as folder:
        temporary, old = folder / NEW, folder / OLD
        temporary.mkdir()
        yield temporary
        parent = path.absolute().parent
        with locked(parent):  # another process may be putting one there
            finish(temporary)
            flush(temporary)
            try:
                if path.exists():
                    os.replace(path, old)
                os.replace(temporary, path)
                _flush_one(parent)
            finally:
                if old.exists() and not path.exists():
                    os.replace(old, path)


def _recover(path: Path) -> None:
    """Remove the temporary folders that kills left next to ``path``, whose parent is locked.

    What a killed :func:`new_folder` had moved aside is put back.
    """
    for folder in path.absolute().parent.glob(f".{glob.escape(path.name)}.{'[a-z0-9_]' * 8}"):
        with contextlib.suppress(OSError):  # it is not a folder of ours, or its holder is at work
            handle = os.open(folder / SCRATCH, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not os.path.lexists(path) and (folder / OLD).is_dir():
                    os.replace(folder / OLD, path)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)
