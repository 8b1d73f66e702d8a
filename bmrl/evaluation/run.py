"""Evaluation of a model on a manifest: ``metrics.json`` and ``report.html``."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmrl._checks import check_choice, check_integer, check_switch
from bmrl._extras import require
from bmrl._files import claimed, new_file
from bmrl._outputs import check_out_file, check_out_folder
from bmrl._version import __version__
from bmrl.data._manifest_rules import SPLITS
from bmrl.data.manifest import Manifest
from bmrl.errors import DataError, DTypeError
from bmrl.evaluation.predictions import predict_and_describe
from bmrl.evaluation.report import render_report
from bmrl.evaluation.shortcuts import shortcut_baseline, statistics_of
from bmrl.evaluation.summary import headline, summarize
from bmrl.inference.checks import check_thresholds
from bmrl.inference.running import resolve_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

    from bmrl.evaluation._rows import Computed
    from bmrl.evaluation.predictions import Predictions
    from bmrl.models import BMRL, BMRLConfig

__all__ = ["FORMAT", "evaluate"]

METRICS, REPORT = "metrics.json", "report.html"
FORMAT = 1  # of metrics.json; raised when a key changes its meaning or goes


def evaluate(
    model: BMRL | str | os.PathLike[str],
    data: Manifest | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    split: str = "test",
    thresholds: Sequence[float] | None = None,
    batch_size: int = 32,
    device: str | torch.device | None = None,
    baselines: Mapping[str, Mapping[str, Any]] | None = None,
    shortcut: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Evaluate a model on one split and write ``metrics.json`` and ``report.html`` to ``out``.

    Both files appear whole or not at all; existing ones are replaced.

    Args:
        model: a model or its folder.
        data: a manifest or its folder; its seen generators must be classes of the model, its unseen ones must not.
        out: a folder, made if missing.
        split: ``train``, ``val`` or ``test``.
        thresholds: one or more in 0 .. 1; None: the model's.
        batch_size: images a step, > 0; results do not depend on it.
        device: where to run; None: where the model is (from a folder: the GPU if there is one).
        baselines: by name, what :func:`evaluate` returned for other models on the same split, to be shown beside.
        shortcut: also fit and show the shortcut baseline (needs seen train images of two generators).
        progress: called now and then with the number of images done and of all.

    Returns:
        The content of ``metrics.json``: what :func:`~bmrl.evaluation.summary.summarize` returns, and

        * ``format`` (1), ``bmrl_version``, ``created`` (UTC, ISO 8601);
        * ``model``: ``name``, ``folder`` (None for a model that was passed), ``image_size``, ``generators`` (a list of
          ``name``, ``manipulation``, ``architecture`` in the order of the probabilities);
        * ``data``: ``root``, ``split``, ``num_images`` (read), ``num_skipped``; ``skipped``: a list of ``path``,
          ``generator``, ``reason``;
        * ``shortcut``: what ``summarize`` returns for the shortcut baseline, or None with ``shortcut_reason``;
        * ``baselines``: as given.

    Raises:
        DataError: there is nothing to evaluate, roles contradict the model's classes, or a baseline lacks figures.
        MissingFileError: there is no such model or manifest. MissingExtraError: the extra ``train`` is missing.
        OutputError: ``out`` can't be written. FolderInUseError: another evaluation or training writes into it.
        RangeError, DTypeError: another argument is out of range or of the wrong type, or the model returns NaN.
        All but NaN is noticed before the work begins.
    """
    limits = None if thresholds is None else check_thresholds(thresholds)
    check_choice("split", split, SPLITS)
    check_integer("batch_size", batch_size, least=1)
    check_switch("shortcut", shortcut)
    if baselines is not None and not isinstance(baselines, Mapping):
        raise DTypeError(f"baselines: expected a mapping by name, got {type(baselines).__name__}")
    for name, baseline in (baselines or {}).items():
        _check_baseline(name, baseline)
    check_out_folder("out", out)
    target = Path(out)
    require("jinja2", "matplotlib", "sklearn")
    if not isinstance(data, Manifest | str | os.PathLike):
        raise DTypeError(f"data: expected a Manifest or its folder, got {type(data).__name__}")
    manifest = data if isinstance(data, Manifest) else Manifest.read(data)
    network = resolve_model(model, device)
    with _claimed(target):
        for file in (METRICS, REPORT):
            check_out_file("out", target / file)
        predictions, statistics = predict_and_describe(
            network,
            manifest,
            statistics_of if shortcut else None,
            split=split,
            batch_size=batch_size,
            device=None,
            progress=progress,
        )
        limits = limits or network.config.decision.thresholds
        figures, reason = _shortcut(manifest, network.config, split, limits, statistics)
        metrics = _metrics(model, network, manifest, split, predictions, limits)
        metrics |= {"shortcut": figures, "shortcut_reason": reason}
        metrics["baselines"] = {name: dict(baseline) for name, baseline in (baselines or {}).items()}
        _write(target, metrics, render_report(metrics, predictions))
    return metrics


def _metrics(
    model: BMRL | str | os.PathLike[str],
    network: BMRL,
    manifest: Manifest,
    split: str,
    predictions: Predictions,
    thresholds: Sequence[float],
) -> dict[str, Any]:
    folder = str(model) if isinstance(model, str | os.PathLike) else None
    return {
        "format": FORMAT,
        "bmrl_version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": {
            "name": Path(folder).resolve().name if folder else type(network).__name__,
            "folder": folder,
            "image_size": network.config.image_size,
            "generators": [asdict(generator) for generator in network.config.generators],
        },
        "data": {
            "root": str(manifest.root),
            "split": split,
            "num_images": len(predictions.rows),
            "num_skipped": len(predictions.skipped),
        },
        **summarize(predictions, thresholds),
        "skipped": [
            {"path": entry.row.path, "generator": entry.row.generator, "reason": entry.reason}
            for entry in predictions.skipped
        ],
    }


def _shortcut(
    manifest: Manifest, config: BMRLConfig, split: str, thresholds: Sequence[float], statistics: Computed | None
) -> tuple[dict[str, Any] | None, str | None]:
    if statistics is None:
        return None, "not asked for"
    try:
        predictions = shortcut_baseline(
            manifest, config.generators, split=split, image_size=config.image_size, known=statistics
        )
    except DataError as error:
        return None, str(error)
    return summarize(predictions, thresholds), None


def _check_baseline(name: str, figures: Mapping[str, Any]) -> None:
    try:
        headline(figures)
    except DataError as error:
        raise DataError(f"baselines: of {name!r}: {error}") from error


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Keep the folder for this process; one that was made for nothing goes again."""
    is_new = not folder.exists()
    try:
        with claimed(folder):
            yield
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _write(folder: Path, metrics: Mapping[str, Any], report: str) -> None:
    """Write both files beside their places first, so that a full disk leaves both old ones."""
    text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with new_file(folder / METRICS) as first, new_file(folder / REPORT) as second:
        for path, content in ((first, text), (second, report)):
            path.write_text(content, encoding="utf-8", errors="backslashreplace")  # of names that are no Unicode
