"""The metrics of a run as CSV, one row per epoch and kind, in a file that is whole at any time."""

from __future__ import annotations

import contextlib
import csv
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import Logger

from bmrl._files import new_file

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MetricsLogger", "read_metrics"]


class MetricsLogger(Logger):
    """Writes ``log/version_N/metrics.csv``, N counting the starts of the run.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._version = 1 + max(_versions(folder), default=-1)
        self._folder = folder / "log" / f"version_{self._version}"
        self._rows: list[dict[str, Any]] = []

    @property
    def name(self) -> str:
        """See Lightning."""
        return "log"

    @property
    def version(self) -> int:
        """See Lightning."""
        return self._version

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add a row and rewrite the file: new columns come as late as the end of the first epoch."""
        self._rows.append({"step": step} | metrics)
        columns = sorted({name for row in self._rows for name in row})
        self._folder.mkdir(parents=True, exist_ok=True)
        with (
            new_file(self._folder / "metrics.csv") as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self._rows)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """They are in ``training.json``."""


def read_metrics(folder: Path) -> dict[int, dict[str, float]]:
    """Return the logged metrics of each epoch by name, epochs counted from 1; nothing of a log that was changed since.

    Args:
        folder: of a run; where two of its starts logged the same epoch, the later one counts.
    """
    epochs: dict[int, dict[str, float]] = {}
    for version in sorted(_versions(folder)):
        path = folder / "log" / f"version_{version}" / "metrics.csv"
        with (
            contextlib.suppress(OSError, ValueError, KeyError, TypeError, csv.Error),
            path.open(encoding="utf-8", newline="") as file,
        ):
            for row in csv.DictReader(file):
                values = {name: float(text) for name, text in row.items() if name not in ("epoch", "step") and text}
                epochs.setdefault(1 + int(row["epoch"]), {}).update(values)
    return epochs


def _versions(folder: Path) -> list[int]:
    """Return the numbers of the starts of a run that have a log."""
    return [int(path.name[8:]) for path in folder.glob("log/version_*") if path.name[8:].isdecimal()]
