"""The folder of a running server: in a safe place, locked while it is used, and removed at the end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path

from bmrl.errors import ServerError

__all__ = ["Scratch", "remove_abandoned"]

PREFIX = "bmrl-server-"
LOCK = "lock"
LEFTOVERS = "python_env"
SHARED_MEMORY = Path("/dev/shm")
PLACES = ("/tmp", "/var/tmp", "/dev/shm")
PYTHON_ENVIRONMENTS = Path("/tmp")  # where the Python backend makes an empty folder, regardless of TMPDIR


class Scratch:
    """A new folder that only this user can enter, with a lock that ends with its last holder.

    It is in the folder for temporary files unless the name of that has letters beyond ASCII, which the Python of
    Triton's backend can't read; then in one of ``PLACES``.

    Attributes:
        path: the folder.
        lock: an open file whose lock says that the folder is in use; processes that inherit it hold it too.

    Raises:
        ServerError: no place can be written to.
    """

    def __init__(self) -> None:
        self.path = _new_folder()
        temporary = self.path / f".{LOCK}"
        self.lock = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        temporary.rename(self.path / LOCK)  # a lock file that is not locked means a folder that is not used
        self._environments = _python_environments()

    @property
    def name(self) -> str:
        """The folder's name, with which the server's regions of shared memory begin."""
        return self.path.name

    def note_leftovers(self) -> None:
        """Note, once the models are loaded, which folders the server would leave in /tmp if it were killed."""
        made = sorted(_python_environments() - self._environments)
        with contextlib.suppress(OSError):
            (self.path / LEFTOVERS).write_text("\n".join(made))

    def remove(self) -> None:
        """Remove the folder and what a killed server leaves elsewhere; for when no process of it lives."""
        _remove(self.path)
        with contextlib.suppress(OSError):
            os.close(self.lock)
        self.lock = -1


def remove_abandoned() -> None:
    """Remove the folders of servers that were killed together with the program that started them."""
    for place in dict.fromkeys((tempfile.gettempdir(), *PLACES)):
        for folder in Path(place).glob(f"{PREFIX}*"):
            with contextlib.suppress(OSError):
                if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                    continue
                lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(folder)
                finally:
                    os.close(lock)


def _new_folder() -> Path:
    reasons = []
    for place in dict.fromkeys((tempfile.gettempdir(), *PLACES)):
        if not place.isascii():
            reasons.append(f"{place}: letters beyond ASCII")
            continue
        try:
            return Path(tempfile.mkdtemp(prefix=PREFIX, dir=place)).absolute()
        except OSError as error:
            reasons.append(f"{place}: {(error.strerror or str(error)).lower()}")
    raise ServerError(f"TMPDIR: expected a folder for temporary files, got none ({'; '.join(reasons)})")


def _remove(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for name in (folder / LEFTOVERS).read_text().splitlines():
            if name.startswith("python_env_") and "/" not in name:
                with contextlib.suppress(OSError):  # another process put something into it
                    (PYTHON_ENVIRONMENTS / name).rmdir()
    for leftover in SHARED_MEMORY.glob(f"{folder.name}*"):
        if leftover != folder and not stat.S_ISDIR(leftover.lstat().st_mode):
            leftover.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _python_environments() -> set[str]:
    found = set()
    for folder in PYTHON_ENVIRONMENTS.glob("python_env_*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid == os.getuid():
                found.add(folder.name)
    return found
