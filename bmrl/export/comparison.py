"""All formats of a model in one folder, measured side by side: what each costs and what it keeps."""

from __future__ import annotations

import copy
import json
import logging
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bmrl._files import write_text
from bmrl._text import shown
from bmrl.errors import BMRLError, DTypeError, ExportError, RangeError
from bmrl.export._models import as_model
from bmrl.export.artifact import load_artifact, read_entries, withdraw
from bmrl.export.formats import FORMATS, check_format, export
from bmrl.export.verification import check_images, reference, verify

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from bmrl.models import BMRL

__all__ = ["export_all", "format_exports", "measure"]

BATCHES = (1, 8)
ROUNDS = 7

_log = logging.getLogger(__name__)


def export_all(
    model: BMRL | str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    images: Tensor,
    calibration: Tensor | None = None,
    formats: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Export a model in every format and return a table of size, speed and fidelity.

    Files are called as their format, such as ``onnx-int8.onnx``; ``artifact.json`` tells what each is, ``exports.json``
    and ``exports.md`` hold the table. Speed is measured in this process on this machine, a round at a time with the
    model itself. A format that fails is a row with its error, and no file. OpenVINO, where it is installed, is one
    more way to run the ONNX files.

    Args:
        model: the model, in any mode, on any device, which is not touched; or its folder.
        folder: made if missing.
        images: ``(n, 3, image_size, image_size)`` uint8, n >= 1: best the test split.
        calibration: images of the same kind for int8, best of the training split; None takes ``images``.
        formats: names of :data:`~bmrl.export.FORMATS`; None takes all.

    Returns:
        A row a format: ``format``, ``engine``, ``file``, ``bytes``, ``error``, the figures of its verification
        (see ``artifact.json``), and for a batch of 1 and 8, under ``speed``, ``images_per_second`` and ``relative``:
        times as fast as the model in eager float32, as median and quartiles.

    Raises:
        RangeError: an unknown format, one that is named twice, or none.
        ShapeError, DTypeError: images of another shape or dtype.
        MissingFileError, ModelFolderError: the model's folder holds no usable model.
        ExportError: ``folder`` is a file or can't be made.
        ArtifactError: it holds an ``artifact.json`` that is not ours.
    """
    names = _checked_formats(formats)
    if not isinstance(folder, str | os.PathLike):
        raise DTypeError(f"folder: expected a path, got {type(folder).__name__}")
    folder = Path(folder)
    if os.path.exists(folder) and not folder.is_dir():
        raise ExportError(f"{folder}: expected a folder, got a file")
    model = as_model(model)
    images = check_images("images", images, model.config.image_size)
    if calibration is not None:
        calibration = check_images("calibration", calibration, model.config.image_size)
    if folder.is_dir():
        read_entries(folder)
    expected = reference(model, images)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(
            f"{folder}: expected a folder that can be made, got {shown(error.strerror or error)}"
        ) from error
    rows: list[dict[str, Any]] = []
    for name in names:
        began = time.monotonic()
        kind = FORMATS[name]
        row: dict[str, Any] = {"format": name, "engine": None, "file": f"{name}{kind.suffix}", "error": None}
        path = folder / row["file"]
        try:
            export(model, path, name, images=expected, calibration=images if calibration is None else calibration)
            rows.append(row | _figures(read_entries(folder)[path.name]))
            _log.info("%s: exported and verified in %.0f s", name, time.monotonic() - began)
            if kind.kind == "onnx" and _has_openvino():
                found = verify(
                    path,
                    expected,
                    list(model.config.decision.thresholds),
                    exact=kind.precision == "fp32",
                    engine="openvino",
                )
                rows.append(rows[-1] | {"engine": "openvino"} | _figures({"verification": found}))
        except (BMRLError, OSError) as error:
            if not any(one["file"] == path.name for one in rows):
                withdraw(path)
            rows.append(row | {"engine": "openvino" if path.name in {r["file"] for r in rows} else None})
            rows[-1]["error"] = str(error)
            _log.warning("%s: %s", name, error)
    _add_speed(rows, model, folder, images)
    write_text(folder / "exports.json", json.dumps(rows, indent=1) + "\n")
    write_text(folder / "exports.md", format_exports(rows) + "\n")
    return rows


def _checked_formats(formats: Sequence[str] | None) -> tuple[str, ...]:
    if formats is None:
        return tuple(FORMATS)
    if isinstance(formats, str) or not isinstance(formats, Sequence):
        raise DTypeError(f"formats: expected names of formats, got {formats!r}")
    for name in formats:
        check_format("formats", name)
    if not formats or len(set(formats)) < len(formats):
        raise RangeError(f"formats: expected one or more different names, got {', '.join(formats) or 'none'}")
    return tuple(formats)


def measure(
    runs: dict[str, Callable[[Tensor], Any]], images: Tensor, *, rounds: int = ROUNDS
) -> dict[str, list[float]]:
    """Return seconds of each call on ``images``, a round at a time so that all see the same state of the machine.

    Each is called twice a round, and the second call counts: the first brings its own weights into the caches and
    wakes its own threads.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            run(images)
            began = time.perf_counter()
            run(images)
            seconds[name].append(time.perf_counter() - began)
    return seconds


def format_exports(rows: list[dict[str, Any]]) -> str:
    """Return the table as Markdown."""
    lines = [
        "| format | MiB | images/s at batch 1 | times eager | at batch 8 | times eager | largest difference of "
        "probabilities | same class | decisions changed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        name = row["format"] + (f" by {row['engine']}" if row["engine"] else "")
        if row["error"]:
            lines.append(f"| {name} | failed: {row['error']} |" + " |" * 7)
            continue
        cells = [name, f"{row['bytes'] / 2**20:.1f}"]
        for batch in BATCHES:
            speed = row["speed"][str(batch)]
            ratio = "{:.2f} ({:.2f}-{:.2f})".format(*speed["relative"])
            cells += [f"{speed['images_per_second']:.3g}", ratio]
        cells += [
            f"{row['probability_difference']:.1e}",
            f"{100 * row['top1_agreement']:.1f} %",
            f"{row['decisions_changed']} of {row['images']}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _figures(entry: dict[str, Any]) -> dict[str, Any]:
    """Return what the table takes of an entry of ``artifact.json``."""
    found = {name: value for name, value in entry["verification"].items() if name not in ("probe", "batches")}
    return found | {name: entry[name] for name in ("bytes", "precision") if name in entry}


def _add_speed(rows: list[dict[str, Any]], model: BMRL, folder: Path, images: Tensor) -> None:
    eager = copy.deepcopy(model).cpu().eval()

    def run_eager(batch: Tensor) -> None:
        with torch.inference_mode():
            eager(batch)

    good = {f"{row['format']} {row['engine']}": row for row in rows if not row["error"]}
    runs: dict[str, Callable[[Tensor], Any]] = {"eager": run_eager}
    for key, row in good.items():
        runs[key] = load_artifact(folder / row["file"], engine=row["engine"], probe=False).run
        row["speed"] = {}
    for batch in BATCHES:
        repeated = images.cpu().repeat(-(-batch // len(images)), 1, 1, 1)[:batch]
        seconds = measure(runs, repeated)
        middle = statistics.median(seconds["eager"])
        for key, row in good.items():
            ratios = [middle / quantile for quantile in _quartiles(seconds[key])]
            row["speed"][str(batch)] = {
                "images_per_second": batch / statistics.median(seconds[key]),
                "relative": [ratios[1], ratios[2], ratios[0]],
            }


def _quartiles(values: list[float]) -> list[float]:
    return statistics.quantiles(values, n=4, method="inclusive")


def _has_openvino() -> bool:
    try:
        import openvino  # noqa: F401
    except ImportError:
        return False
    return True
