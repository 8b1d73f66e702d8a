"""Evaluation of a model on a manifest: ``metrics.json`` and ``report.html``."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmrl import __version__
from bmrl.data.manifest import Manifest
from bmrl.errors import DataError
from bmrl.evaluation._inference import resolve_model
from bmrl.evaluation.predictions import predict
from bmrl.evaluation.report import render_report
from bmrl.evaluation.shortcuts import shortcut_baseline
from bmrl.evaluation.summary import headline, summarise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from bmrl.models import BMRL, BMRLConfig

__all__ = ["FORMAT", "evaluate"]

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

    Returns:
        The content of ``metrics.json``: what :func:`~bmrl.evaluation.summary.summarise` returns, and

        * ``format`` (1), ``bmrl_version``, ``created`` (UTC, ISO 8601);
        * ``model``: ``name``, ``folder`` (None for a model that was passed), ``image_size``, ``generators`` (a list of
          ``name``, ``manipulation``, ``architecture`` in the order of the probabilities);
        * ``data``: ``root``, ``split``, ``num_images`` (read), ``num_skipped``; ``skipped``: a list of ``path``,
          ``generator``, ``reason``;
        * ``shortcut``: what ``summarise`` returns for the shortcut baseline, or None with ``shortcut_reason``;
        * ``baselines``: as given.

    Raises:
        DataError: there is nothing to evaluate, roles contradict the model's classes, or a baseline lacks figures.
        MissingFileError: there is no such model or manifest. MissingExtraError: the extra ``train`` is missing.
        RangeError: a threshold or the batch size is out of range, or the model returns NaN.
    """
    for name, baseline in (baselines or {}).items():
        _check_baseline(name, baseline)
    manifest = data if isinstance(data, Manifest) else Manifest.read(data)
    network = resolve_model(model, device)
    limits = tuple(network.config.thresholds if thresholds is None else thresholds)
    predictions = predict(network, manifest, split=split, batch_size=batch_size)
    figures, reason = _shortcut(manifest, network.config, split, limits) if shortcut else (None, "not asked for")
    folder = str(model) if isinstance(model, str | os.PathLike) else None
    metrics = {
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
        **summarise(predictions, limits),
        "skipped": [
            {"path": entry.row.path, "generator": entry.row.generator, "reason": entry.reason}
            for entry in predictions.skipped
        ],
        "shortcut": figures,
        "shortcut_reason": reason,
        "baselines": {name: dict(baseline) for name, baseline in (baselines or {}).items()},
    }
    text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    _write_together(Path(out), {"metrics.json": text, "report.html": render_report(metrics, predictions)})
    return metrics


def _shortcut(
    manifest: Manifest, config: BMRLConfig, split: str, thresholds: Sequence[float]
) -> tuple[dict[str, Any] | None, str | None]:
    try:
        predictions = shortcut_baseline(manifest, config.generators, split=split, image_size=config.image_size)
    except DataError as error:
        return None, str(error)
    return summarise(predictions, thresholds), None


def _check_baseline(name: str, figures: Mapping[str, Any]) -> None:
    try:
        headline(figures)
    except (KeyError, TypeError) as error:
        raise DataError(f"baselines: expected the result of evaluate for {name!r}, got one without {error}") from error


def _write_together(folder: Path, texts: Mapping[str, str]) -> None:
    """Write all files beside their places first and then move each there, so that no reader sees half a file."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as scratch:
        for name, text in texts.items():
            Path(scratch, name).write_text(text, encoding="utf-8", errors="backslashreplace")
        for name in texts:
            os.replace(Path(scratch, name), folder / name)
