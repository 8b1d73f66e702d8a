"""Make room for the simulated data set without ever losing a file that someone else put there."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from bmrl._files import CLAIM
from bmrl.data.manifest import FILENAME, PARSING
from bmrl.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from PIL import Image

__all__ = ["CONTACT_SHEET", "MARKER", "clear_folder", "prepare_folder", "save_image"]

MARKER = "simulated.json"
CONTACT_SHEET = "contact_sheet.png"
_FILES = (MARKER, CONTACT_SHEET, FILENAME)


def prepare_folder(folder: Path, settings: Mapping[str, int], generators: Collection[str]) -> Path:
    """Create ``folder`` with its sub-folders; an earlier data set in it is removed, file by file.

    Args:
        folder: new, empty, or one that holds a data set of this package and nothing else.
        settings: what to write to ``simulated.json``, which marks the folder as ours.
        generators: names of the generators' folders.

    Returns:
        ``folder``.

    Raises:
        DataError: ``folder`` is not a folder, or holds something else; nothing is changed then.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"folder: expected a folder, got the file {folder}")
    files = _own_files(folder) if folder.is_dir() else []
    for file in files:
        file.unlink()
    for name in generators:
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / PARSING / name).mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text(json.dumps(dict(settings)) + "\n", encoding="utf-8")
    return folder


def clear_folder(folder: Path) -> None:
    """Remove an unfinished data set, file by file, and the folders that are empty then."""
    for file in _own_files(folder):
        file.unlink()
    for parent, _, _ in os.walk(folder, topdown=False):
        if Path(parent) != folder:
            with contextlib.suppress(OSError):
                os.rmdir(parent)


def save_image(image: Image.Image, path: Path) -> None:
    """Write an image.

    Raises:
        DataError: the file can't be written.
    """
    try:
        image.save(path)
    except OSError as error:  # Pillow's names no file
        raise DataError(f"{path}: expected a file that can be written, got: {error.strerror or error}") from error


def _own_files(folder: Path) -> list[Path]:
    """Every file below ``folder``, the marker last; an error if any is not one that this package writes."""
    entries = [Path(parent) / name for parent, folders, names in os.walk(folder) for name in (*folders, *names)]
    files = sorted(entry for entry in entries if entry.is_symlink() or not entry.is_dir())
    files = [file for file in files if file != folder / CLAIM]  # of the checking process
    if files and not (folder / MARKER).is_file():
        raise DataError(
            f"folder: expected an empty folder or an earlier simulated data set, got {folder} with {files[0].name}"
        )
    for file in files:
        if not _is_own(file.relative_to(folder).parts):
            raise DataError(f"folder: expected only files of a simulated data set, got {file}")
    # The manifest goes first and the marker last: what a kill leaves is not a data set, and still ours.
    return sorted(files, key=lambda file: (file.name == MARKER, file.name != FILENAME))


def _is_own(parts: tuple[str, ...]) -> bool:
    if parts[0].startswith(f".{FILENAME}."):  # what a kill left while the manifest was written
        return parts[1:] == (FILENAME,)
    if len(parts) == 1:
        return parts[0] in _FILES
    *folders, name = parts[1:] if parts[0] == PARSING else parts
    stem, _, suffix = name.partition(".")
    return len(folders) == 1 and folders[0].startswith("sim_") and stem.isdecimal() and suffix == "png"
