"""BMRL beside ResNet-18 on the same data, with the number of epochs of each chosen on training groups alone."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch.callbacks import Callback

from bmrl._checks import check_choice
from bmrl.data.manifest import Manifest, Row
from bmrl.errors import ConfigError, RangeError
from bmrl.evaluation.predictions import predict
from bmrl.evaluation.summary import headline, summarise
from bmrl.models import BMRL, BMRLConfig, build_model
from bmrl.training.baseline import ResNet18, ResNet18Task, resnet18_recipe
from bmrl.training.recipes import TrainingConfig
from bmrl.training.run import PRESETS, check_device, fit, load_split, without_missing_maps
from bmrl.training.task import AttributionTask, BMRLTask

__all__ = ["compare", "format_comparison", "train_resnet18"]

_logger = logging.getLogger(__name__)
FIGURES = {
    "accuracy": "seen accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC seen/unseen",
    "oscr": "OSCR",
}


def compare(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    preset: str = "tiny",
    seeds: Sequence[int] = (0, 1, 2),
    folds: int = 3,
    max_epochs: int | None = None,
    contenders: Sequence[str] = ("bmrl", "resnet18"),
    device: str = "auto",
) -> dict[str, Any]:
    """Train BMRL and ResNet-18 with several seeds and compare them on the test split.

    For each contender the number of epochs is the one with the highest accuracy, averaged over ``folds``
    cross-validation folds of the *training* split; a group never crosses folds, and no test image is looked at.
    The contender is then trained on the whole training split for that many epochs, once a seed, and tested.

    Args:
        data: a folder with ``manifest.csv``.
        out: a folder, made if missing, for ``comparison.json``, replaced after each finished contender.
        preset: BMRL's preset.
        seeds: one run each.
        folds: cross-validation folds, at least 2.
        max_epochs: longest training tried; None means each recipe's own number of epochs.
        contenders: ``"bmrl"`` and ``"resnet18"``, or one of them.
        device: as Lightning's ``accelerator``.

    Returns:
        By contender: ``epochs`` (chosen), ``curve`` (mean fold accuracy after each epoch) and ``runs``, a list of
        one dict of figures a seed.

    Raises:
        ConfigError, RangeError, DataError, MissingFileError: as :func:`bmrl.training.train`.
    """
    check_choice("preset", preset, PRESETS)
    for name in contenders:
        check_choice("contenders", name, ("bmrl", "resnet18"))
    if folds < 2:
        raise RangeError(f"folds: expected >= 2, got {folds}")
    if not seeds:
        raise ConfigError("seeds: expected at least one, got none")
    check_device(device)
    manifest = Manifest.read(data)
    make_config, make_recipe = PRESETS[preset]
    config = make_config(generators=manifest.generators("seen"))
    results: dict[str, Any] = {}
    config = without_missing_maps(config, load_split(manifest, config, "train"))
    for name in contenders:
        recipe = make_recipe() if name == "bmrl" else resnet18_recipe()
        recipe = dataclasses.replace(recipe, epochs=recipe.epochs if max_epochs is None else max_epochs, keep="last")
        make_task = _bmrl if name == "bmrl" else _resnet18
        needs = config if name == "bmrl" else dataclasses.replace(config, parsing=False)
        curve = _cross_validate(manifest, needs, recipe, make_task, folds=folds, device=device)
        epochs = 1 + max(range(len(curve)), key=curve.__getitem__)
        _logger.info("%s: %d epochs, chosen by %d folds (accuracy %.3f)", name, epochs, folds, max(curve))
        runs = []
        for seed in seeds:
            chosen = dataclasses.replace(recipe, epochs=epochs, seed=seed)
            runs.append(_run(manifest, needs, chosen, make_task, device=device))
            _logger.info("%s, seed %d: %s", name, seed, runs[-1])
        results[name] = {"epochs": epochs, "curve": curve, "runs": runs}
        _write(Path(out), {"data": str(manifest.root), "preset": preset, "folds": folds, "contenders": results})
    return results


def train_resnet18(
    manifest: Manifest,
    config: BMRLConfig,
    recipe: TrainingConfig,
    *,
    device: str = "auto",
    progress: bool | None = None,
) -> ResNet18:
    """Return ResNet-18 trained on the training split, in evaluation mode on the CPU.

    Args:
        manifest: the data.
        config: of the model that it is compared with; its classes and image size count.
        recipe: see :func:`~bmrl.training.baseline.resnet18_recipe`.
        device: as Lightning's ``accelerator``.
        progress: as :func:`~bmrl.training.run.fit`.
    """
    config = dataclasses.replace(config, parsing=False)
    task = _resnet18(config, recipe)
    fit(task, load_split(manifest, config, "train"), None, device=device, progress=progress)
    assert isinstance(task.model, ResNet18)
    return task.model


def format_comparison(results: dict[str, Any]) -> str:
    """Return a plain text table: a line a contender, mean and range over the seeds."""
    lines = [["", "epochs", *FIGURES.values()]]
    for name, entry in results.items():
        cells = []
        for figure in FIGURES:
            values = [run[figure] for run in entry["runs"] if run[figure] is not None]
            cells.append(f"{statistics.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})" if values else "-")
        lines.append([name, str(entry["epochs"]), *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


_MakeTask = Callable[[BMRLConfig, TrainingConfig], AttributionTask]


def _bmrl(config: BMRLConfig, recipe: TrainingConfig) -> AttributionTask:
    torch.manual_seed(recipe.seed)
    return BMRLTask(build_model(config), recipe)


def _resnet18(config: BMRLConfig, recipe: TrainingConfig) -> AttributionTask:
    torch.manual_seed(recipe.seed)
    return ResNet18Task(ResNet18(config), recipe)


def _cross_validate(
    manifest: Manifest, config: BMRLConfig, recipe: TrainingConfig, make_task: _MakeTask, *, folds: int, device: str
) -> list[float]:
    """Return the accuracy on held-out training groups after each epoch, averaged over the folds."""
    curves = []
    for held_out in range(folds):
        rows = tuple(
            dataclasses.replace(row, split="val" if _fold(row, folds) == held_out else "train")
            for row in manifest.select(split="train", role="seen")
        )
        if len({row.split for row in rows}) < 2:
            raise RangeError(f"folds: expected a training group in each of {folds} folds, got none in one; take fewer")
        fold = Manifest(manifest.root, rows)
        curve = _Curve()
        task = make_task(config, dataclasses.replace(recipe, seed=held_out))
        fit(
            task,
            load_split(fold, config, "train"),
            load_split(fold, config, "val"),
            device=device,
            progress=False,
            callbacks=[curve],
        )
        curves.append(curve.accuracies)
        _logger.info("fold %d of %d: %s", held_out + 1, folds, [round(value, 3) for value in curve.accuracies])
    return [statistics.mean(values) for values in zip(*curves, strict=True)]


def _fold(row: Row, folds: int) -> int:
    """Return a fold that depends on the group alone."""
    return int.from_bytes(hashlib.sha256(row.group.encode()).digest()[:8], "big") % folds


class _Curve(Callback):
    """Remembers the validation accuracy of each epoch."""

    def __init__(self) -> None:
        self.accuracies: list[float] = []

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.accuracies.append(float(trainer.callback_metrics["val_accuracy"]))


def _run(
    manifest: Manifest, config: BMRLConfig, recipe: TrainingConfig, make_task: _MakeTask, *, device: str
) -> dict[str, float | None]:
    """Train on the whole training split and return the figures of the test split."""
    task = make_task(config, recipe)
    fit(task, load_split(manifest, config, "train"), None, device=device, progress=False)
    figures = headline(summarise(predict(cast("BMRL", task.model), manifest, split="test"), config.thresholds))
    return {name: figures[name] for name in FIGURES}


def _write(folder: Path, content: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as scratch:
        file = Path(scratch, "comparison.json")
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(file, folder / file.name)
