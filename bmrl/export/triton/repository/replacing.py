"""Replacing a repository: only one that bmrl wrote, with its other versions kept."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmrl._text import shown
from bmrl.errors import ArtifactError, BMRLError, MissingFileError, RepositoryError
from bmrl.export.triton.contract import ENSEMBLE_NAME, MODEL_NAME
from bmrl.export.triton.repository.checks import check_model
from bmrl.export.triton.repository.config import read_triton_config
from bmrl.export.triton.repository.ensemble import DECIDE_NAME, DECODE_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check_replaceable", "other_versions", "writing"]


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Name ``folder``, and not a temporary one, in errors of the system while the block writes.

    Raises:
        RepositoryError: the system does not let it be written.
    """
    try:
        yield
    except BMRLError:
        raise
    except OSError as error:
        message = f"{folder}: expected a place that can be written, got {shown(error.strerror or error)}"
        raise RepositoryError(message) from error


def check_replaceable(folder: Path) -> None:
    """Check that a folder may be replaced: it is new, empty, or a repository that bmrl wrote.

    Raises:
        RepositoryError: it holds something else, or the system does not let it be replaced.
    """
    if not folder.exists():
        return
    if os.path.ismount(folder) or folder.resolve() == Path.cwd():
        raise RepositoryError(
            f"{folder}: expected a folder that can be replaced, got a mount point or the current folder; "
            "name a new folder in it"
        )
    if not folder.is_dir():
        raise RepositoryError(f"{folder}: expected a folder, got a file")
    names = sorted(entry.name for entry in folder.iterdir())
    if not names:
        return
    wanted = f"{folder}: expected an empty folder or a repository written by bmrl"
    for name in names:
        if name not in (MODEL_NAME, DECODE_NAME, DECIDE_NAME, ENSEMBLE_NAME):
            raise RepositoryError(f"{wanted}, got {name!r} in it")
    try:
        check_model(folder)
    except (ArtifactError, RepositoryError, MissingFileError) as error:
        raise RepositoryError(f"{wanted}, got a model of another origin") from error


def other_versions(folder: Path, version: int, config: Any) -> list[Path]:
    """Return the folders of a repository's other versions.

    Args:
        folder: the repository.
        version: the one to be written.
        config: the ``ModelConfig`` message to be written.

    Raises:
        RepositoryError: the new configuration does not serve them too.
    """
    home = folder / MODEL_NAME
    others = [entry for entry in home.glob("*") if entry.is_dir() and entry.name != str(version)]
    if not others:
        return []
    before = read_triton_config(folder)
    contract = [
        (one.backend, one.platform, list(map(str, one.input)), list(map(str, one.output)), dict(one.parameters))
        for one in (before, config)
    ]
    if contract[0] != contract[1]:
        raise RepositoryError(
            f"{folder}: expected versions of the same backend, classes, sizes and options as version {version}, "
            f"got others; write it to a new folder"
        )
    return others
