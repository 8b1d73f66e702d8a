"""The folder of a run: its files, one writer at a time, and what a failure leaves in it."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

from bmrl._files import claimed, remove_leftovers, write_text
from bmrl.errors import ConfigError, DivergenceError, MissingFileError
from bmrl.models.serialization import CONFIG, WEIGHTS
from bmrl.training._checkpoints import BEST_CHECKPOINT, LAST_CHECKPOINT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["DIVERGED", "OBJECTIVE", "SETTINGS", "failures", "finished", "run_folder"]

SETTINGS = "training.json"
DIVERGED = "diverged.txt"
OBJECTIVE = "objective.safetensors"


def finished(folder: Path) -> bool:
    """Return whether a run has come to its end: ``config.json`` is written last."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


@contextlib.contextmanager
def run_folder(folder: Path, *, resume: bool) -> Iterator[None]:
    """Keep the run's folder, made if missing, for this process, and leave none behind if nothing came into it."""
    missing = not folder.exists()
    if resume and not folder.is_dir():
        raise MissingFileError(f"out: expected a run to resume with {folder / SETTINGS}, got no such file")
    if not folder.is_dir() and (not missing or folder.is_symlink()):
        raise ConfigError(f"out: expected a new or empty folder, got {folder}")
    try:
        with claimed(folder):
            for path in (SETTINGS, OBJECTIVE, LAST_CHECKPOINT, BEST_CHECKPOINT, CONFIG, WEIGHTS):
                remove_leftovers(folder / path)
            for log in folder.glob("log/version_*"):
                remove_leftovers(log / "metrics.csv")
            yield
    finally:
        if missing:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only where it is empty


@contextlib.contextmanager
def failures(folder: Path, *, new: bool) -> Iterator[None]:
    """Mark a training that diverged, so that it is not resumed; undo a new one that failed in its first epoch."""
    try:
        yield
    except DivergenceError as error:
        kept = (folder / LAST_CHECKPOINT).is_file()
        weights = f"those of the last finite epochs are in {LAST_CHECKPOINT.parent}" if kept else "none are kept"
        message = f"{error} (weights: {weights})"
        write_text(folder / DIVERGED, message + "\n")
        raise DivergenceError(message) from error
    except Exception:
        if new and not (folder / LAST_CHECKPOINT).is_file():  # nothing to resume, and it would block the next try
            (folder / SETTINGS).unlink(missing_ok=True)
            for made in ("log", LAST_CHECKPOINT.parent):
                shutil.rmtree(folder / made, ignore_errors=True)
        raise
