"""A training run: a folder of faces in, a model folder out, resumable after a kill."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch

from bmrl._files import new_file, write_text
from bmrl._results import Result
from bmrl.data.manifest import Manifest
from bmrl.errors import DataError
from bmrl.inference.calibrating import calibrate
from bmrl.inference.calibration import check_calibratable
from bmrl.models import build_model, save_model
from bmrl.training._checkpoints import resume_point
from bmrl.training._metrics import read_metrics
from bmrl.training._run_folder import OBJECTIVE, SETTINGS, failures, finished, run_folder
from bmrl.training.fitting import fit
from bmrl.training.hardware import check_single_process, resolve_workers, training_device
from bmrl.training.loading import load_split, without_missing_maps
from bmrl.training.settings import given_model, new_settings, read_settings
from bmrl.training.task import BMRLTask

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from bmrl.models import BMRL, BMRLConfig
    from bmrl.models.parts import DecisionConfig
    from bmrl.training.recipes import TrainingConfig

__all__ = ["TrainingRun", "train"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRun(Result):
    """The result of :func:`train`.

    Attributes:
        folder: the model folder, which also holds ``training.json``, ``checkpoints/`` and, for each start of the
            run, ``log/version_N/metrics.csv``.
        skipped: path and reason of each image that could not be read; empty for a run that was already finished.
        parsing: whether parsing maps guided the training.
        epochs: how many were trained.
        best_epoch: the one with the lowest validation loss, counted from 1; None without validation images. Its
            weights are the model's if the recipe's ``keep`` is ``"best"``, and else those of the last epoch are.
        metrics: of the last epoch by name, as in ``metrics.csv``: the loss ``train_loss`` and its parts,
            ``train_accuracy``, and with validation images ``val_loss`` (cross-entropy) and ``val_accuracy``;
            accuracies in 0 .. 1. Empty where the log was removed.

    Example:
        >>> run = TrainingRun(folder=Path("model"), skipped=(), parsing=True, epochs=2, best_epoch=1, metrics={})
        >>> run.to_dict()["folder"]
        'model'
    """

    folder: Path
    skipped: tuple[tuple[str, str], ...]
    parsing: bool
    epochs: int
    best_epoch: int | None
    metrics: Mapping[str, float]


def train(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    preset: str | None = None,
    model: BMRL | str | os.PathLike[str] | None = None,
    resume: bool = False,
    model_changes: dict[str, Any] | None = None,
    recipe_changes: dict[str, Any] | None = None,
    device: str | torch.device = "auto",
    workers: int | None = None,
    progress: bool | None = None,
) -> TrainingRun:
    """Train BMRL on the seen images of a manifest and write the model into a folder.

    Args:
        data: a folder with ``manifest.csv``; ``train`` images are learned, ``val`` images watched.
        out: the run's folder, which becomes the model folder. Must be new or empty unless ``resume``, and no other
            process may write into it.
        preset: ``"tiny"`` (the default), ``"paper"`` or ``"recommended"``: the model's sizes and the recipe.
        model: trained in place of a preset's model, from the weights that it has: what
            :func:`~bmrl.models.build_model` made, also of blocks of your own, for the data's seen generators in their
            order; or the folder of a model. All of it is put into training mode; afterwards it is in evaluation mode
            and on the CPU.
        resume: continue an interrupted run of ``out`` after its last finished epoch, with that run's settings.
            A finished run is left as it is. A run that began with ``model`` needs one of the same configuration again.
        model_changes: fields of :class:`~bmrl.models.BMRLConfig` that differ from the preset, as
            :meth:`~bmrl.models.BMRLConfig.with_changes` takes them; not with ``model``.
        recipe_changes: fields of :class:`~bmrl.training.TrainingConfig` that differ from the preset; with ``model``,
            from the defaults of that class.
        device: where to train: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``.
        workers: processes that read and change images ahead of the steps, >= 0; the result does not depend on it. None:
            half of the CPU cores less one, at most 8.
        progress: show a progress bar; None shows one on a terminal, and logs one line per epoch elsewhere.

    Returns:
        :class:`TrainingRun`.

    Raises:
        DataError, MissingFileError: the manifest does not hold what it must, or there is nothing to resume.
        ConfigError: ``out`` is not empty, a setting does not fit, ``preset`` or ``model_changes`` is given with
            ``model``, a checkpoint of the run is damaged or of another one, or this process is one of several
            (``WORLD_SIZE``).
        DTypeError, ModelFolderError: ``model`` is not a BMRL, or one that could not be saved.
        RangeError: an unknown preset.
        DeviceError: the device is not there, or can't be trained on.
        FolderInUseError: another process or thread trains in ``out``.
        DivergenceError: a loss, a gradient, a weight or an answer is not finite. The folder holds no model then, but
            the checkpoints of the epochs before, and ``diverged.txt``; while that file is there, the run is not
            resumed, since it would diverge again.
        KeyboardInterrupt: as it was raised; the run can be resumed. Signals are the caller's: no handler is changed.
    """
    folder = Path(out)
    check_single_process()
    place, workers = training_device(device), resolve_workers(workers)
    given = None if model is None else given_model(model, preset, model_changes)
    manifest = Manifest.read(data)
    if resume and finished(folder):  # not claimed: it may be read-only
        config, recipe = read_settings(folder, manifest, given)
        _logger.info("%s: the run is finished", folder)
        return _result(folder, config, recipe)
    with run_folder(folder, resume=resume):
        config, recipe = (
            read_settings(folder, manifest, given)
            if resume
            else new_settings(folder, manifest, preset or given or "tiny", model_changes or {}, recipe_changes or {})
        )
        if resume and finished(folder):  # by another process, just now
            return _result(folder, config, recipe)
        checkpoint = resume_point(folder, _new_task(config, recipe, given)) if resume else None
        if resume and checkpoint is None:
            _logger.info("%s: no epoch was finished; the run starts over", folder)
        train_set = load_split(manifest, config, "train")
        val_set = load_split(manifest, config, "val") if manifest.select(split="val", role="seen") else None
        _check_decision(config.decision, 0 if val_set is None else len(val_set))
        if val_set is None:
            _logger.warning("%s: no validation images; the last weights are kept", manifest.root)
        if not resume and given is None:
            config = without_missing_maps(config, train_set)
        elif config.parsing is not None and not train_set.num_parsing:
            which = "the parsing maps that the run began with" if resume else "parsing maps for the parsing encoder"
            raise DataError(f"{manifest.root}: expected {which}, got none")
        task = _new_task(config, recipe, given)
        if not resume:
            settings = task.settings() | {"model_given": given is not None}
            write_text(folder / SETTINGS, json.dumps(settings, indent=2) + "\n")
        options: dict[str, Any] = {"folder": folder, "checkpoint": checkpoint, "device": place, "progress": progress}
        options["workers"] = workers
        with failures(folder, new=not resume):
            fit(task, train_set, val_set, **options)
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in task.objective.state_dict().items()}
        if state:
            with new_file(folder / OBJECTIVE) as temporary:
                temporary.write_bytes(safetensors.torch.save(state))
        try:
            _fit_decision(task, manifest, place)
        finally:  # a training is not lost because its decision can't be fitted
            save_model(task.model, folder)
    # Images may have been lost during the training too.
    skipped = (*train_set.skipped, *(val_set.skipped if val_set is not None else ()))
    return _result(folder, config, recipe, skipped)


def _fit_decision(task: BMRLTask, manifest: Manifest, device: torch.device) -> None:
    """Fit the decision that the configuration asks for, if it does; the model stays on the CPU."""
    score = task.model.config.decision.score
    if score is None:
        return
    objective = task.objective
    dfacc = objective.dfacc if objective.dfacc_on == "embedding" else None
    centers = None if dfacc is None else dfacc.centers
    calibrate(task.model, manifest, score=score, centers=centers, device=device)
    task.model.to("cpu")


def _check_decision(asked: DecisionConfig, num_pictures: int) -> None:
    """Check that there are validation images enough for what is asked of the decision.

    Raises:
        ConfigError: there are not; the message says how many it takes.
    """
    if asked.score is not None:
        check_calibratable(num_pictures, asked)


def _result(
    folder: Path, config: BMRLConfig, recipe: TrainingConfig, skipped: tuple[tuple[str, str], ...] = ()
) -> TrainingRun:
    """Return the result of a finished run."""
    logged = read_metrics(folder)
    losses = {epoch: metrics["val_loss"] for epoch, metrics in sorted(logged.items()) if "val_loss" in metrics}
    return TrainingRun(
        folder=folder,
        skipped=skipped,
        parsing=config.parsing is not None,
        epochs=recipe.epochs,
        best_epoch=min(losses, key=losses.__getitem__, default=None),
        metrics=logged.get(recipe.epochs, {}),
    )


def _new_task(config: BMRLConfig, recipe: TrainingConfig, given: BMRL | None) -> BMRLTask:
    torch.manual_seed(recipe.seed)
    return BMRLTask(build_model(config) if given is None else given.train(), recipe)
