"""Find the images in a folder: the one walker behind every command that takes a folder."""

from __future__ import annotations

import os
import re
from collections import Counter, deque
from pathlib import Path
from typing import NamedTuple

from bmrl._regular_files import special_kind
from bmrl._text import printable
from bmrl.data.manifest import FILENAME, PARSING, Manifest
from bmrl.errors import DataError, MissingFileError
from bmrl.images import SUFFIXES

__all__ = ["UNSUPPORTED", "FoundFiles", "FoundImages", "find_files", "find_images", "natural_order"]

_IMAGES = ".heic .heif .hif .avif .jxl .jp2 .j2k .jpf .jpx .psd .svg .ico .tga .exr .hdr .ppm .pgm .pnm .pbm .dds"
_RAW = ".dng .cr2 .cr3 .crw .nef .nrw .arw .orf .rw2 .raf .pef .srw .raw"
_VIDEOS = ".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .wmv .flv .3gp .mts .m2ts"

UNSUPPORTED = frozenset(f"{_IMAGES} {_RAW} {_VIDEOS}".split())
"""Names of pictures and videos that bmrl can't read; they are counted, so that none is dropped silently."""

# What operating systems and network drives leave in folders: thumbnails, metadata of archives, deleted files.
_SYSTEM_FOLDERS = frozenset(("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information"))
_SYSTEM_FILES = frozenset(("Thumbs.db", "desktop.ini"))


class FoundFiles(NamedTuple):
    """The files below a folder.

    Attributes:
        files: regular files and broken links, each ``folder / relative``, in :func:`natural_order`.
        skipped: what was left out, and why.
    """

    files: list[Path]
    skipped: list[tuple[Path, str]]


class FoundImages(NamedTuple):
    """The images of a folder, and what else was found.

    Attributes:
        images: the files to read, each ``folder / relative``, in :func:`natural_order`.
        unsupported: the number of pictures and videos in formats that bmrl can't read, by suffix in lower case.
        skipped: what was left out, and why: named pipes, sockets, devices, folders that can't be read or were read
            by another name, parsing maps.
    """

    images: list[Path]
    unsupported: dict[str, int]
    skipped: list[tuple[Path, str]]


def find_images(folder: str | os.PathLike[str]) -> FoundImages:
    """Return the images of a folder: those of its ``manifest.csv`` if it has one, else all below it, by their names.

    Of a sub-folder with a ``manifest.csv``, the images that it lists are taken. Hidden files and folders, and those
    that operating systems leave behind (``__MACOSX``, ``Thumbs.db``, thumbnails), are passed over; so is
    ``folder/parsing``, which is named in ``skipped``. Linked folders are followed, none twice. No file but the
    manifests is opened.

    Raises:
        MissingFileError: there is nothing at the path.
        DataError: it is not a folder, or a manifest breaks a rule.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("10.png", "2.png", "notes.txt", "clip.mp4"):
        ...     (folder / name).touch()
        >>> found = find_images(folder)
        >>> [path.name for path in found.images], found.unsupported
        (['2.png', '10.png'], {'.mp4': 1})
    """
    folder = Path(folder)
    if not os.path.isdir(folder):  # False for what no path can be, unlike folder.is_dir()
        if not os.path.lexists(folder):
            raise MissingFileError(f"{printable(str(folder))}: expected a folder, got nothing at this path")
        raise DataError(f"{printable(str(folder))}: expected a folder, got something else")
    images: list[Path] = []
    unsupported: Counter[str] = Counter()
    found, manifests = _walk(folder, stop_at=FILENAME)
    for home in manifests:
        manifest = Manifest.read(home / FILENAME)
        images += (manifest.image_path(row) for row in manifest.rows)
    for file in found.files:
        suffix = file.suffix.lower()
        if suffix in SUFFIXES:
            images.append(file)
        elif suffix in UNSUPPORTED:
            unsupported[suffix] += 1
    return FoundImages(sorted(images, key=natural_order), dict(sorted(unsupported.items())), found.skipped)


def find_files(folder: Path) -> FoundFiles:
    """Return all files below a folder as :func:`find_images` does, but regardless of manifests."""
    return _walk(folder)[0]


def natural_order(path: Path) -> tuple[object, ...]:
    """Return what to sort paths by: folder by folder, numbers by their value (``2.png`` before ``10.png``)."""
    numbers = tuple(
        tuple(int(text) if place % 2 else text for place, text in enumerate(re.split(r"([0-9]+)", part)))
        for part in path.parts
    )
    return numbers, path.parts


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden or left by an operating system."""
    return name.startswith(".") or name in _SYSTEM_FOLDERS or name in _SYSTEM_FILES


def _walk(folder: Path, *, stop_at: str | None = None) -> tuple[FoundFiles, list[Path]]:
    """Return the files below ``folder``, and the folders that hold a file ``stop_at``, which are not searched."""
    files: list[Path] = []
    skipped: list[tuple[Path, str]] = []
    stopped: list[Path] = []
    # The folders above count as seen: a link to one of them would lead out of the folder, and then back here.
    seen = {_identity(above.stat()): above for above in folder.resolve().parents}
    waiting, links = deque([folder]), deque[Path]()
    while waiting or links:
        # Linked folders come last, so that what lies below the folder itself is known by its own path.
        current = waiting.popleft() if waiting else links.popleft()
        try:
            identity = _identity(current.stat())
            entries = sorted(os.scandir(current), key=lambda entry: natural_order(Path(entry.name)))
        except OSError as error:
            skipped.append((current, f"expected a readable folder, got: {error.strerror}"))
            continue
        first = seen.setdefault(identity, current)
        if first is not current:
            skipped.append((current, f"expected each folder once, got a link to {first}"))
            continue
        if stop_at is not None and any(entry.name == stop_at for entry in entries):
            stopped.append(current)
            continue
        for entry in entries:
            path = current / entry.name
            if is_hidden(entry.name):
                continue
            if _is_folder(entry):
                if current == folder and entry.name == PARSING:
                    skipped.append((path, "expected faces, got the folder of parsing maps"))
                else:
                    (links if entry.is_symlink() else waiting).append(path)
            elif kind := _special_kind(entry):
                skipped.append((path, f"expected a file, got {kind}"))
            else:
                files.append(path)
    return FoundFiles(sorted(files, key=natural_order), skipped), stopped


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _special_kind(entry: os.DirEntry[str]) -> str | None:
    """Return what an entry is if it is not a regular file; None also if that is unknown, as for a broken link."""
    try:
        return special_kind(entry.stat().st_mode)
    except OSError:
        return None
