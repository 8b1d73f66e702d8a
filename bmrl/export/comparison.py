"""The formats of one model compared on this machine: what each costs and what it keeps."""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bmrl._files import write_text
from bmrl._results import Result
from bmrl._text import shown
from bmrl.errors import BMRLError, DTypeError, ExportError, RangeError
from bmrl.export.artifact import load_artifact, read_entries, withdraw
from bmrl.export.exporting import as_exportable, export_model
from bmrl.export.formats import FORMATS, check_format
from bmrl.export.verification import check_images, reference, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from bmrl.export.verification import Reference, Verification
    from bmrl.models import BMRL

__all__ = ["FormatComparison", "FormatRow", "Speed", "compare_formats", "measure_speed"]

BATCHES = (1, 8)
ROUNDS = 7
HEADER = (
    *("format", "MiB", "images/s at batch 1", "times eager", "at batch 8", "times eager"),
    *("largest difference of probabilities", "same class", "decisions changed"),
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed(Result):
    """How fast a file answers.

    Args:
        images_per_second: the median.
        relative: median and quartiles (lower, upper) of the ratio to the model in eager float32.
    """

    images_per_second: float
    relative: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class FormatRow(Result):
    """One format, run by one engine.

    Args:
        format: a name of :data:`~bmrl.export.FORMATS`.
        engine: what ran the file; None is the default.
        file: its name.
        error: why there is no file, or no answer of this engine; None where all is well. The rest is empty then.
        bytes: its size.
        images: how many were compared.
        probability_difference: largest absolute difference of a probability.
        embedding_difference: largest absolute difference of a number in an embedding.
        top1_agreement: share of the answers with the model's most probable class, 0 .. 1.
        decisions_changed: images for which class or verdict changes, or whether one of the model's thresholds is
            reached.
        speed: by batch size, as text.
    """

    format: str
    engine: str | None
    file: str
    error: str | None = None
    bytes: int | None = None
    images: int | None = None
    probability_difference: float | None = None
    embedding_difference: float | None = None
    top1_agreement: float | None = None
    decisions_changed: int | None = None
    speed: Mapping[str, Speed] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The format, and what ran it if that is not the default."""
        return self.format if self.engine is None else f"{self.format} by {self.engine}"


@dataclass(frozen=True, kw_only=True, slots=True)
class FormatComparison(Result):
    """The files of one model in several formats, and a row for each.

    Args:
        folder: where the files are.
        rows: in the order of the formats; one more per further engine.
    """

    folder: Path
    rows: tuple[FormatRow, ...]

    def to_markdown(self) -> str:
        """Return a table with one line per row."""
        lines = [_line(HEADER), "|---" * len(HEADER) + "|"]
        return "\n".join([*lines, *(_line(_cells(row)) for row in self.rows)])


def compare_formats(
    model: BMRL | str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    images: Tensor,
    calibration: Tensor | None = None,
    formats: Sequence[str] | None = None,
) -> FormatComparison:
    """Export a model in several formats and compare size, speed and fidelity.

    Files are called as their format, such as ``onnx-int8.onnx``; ``artifact.json`` says what each is, ``exports.json``
    and ``exports.md`` hold the comparison. Speed is measured in this process on this machine, in rounds in which each
    file and the model itself take turns. A format that fails is a row with its error, and no file. Further engines of
    a format that are installed, such as OpenVINO for ONNX, get a row each.

    Args:
        model: the model, in any mode, on any device, which is not changed; or its folder.
        folder: made if missing.
        images: ``(n, 3, image_size, image_size)`` uint8, n >= 1: best the test split.
        calibration: images of the same shape and dtype for int8, best of the training split; None takes ``images``.
        formats: names of :data:`~bmrl.export.FORMATS`; None takes all.

    Returns:
        The comparison. ``to_markdown()`` is the table, ``to_dict()`` plain data.

    Raises:
        RangeError: an unknown format, one that is named twice, or none.
        ShapeError, DTypeError: images of another shape or dtype.
        MissingFileError, ModelFolderError: the model's folder holds no usable model.
        ExportError: ``folder`` is a file or can't be made.
        ArtifactError: it holds an ``artifact.json`` that bmrl did not write.
    """
    names = _checked_formats(formats)
    if not isinstance(folder, str | os.PathLike):
        raise DTypeError(f"folder: expected a path, got {type(folder).__name__}")
    folder = Path(folder)
    if os.path.exists(folder) and not folder.is_dir():
        raise ExportError(f"{folder}: expected a folder, got a file")
    model = as_exportable(model)
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
    calibration = images if calibration is None else calibration
    rows = [row for name in names for row in _rows(model, folder, name, expected, calibration)]
    comparison = measure_speed(FormatComparison(folder=folder, rows=tuple(rows)), model, images)
    write_text(folder / "exports.json", json.dumps(comparison.to_dict()["rows"], indent=1) + "\n")
    write_text(folder / "exports.md", comparison.to_markdown() + "\n")
    return comparison


def measure_speed(comparison: FormatComparison, model: BMRL, images: Tensor) -> FormatComparison:
    """Return a comparison with the speed of each file and of the model, measured now in this process.

    Args:
        comparison: of files of the model.
        model: the model, on any device, which is not changed.
        images: ``(n, 3, image_size, image_size)`` uint8, n >= 1; repeated to fill a batch.
    """
    eager = copy.deepcopy(model).cpu().eval()

    def run_eager(batch: Tensor) -> None:
        with torch.inference_mode():
            eager(batch)

    runs: dict[str, Callable[[Tensor], object]] = {"eager": run_eager}
    for row in comparison.rows:
        if not row.error:
            runs[row.label] = load_artifact(comparison.folder / row.file, engine=row.engine, probe=False).run
    speeds: dict[str, dict[str, Speed]] = {name: {} for name in runs}
    for batch in BATCHES:
        seconds = _seconds(runs, images.cpu().repeat(-(-batch // len(images)), 1, 1, 1)[:batch])
        middle = statistics.median(seconds["eager"])
        for name, values in seconds.items():
            low, median, high = (middle / one for one in reversed(_quartiles(values)))
            speeds[name][str(batch)] = Speed(
                images_per_second=batch / statistics.median(values), relative=(median, low, high)
            )
    return replace(comparison, rows=tuple(replace(row, speed=speeds.get(row.label, {})) for row in comparison.rows))


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


def _rows(model: BMRL, folder: Path, name: str, expected: Reference, calibration: Tensor) -> Iterator[FormatRow]:
    """Export a model in one format; yield a row for the file, and one for each further engine that is installed."""
    began, entry = time.monotonic(), FORMATS[name]
    row = FormatRow(format=name, engine=None, file=f"{name}{entry.suffix}")
    path = folder / row.file
    try:
        made = export_model(model, path, name, images=expected, calibration=calibration)
    except (BMRLError, OSError) as error:
        withdraw(path)
        _log.warning("%s: %s", name, error)
        yield replace(row, error=str(error))
        return
    _log.info("%s: exported and verified in %.0f s", name, time.monotonic() - began)
    row = replace(row, bytes=made.bytes)
    yield _with(row, made.verification)
    description = read_entries(folder)[path.name]
    for engine in entry.engines[1:]:
        if importlib.util.find_spec(engine) is None:
            continue
        try:
            found = verify(path, expected, description, exact=entry.precision == "fp32", engine=engine)
            yield _with(replace(row, engine=engine), found)
        except (BMRLError, OSError) as error:
            _log.warning("%s by %s: %s", name, engine, error)
            yield replace(row, engine=engine, error=str(error))


def _with(row: FormatRow, found: Verification) -> FormatRow:
    return replace(
        row,
        images=found.images,
        probability_difference=found.probability_difference,
        embedding_difference=found.embedding_difference,
        top1_agreement=found.top1_agreement,
        decisions_changed=found.decisions_changed,
    )


def _seconds(runs: Mapping[str, Callable[[Tensor], object]], images: Tensor) -> dict[str, list[float]]:
    """Return seconds of each call on ``images``, round by round so that all see the same state of the machine.

    Each is called twice per round, and the second call counts: the first brings its own weights into the caches and
    wakes its own threads.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            run(images)
            began = time.perf_counter()
            run(images)
            seconds[name].append(time.perf_counter() - began)
    return seconds


def _quartiles(values: list[float]) -> list[float]:
    return statistics.quantiles(values, n=4, method="inclusive")


def _cells(row: FormatRow) -> list[str]:
    """Return the cells of a row of the table."""
    if row.error or row.bytes is None:
        return [row.label, f"failed: {row.error}", *[""] * (len(HEADER) - 2)]
    cells = [row.label, f"{row.bytes / 2**20:.1f}"]
    for batch in BATCHES:
        speed = row.speed[str(batch)]
        cells += [f"{speed.images_per_second:.3g}", "{:.2f} ({:.2f}-{:.2f})".format(*speed.relative)]
    cells += [f"{row.probability_difference:.1e}", f"{100 * (row.top1_agreement or 0):.1f} %"]
    return [*cells, f"{row.decisions_changed} of {row.images}"]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
