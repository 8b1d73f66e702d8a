"""BMRL beside ResNet-18 on the same data, with the number of epochs of each chosen on training groups alone."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from lightning.pytorch.callbacks import Callback

from bmrl._checks import check_choice, check_integer
from bmrl._files import claimed, remove_leftovers, write_text
from bmrl.data.manifest import Manifest, Row
from bmrl.errors import ConfigError, DataError, DivergenceError, RangeError
from bmrl.evaluation.predictions import predict
from bmrl.evaluation.summary import headline, summarize
from bmrl.models import BMRL, BMRLConfig, build_model
from bmrl.training._trainer import check_single_process
from bmrl.training.baselines.resnet18 import ResNet18, ResNet18Task, resnet18_recipe
from bmrl.training.recipes import TrainingConfig
from bmrl.training.run import PRESETS, check_device, fit, load_split, without_missing_maps
from bmrl.training.task import AttributionTask, BMRLTask

if TYPE_CHECKING:
    import os

__all__ = ["compare", "format_comparison", "train_resnet18"]

_logger = logging.getLogger(__name__)
CONTENDERS = ("bmrl", "resnet18")
RESULTS = "comparison.json"
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
        ConfigError, RangeError, DataError, MissingFileError: as :func:`bmrl.training.train`; all before the first
            training.
        FolderInUseError: another process or thread writes into ``out``.
        DivergenceError: a training arrived at values that are not finite; ``comparison.json`` holds the contenders
            finished before.
        KeyboardInterrupt: as it was raised; ``comparison.json`` likewise.
    """
    check_single_process()
    check_device(device)
    check_choice("preset", preset, PRESETS)
    if isinstance(contenders, str) or not contenders:
        raise ConfigError(f"contenders: expected a sequence of names, got {contenders!r}")
    for name in contenders:
        check_choice("contenders", name, CONTENDERS)
    for argument, given in (("contenders", contenders), ("seeds", seeds)):
        if len(set(given)) < len(given):
            raise ConfigError(f"{argument}: expected each once, got {' '.join(map(str, given))}")
    check_integer("folds", folds, least=2)
    if not seeds:
        raise ConfigError("seeds: expected at least one, got none")
    manifest = Manifest.read(data)
    if not manifest.select(split="test", role="seen"):
        raise DataError(f"{manifest.root}: expected test images of seen generators, got none")
    splits = _folds(manifest, folds)
    recipes = {name: _recipes(name, preset, seeds, folds, max_epochs) for name in contenders}
    config = PRESETS[preset][0](generators=manifest.generators("seen"))
    if "resnet18" in contenders:
        ResNet18(config)  # is torchvision there?
    results: dict[str, Any] = {}
    with claimed(Path(out)):
        remove_leftovers(Path(out, RESULTS))
        config = without_missing_maps(config, load_split(manifest, config, "train"))
        for name in contenders:
            needs = config if name == "bmrl" else dataclasses.replace(config, parsing=None)
            with _named(name):
                results[name] = _contend(name, manifest, needs, splits, recipes[name], device=device)
            content = {"data": str(manifest.root), "preset": preset, "folds": folds, "contenders": results}
            write_text(Path(out, RESULTS), json.dumps(content, indent=2) + "\n")
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
        recipe: see :func:`~bmrl.training.baselines.resnet18.resnet18_recipe`.
        device: as Lightning's ``accelerator``.
        progress: as :func:`~bmrl.training.run.fit`.
    """
    config = dataclasses.replace(config, parsing=None)
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


class _Recipes(NamedTuple):
    """Of one contender: one a fold and one a seed, whose number of epochs is still to be chosen."""

    folds: list[TrainingConfig]
    seeds: list[TrainingConfig]


def _recipes(name: str, preset: str, seeds: Sequence[int], folds: int, max_epochs: int | None) -> _Recipes:
    recipe = PRESETS[preset][1]() if name == "bmrl" else resnet18_recipe()
    recipe = dataclasses.replace(recipe, epochs=recipe.epochs if max_epochs is None else max_epochs, keep="last")
    return _Recipes(*([dataclasses.replace(recipe, seed=seed) for seed in part] for part in (range(folds), seeds)))


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Say which contender it was that diverged."""
    try:
        yield
    except DivergenceError as error:
        raise DivergenceError(f"{name}: {error}") from error


def _contend(
    name: str, manifest: Manifest, config: BMRLConfig, splits: Sequence[Manifest], recipes: _Recipes, *, device: str
) -> dict[str, Any]:
    """Choose a contender's number of epochs, and train and test it with every seed."""
    make_task = _bmrl if name == "bmrl" else _resnet18
    curve = _cross_validate(splits, config, recipes.folds, make_task, device=device)
    epochs = 1 + max(range(len(curve)), key=curve.__getitem__)
    _logger.info("%s: %d epochs, chosen by %d folds (accuracy %.3f)", name, epochs, len(splits), max(curve))
    runs = []
    for recipe in recipes.seeds:
        runs.append(_run(manifest, config, dataclasses.replace(recipe, epochs=epochs), make_task, device=device))
        _logger.info("%s, seed %d: %s", name, recipe.seed, runs[-1])
    return {"epochs": epochs, "curve": curve, "runs": runs}


def _folds(manifest: Manifest, folds: int) -> list[Manifest]:
    """Return the training split once a fold, with the groups of that fold as the validation split.

    Raises:
        RangeError: a fold has no group, or all of a generator's.
    """
    splits = []
    for held_out in range(folds):
        rows = tuple(
            dataclasses.replace(row, split="val" if _fold(row, folds) == held_out else "train")
            for row in manifest.select(split="train", role="seen")
        )
        if len({row.split for row in rows}) < 2:
            raise RangeError(f"folds: expected a training group in each of {folds} folds, got none in one; take fewer")
        left = {row.generator for row in rows if row.split == "train"}
        for generator in manifest.generators("seen"):
            if generator.name not in left:
                raise RangeError(
                    f"folds: expected groups of every seen generator outside each of {folds} folds, got none of "
                    f"{generator.name} outside one; take more folds or groups"
                )
        splits.append(Manifest(manifest.root, rows))
    return splits


def _cross_validate(
    splits: Sequence[Manifest],
    config: BMRLConfig,
    recipes: Sequence[TrainingConfig],
    make_task: _MakeTask,
    *,
    device: str,
) -> list[float]:
    """Return the accuracy on held-out training groups after each epoch, averaged over the folds."""
    curves = []
    for fold, recipe in zip(splits, recipes, strict=True):
        curve = _Curve()
        fit(
            make_task(config, recipe),
            load_split(fold, config, "train"),
            load_split(fold, config, "val"),
            device=device,
            progress=False,
            callbacks=[curve],
        )
        curves.append(curve.accuracies)
        accuracies = [round(value, 3) for value in curve.accuracies]
        _logger.info("fold %d of %d: %s", len(curves), len(splits), accuracies)
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
    figures = headline(summarize(predict(cast("BMRL", task.model), manifest, split="test"), config.decision.thresholds))
    return {name: figures[name] for name in FIGURES}
