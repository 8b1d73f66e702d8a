"""The figures of a run as CSV, a row an epoch and kind, in a file that is whole at any time."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import Logger

from bmrl._files import new_file

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MetricsLogger"]


class MetricsLogger(Logger):
    """Writes ``log/version_N/metrics.csv``, N counting the starts of the run.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        taken = [int(path.name[8:]) for path in folder.glob("log/version_*") if path.name[8:].isdecimal()]
        self._version = 1 + max(taken, default=-1)
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
        """Add a row and write the file anew: new columns come as late as the end of the first epoch."""
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
