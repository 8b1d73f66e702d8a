"""BMRL and ResNet-18 on the same data, with the number of epochs of each chosen by training groups only."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import statistics
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch

from bmrl._checks import check_integer
from bmrl._files import claimed, remove_leftovers, write_text
from bmrl._results import Result, plain
from bmrl._text import columns
from bmrl._values import check_choice
from bmrl.errors import ConfigError, DataError, DivergenceError
from bmrl.evaluation._cross_validation import MakeTask, cross_validate, split_into_folds
from bmrl.evaluation._rows import as_manifest
from bmrl.evaluation.predictions import predict
from bmrl.evaluation.summary import summarize
from bmrl.evaluation.table import metric_lines
from bmrl.models import BMRL, BMRLConfig, build_model
from bmrl.training.baselines.resnet18 import ResNet18, ResNet18Task, resnet18_recipe
from bmrl.training.fitting import fit
from bmrl.training.hardware import check_single_process, training_device
from bmrl.training.loading import load_split, without_missing_maps
from bmrl.training.settings import PRESETS
from bmrl.training.task import AttributionTask, BMRLTask

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bmrl.data.manifest import Manifest
    from bmrl.training.recipes import TrainingConfig

__all__ = ["Comparison", "MethodResult", "compare", "format_comparison", "train_resnet18"]

_logger = logging.getLogger(__name__)
RESULTS = "comparison.json"


class Method(NamedTuple):
    """How a method is trained.

    Attributes:
        make_recipe: from the name of BMRL's preset.
        make_task: what is trained, with fresh weights.
        uses_parsing: whether it learns from the parsing maps; else they are not read.
    """

    make_recipe: Callable[[str], TrainingConfig]
    make_task: MakeTask
    uses_parsing: bool


METHODS: Mapping[str, Method] = {
    "bmrl": Method(
        lambda preset: PRESETS[preset][1](), lambda config, recipe: BMRLTask(build_model(config), recipe), True
    ),
    "resnet18": Method(
        lambda preset: resnet18_recipe(), lambda config, recipe: ResNet18Task(ResNet18(config), recipe), False
    ),
}
"""What :func:`compare` can train: to add a baseline, write it into :mod:`bmrl.training.baselines` and an entry here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodResult(Result):
    """What one method achieved.

    Attributes:
        epochs: the number that was chosen.
        curve: the accuracy on held-out training groups after each epoch, averaged over the folds.
        runs: one per seed: each metric of the test split by name, as ``Summary.metrics``.
    """

    epochs: int
    curve: list[float]
    runs: list[dict[str, float | None]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison(Result):
    """What :func:`compare` found.

    Attributes:
        folder: where ``comparison.json`` is.
        data: the data folder.
        preset: BMRL's preset.
        folds: the number of cross-validation folds.
        seeds: one run each.
        methods: what each method achieved, by name, in the order of training.
    """

    folder: Path
    data: Path
    preset: str
    folds: int
    seeds: tuple[int, ...]
    methods: Mapping[str, MethodResult]

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``comparison.json``: the attributes by name, all but ``folder``."""
        return {name: plain(getattr(self, name)) for name in ("data", "preset", "folds", "seeds", "methods")}


def compare(
    data: Manifest | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    preset: str = "tiny",
    seeds: Sequence[int] = (0, 1, 2),
    folds: int = 3,
    max_epochs: int | None = None,
    methods: Sequence[str] = ("bmrl", "resnet18"),
    device: str | torch.device = "auto",
) -> Comparison:
    """Train BMRL and ResNet-18 with several seeds and compare them on the test split.

    For each method the number of epochs is the one with the highest accuracy, averaged over ``folds`` cross-validation
    folds of the *training* split; a group never crosses folds, and no test image is looked at. The method is then
    trained on the whole training split for that many epochs, once per seed, and tested.

    Args:
        data: a folder with ``manifest.csv``, or its manifest.
        out: a folder, made if missing, for ``comparison.json``, which is replaced after each finished method.
        preset: BMRL's preset.
        seeds: one run each.
        folds: cross-validation folds, >= 2.
        max_epochs: longest training tried; None: each recipe's own number of epochs.
        methods: names of :data:`METHODS`: ``"bmrl"`` and ``"resnet18"``, or one of them.
        device: as of :func:`bmrl.training.train`.

    Returns:
        What each method achieved; ``to_dict()`` is the content of ``comparison.json``.

    Raises:
        ConfigError, RangeError, DataError, MissingFileError: as :func:`bmrl.training.train`; all before the first
            training.
        FolderInUseError: another process or thread writes into ``out``.
        DivergenceError: a training arrived at values that are not finite; ``comparison.json`` holds the methods
            finished before.
        KeyboardInterrupt: as it was raised; ``comparison.json`` likewise.
    """
    check_single_process()
    training_device(device)
    check_choice("preset", preset, PRESETS)
    if isinstance(methods, str) or not methods:
        raise ConfigError(f"methods: expected a sequence of names, got {methods!r}")
    for name in methods:
        check_choice("methods", name, METHODS)
    for argument, given in (("methods", methods), ("seeds", seeds)):
        if len(set(given)) < len(given):
            raise ConfigError(f"{argument}: expected each once, got {' '.join(map(str, given))}")
    check_integer("folds", folds, least=2)
    if not seeds:
        raise ConfigError("seeds: expected at least one, got none")
    manifest = as_manifest(data)
    if not manifest.select(split="test", role="seen"):
        raise DataError(f"{manifest.root}: expected test images of seen generators, got none")
    splits = split_into_folds(manifest, folds)
    recipes = {name: _recipes(name, preset, seeds, folds, max_epochs) for name in methods}
    config = PRESETS[preset][0](generators=manifest.generators("seen"))
    for name in methods:
        _make_task(name, config, recipes[name].seeds[0])  # can it be built, with the packages that are installed?
    result = Comparison(
        folder=Path(out), data=manifest.root, preset=preset, folds=folds, seeds=tuple(seeds), methods={}
    )
    with claimed(result.folder):
        remove_leftovers(result.folder / RESULTS)
        config = without_missing_maps(config, load_split(manifest, config, "train"))
        for name in methods:
            with _named(name):
                found = _run_method(name, manifest, config, splits, recipes[name], device=device)
            result = dataclasses.replace(result, methods={**result.methods, name: found})
            write_text(result.folder / RESULTS, json.dumps(result.to_dict(), indent=2) + "\n")
    return result


def train_resnet18(
    data: Manifest | str | os.PathLike[str],
    config: BMRLConfig,
    recipe: TrainingConfig,
    *,
    device: str | torch.device = "auto",
    progress: bool | None = None,
) -> ResNet18:
    """Return ResNet-18 trained on the training split, in evaluation mode on the CPU.

    Args:
        data: a folder with ``manifest.csv``, or its manifest.
        config: of the model that it is compared with; its classes and image size count.
        recipe: see :func:`~bmrl.training.baselines.resnet18.resnet18_recipe`.
        device: as of :func:`bmrl.training.train`.
        progress: as :func:`~bmrl.training.fitting.fit`.
    """
    config = _config_for("resnet18", config)
    task = _make_task("resnet18", config, recipe)
    fit(task, load_split(as_manifest(data), config, "train"), None, device=device, progress=progress)
    assert isinstance(task.model, ResNet18)
    return task.model


def format_comparison(comparison: Comparison) -> str:
    """Return a plain text table: one line per metric and one column per method, with mean and range over the seeds.

    Args:
        comparison: what :func:`compare` returned.
    """
    methods = comparison.methods.values()
    lines = [["", *comparison.methods], ["Epochs", *(str(method.epochs) for method in methods)]]
    for name, title, entry in metric_lines(name for method in methods for run in method.runs for name in run):
        lines.append([title, *(_cell([run.get(name) for run in method.runs], entry.text) for method in methods)])
    return columns(lines)


def _cell(values: Sequence[float | None], text: Callable[[float | None], str]) -> str:
    known = [value for value in values if value is not None]
    return f"{text(statistics.mean(known))} ({text(min(known))}-{text(max(known))})" if known else text(None)


def _config_for(name: str, config: BMRLConfig) -> BMRLConfig:
    """Return the configuration as a method needs it: without the parsing branch if it uses no maps.

    All methods decide by the paper's rule: no score is fitted.
    """
    config = config.with_changes({"decision.score": None})
    return config if METHODS[name].uses_parsing else dataclasses.replace(config, parsing=None)


def _make_task(name: str, config: BMRLConfig, recipe: TrainingConfig) -> AttributionTask:
    torch.manual_seed(recipe.seed)
    return METHODS[name].make_task(config, recipe)


class _Recipes(NamedTuple):
    """Of one method: one per fold and one per seed, whose number of epochs is still to be chosen."""

    folds: list[TrainingConfig]
    seeds: list[TrainingConfig]


def _recipes(name: str, preset: str, seeds: Sequence[int], folds: int, max_epochs: int | None) -> _Recipes:
    recipe = METHODS[name].make_recipe(preset)
    recipe = dataclasses.replace(recipe, epochs=recipe.epochs if max_epochs is None else max_epochs, keep="last")
    return _Recipes(*([dataclasses.replace(recipe, seed=seed) for seed in part] for part in (range(folds), seeds)))


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Say which method it was that diverged."""
    try:
        yield
    except DivergenceError as error:
        raise DivergenceError(f"{name}: {error}") from error


def _run_method(
    name: str,
    manifest: Manifest,
    config: BMRLConfig,
    splits: Sequence[Manifest],
    recipes: _Recipes,
    *,
    device: str | torch.device,
) -> MethodResult:
    """Choose a method's number of epochs, and train and test it with every seed."""
    config, make_task = _config_for(name, config), partial(_make_task, name)
    curve = cross_validate(splits, config, recipes.folds, make_task, device=device)
    epochs = 1 + max(range(len(curve)), key=curve.__getitem__)
    _logger.info("%s: %d epochs, chosen by %d folds (accuracy %.3f)", name, epochs, len(splits), max(curve))
    runs = []
    for recipe in recipes.seeds:
        runs.append(_run(manifest, config, dataclasses.replace(recipe, epochs=epochs), make_task, device=device))
        _logger.info("%s, seed %d: %s", name, recipe.seed, runs[-1])
    return MethodResult(epochs=epochs, curve=curve, runs=runs)


def _run(
    manifest: Manifest, config: BMRLConfig, recipe: TrainingConfig, make_task: MakeTask, *, device: str | torch.device
) -> dict[str, float | None]:
    """Train on the whole training split and return the metrics of the test split."""
    task = make_task(config, recipe)
    fit(task, load_split(manifest, config, "train"), None, device=device, progress=False)
    return summarize(predict(cast("BMRL", task.model), manifest), config.decision.thresholds).metrics
