"""A training run: a folder of faces in, a model folder out, resumable after a kill."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import shutil
import sys
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, TQDMProgressBar

from bmrl._checks import check_choice
from bmrl._fields import names_of, unknown_name
from bmrl._files import CLAIM, claimed, new_file, remove_leftovers, write_text
from bmrl.data.dataset import FaceDataset
from bmrl.data.manifest import Manifest
from bmrl.errors import BMRLError, ConfigError, DataError, DivergenceError, MissingFileError
from bmrl.models import BMRLConfig, build_model, presets, save_model
from bmrl.training import recipes
from bmrl.training._checkpoints import BEST_CHECKPOINT, LAST_CHECKPOINT, RunCheckpoints, kept_weights, resume_point
from bmrl.training._metrics import MetricsLogger
from bmrl.training._quiet import quiet_lightning
from bmrl.training._trainer import check_single_process, make_trainer, run_trainer
from bmrl.training.loading import evaluation_loader, training_loader
from bmrl.training.recipes import TrainingConfig
from bmrl.training.task import AttributionTask, BMRLTask

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence

    import lightning as L

__all__ = ["PRESETS", "TrainingRun", "check_device", "fit", "load_split", "train", "without_missing_maps"]

_logger = logging.getLogger(__name__)

PRESETS: dict[str, tuple[Callable[..., BMRLConfig], Callable[..., TrainingConfig]]] = {
    "paper": (presets.paper, recipes.paper),
    "tiny": (presets.tiny, recipes.tiny),
}
"""Presets by name: a model and the recipe that trains it."""

_SHOWN = ("train_loss", "train_accuracy", "val_accuracy")
SETTINGS = "training.json"
DIVERGED = "diverged.txt"
OBJECTIVE = "objective.safetensors"


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """What :func:`train` leaves behind.

    Attributes:
        folder: the model folder, which also holds ``training.json``, ``checkpoints/`` and, for each start of the
            run, ``log/version_N/metrics.csv``.
        skipped: path and reason of each image that could not be read; empty for a run that was finished before.
        parsing: whether parsing maps guided the training.
    """

    folder: Path
    skipped: tuple[tuple[str, str], ...]
    parsing: bool


def train(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    preset: str = "tiny",
    resume: bool = False,
    model_changes: dict[str, Any] | None = None,
    recipe_changes: dict[str, Any] | None = None,
    device: str = "auto",
    progress: bool | None = None,
) -> TrainingRun:
    """Train BMRL on the seen images of a manifest and write the model into a folder.

    Args:
        data: a folder with ``manifest.csv``; ``train`` images are learned, ``val`` images watched.
        out: the run's folder, which becomes the model folder. Must be new or empty unless ``resume``, and nobody else
            may be writing into it.
        preset: ``"tiny"`` or ``"paper"``: the model's sizes and the recipe.
        resume: continue an interrupted run of ``out`` after its last finished epoch, with that run's settings.
            A finished run is left as it is.
        model_changes: fields of :class:`~bmrl.models.BMRLConfig` that differ from the preset.
        recipe_changes: fields of :class:`~bmrl.training.TrainingConfig` that differ from the preset.
        device: as Lightning's ``accelerator``: ``"auto"``, ``"cpu"``, ``"gpu"``.
        progress: show a progress bar; None shows one on a terminal, and logs a line an epoch elsewhere.

    Returns:
        :class:`TrainingRun`.

    Raises:
        DataError, MissingFileError: the manifest does not hold what it must, or there is nothing to resume.
        ConfigError: ``out`` is not empty, a setting does not fit, a checkpoint of the run is damaged or of another
            one, or this process is one of several (``WORLD_SIZE``).
        RangeError: an unknown preset or device.
        FolderInUseError: another process or thread trains in ``out``.
        DivergenceError: a loss, a gradient, a weight or an answer is not finite. The folder holds no model then, but
            the checkpoints of the epochs before, and ``diverged.txt``; while that file is there, the run is not
            resumed, since it would come to the same end.
        KeyboardInterrupt: as it was raised; the run can be resumed. Signals are the caller's: no handler is changed.
    """
    folder = Path(out)
    check_single_process()
    check_device(device)
    manifest = Manifest.read(data)
    if resume and _finished(folder):  # not claimed: it may lie where nobody can write
        config, _ = _read_settings(folder, manifest)
        _logger.info("%s: the run is finished", folder)
        return TrainingRun(folder, (), config.parsing is not None)
    with _run_folder(folder, resume=resume):
        config, recipe = (
            _read_settings(folder, manifest)
            if resume
            else _new_settings(folder, manifest, preset, model_changes or {}, recipe_changes or {})
        )
        if resume and _finished(folder):  # by another process, just now
            return TrainingRun(folder, (), config.parsing is not None)
        checkpoint = resume_point(folder, _new_task(config, recipe)) if resume else None
        if resume and checkpoint is None:
            _logger.info("%s: no epoch was finished; the run begins anew", folder)
        train_set = load_split(manifest, config, "train")
        val_set = load_split(manifest, config, "val") if manifest.select(split="val", role="seen") else None
        if val_set is None:
            _logger.warning("%s: no validation images; the last weights are kept", manifest.root)
        if not resume:
            config = without_missing_maps(config, train_set)
        elif config.parsing is not None and not train_set.num_parsing:
            raise DataError(f"{manifest.root}: expected the parsing maps that the run began with, got none")
        task = _new_task(config, recipe)
        if not resume:
            write_text(folder / SETTINGS, json.dumps(task.settings(), indent=2) + "\n")
        options: dict[str, Any] = {"folder": folder, "checkpoint": checkpoint, "device": device, "progress": progress}
        with _failures(folder, new=not resume):
            fit(task, train_set, val_set, **options)
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in task.objective.state_dict().items()}
        if state:
            with new_file(folder / OBJECTIVE) as temporary:
                temporary.write_bytes(safetensors.torch.save(state))
        save_model(task.model, folder)
    # Images may have been lost during the training too.
    skipped = (*train_set.skipped, *(val_set.skipped if val_set is not None else ()))
    return TrainingRun(folder, skipped, config.parsing is not None)


def _new_task(config: BMRLConfig, recipe: TrainingConfig) -> BMRLTask:
    torch.manual_seed(recipe.seed)
    return BMRLTask(build_model(config), recipe)


def _finished(folder: Path) -> bool:
    """Return whether a run has come to its end: ``config.json`` is written last."""
    return (folder / "config.json").is_file() and (folder / "model.safetensors").is_file()


@contextlib.contextmanager
def _run_folder(folder: Path, *, resume: bool) -> Iterator[None]:
    """Keep the run's folder, made if missing, for this process, and leave none behind if nothing came into it."""
    missing = not folder.exists()
    if resume and not folder.is_dir():
        raise MissingFileError(f"out: expected a run to resume with {folder / SETTINGS}, got no such file")
    if not folder.is_dir() and (not missing or folder.is_symlink()):
        raise ConfigError(f"out: expected a new or empty folder, got {folder}")
    try:
        with claimed(folder):
            for path in (SETTINGS, OBJECTIVE, LAST_CHECKPOINT, BEST_CHECKPOINT, "config.json", "model.safetensors"):
                remove_leftovers(folder / path)
            for log in folder.glob("log/version_*"):
                remove_leftovers(log / "metrics.csv")
            yield
    finally:
        if missing:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only where it is empty


@contextlib.contextmanager
def _failures(folder: Path, *, new: bool) -> Iterator[None]:
    """Make a training that diverged known to whoever resumes it; undo a new one that failed in its first epoch."""
    try:
        yield
    except DivergenceError as error:
        kept = (folder / LAST_CHECKPOINT).is_file()
        weights = f"those of the last finite epochs are in {LAST_CHECKPOINT.parent}" if kept else "none are kept"
        message = f"{error} (weights: {weights})"
        write_text(folder / DIVERGED, message + "\n")
        raise DivergenceError(message) from error
    except Exception:
        if new and not (folder / LAST_CHECKPOINT).is_file():  # nothing to resume, and it would block the next try
            (folder / SETTINGS).unlink(missing_ok=True)
            for made in ("log", LAST_CHECKPOINT.parent):
                shutil.rmtree(folder / made, ignore_errors=True)
        raise


def fit(
    task: AttributionTask,
    train_set: FaceDataset,
    val_set: FaceDataset | None,
    *,
    folder: Path | None = None,
    checkpoint: Path | None = None,
    device: str = "auto",
    progress: bool | None = None,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Train a task in place.

    Args:
        task: holds the model and its recipe; afterwards, the weights to keep.
        train_set: seen images to learn.
        val_set: seen images to watch, or None.
        folder: where ``log/`` and ``checkpoints/`` go; None writes nothing.
        checkpoint: where to go on from.
        device: as Lightning's ``accelerator``.
        progress: show a progress bar; None shows one on a terminal, and logs a line an epoch elsewhere.
        callbacks: more Lightning callbacks.
    """
    recipe = task.recipe
    watch: list[Callback] = list(callbacks)
    if recipe.ema_decay:
        watch.append(EMAWeightAveraging(decay=recipe.ema_decay))
    show_bar = sys.stdout.isatty() if progress is None else progress
    if show_bar:
        watch.append(_ProgressBar(refresh_rate=5))
    elif progress is None:
        watch.append(_EpochLines())
    if folder is not None:
        watch.append(RunCheckpoints(folder, task.settings()))
    with quiet_lightning():
        trainer = make_trainer(
            accelerator=device,
            max_epochs=recipe.epochs,
            precision=resolve_precision(recipe.precision, device),
            callbacks=watch,
            logger=MetricsLogger(folder) if folder is not None else False,
            enable_checkpointing=folder is not None,
            enable_progress_bar=show_bar,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
        )
        loaders = (
            training_loader(train_set, batch_size=recipe.batch_size, seed=recipe.seed),
            evaluation_loader(val_set, batch_size=recipe.batch_size) if val_set is not None else None,
        )
        run_trainer(trainer, task, *loaders, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    if folder is not None:
        # The averaged weights, if they are averaged, also where no epoch was left to train.
        task.load_state_dict(kept_weights(folder, task, with_validation=val_set is not None))
    task.to("cpu").eval()
    task.check_answers(next(iter(evaluation_loader(train_set, batch_size=recipe.batch_size)))["image"])


class _ProgressBar(TQDMProgressBar):
    """Lightning's bar without the number of the log's version."""

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}


class _EpochLines(Callback):
    """Logs a line an epoch."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._log(trainer)  # Lightning knows an epoch's figures only after all hooks of its end

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._log(trainer)

    @staticmethod
    def _log(trainer: L.Trainer) -> None:
        figures = {name: float(value) for name, value in trainer.callback_metrics.items() if name in _SHOWN}
        text = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in sorted(figures.items()))
        if figures:
            _logger.info("epoch %d of %s: %s", trainer.current_epoch, trainer.max_epochs, text)


def load_split(manifest: Manifest, config: BMRLConfig, split: str) -> FaceDataset:
    """Return the seen images of a split; with parsing maps if they are trained on.

    Raises:
        DataError: a class of the model has no training image, so that it would never be learned.
    """
    dataset = FaceDataset(
        manifest,
        split=split,
        image_size=config.image_size,
        generators=config.generators,
        parsing=config.parsing is not None and split == "train",
    )
    absent = [generator.name for label, generator in enumerate(config.generators) if label not in dataset.labels]
    if split == "train" and absent:
        raise DataError(f"{manifest.root}: expected training images of every seen generator, got none of {absent[0]}")
    return dataset


def without_missing_maps(config: BMRLConfig, train_set: FaceDataset) -> BMRLConfig:
    """Return the configuration with the parsing branch off if no training image has a map, and say so in the log."""
    if config.parsing is None or train_set.num_parsing:
        return config
    _logger.warning("no parsing maps found; the parsing branch is off")
    return dataclasses.replace(config, parsing=None)


def resolve_precision(precision: str, device: str) -> Any:
    """Resolve ``"auto"`` for the hardware at hand."""
    if precision != "auto":
        return precision
    if device != "cpu" and torch.cuda.is_available():
        has_bf16 = torch.cuda.get_device_capability() >= (8, 0)
    else:
        has_bf16 = bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())
    return "bf16-mixed" if has_bf16 else "32-true"


def check_device(device: str) -> None:
    """Check that Lightning's accelerator of this name is there.

    Raises:
        RangeError: a name that is not known.
        ConfigError: it is not there.
    """
    check_choice("device", device, ("auto", "cpu", "gpu"))
    if device == "gpu" and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        raise ConfigError("device: expected a GPU that PyTorch can use, got none; train with cpu or auto")


def _new_settings(
    folder: Path, manifest: Manifest, preset: str, model_changes: dict[str, Any], recipe_changes: dict[str, Any]
) -> tuple[BMRLConfig, TrainingConfig]:
    check_choice("preset", preset, PRESETS)
    if any(entry.name != CLAIM for entry in folder.iterdir()):
        hint = " (give --resume to continue the run in it)" if (folder / SETTINGS).is_file() else ""
        raise ConfigError(f"out: expected a new or empty folder, got {folder}{hint}")
    generators = manifest.generators("seen")
    if len(generators) < 2:
        raise DataError(f"{manifest.root}: expected at least two seen generators, got {len(generators)}")
    for argument, changes in (("model_changes", model_changes), ("recipe_changes", recipe_changes)):
        if not isinstance(changes, dict):
            raise ConfigError(f"{argument}: expected fields by name, got {type(changes).__name__}")
    if "generators" in model_changes:
        raise ConfigError(
            "generators: expected no such change (the manifest's seen generators are the classes), got one"
        )
    known = names_of(BMRLConfig, TrainingConfig)
    for name in chain(model_changes, recipe_changes):
        if not any(name in fields for fields in known.values()):
            raise unknown_name(name, known)
    for changes, owner, argument in (
        (model_changes, BMRLConfig, "recipe_changes"),
        (recipe_changes, TrainingConfig, "model_changes"),
    ):
        for name in changes:
            if name not in known[owner.__name__]:
                raise ConfigError(f"{name}: expected a field of {owner.__name__}, got one that belongs in {argument}")
    model_preset, recipe_preset = PRESETS[preset]
    config = model_preset(generators=generators, **model_changes)
    recipe = recipe_preset(**recipe_changes)
    if recipe.shift >= config.image_size:
        raise ConfigError(f"shift: expected less than image_size {config.image_size}, got {recipe.shift}")
    return config, recipe


def _read_settings(folder: Path, manifest: Manifest) -> tuple[BMRLConfig, TrainingConfig]:
    path = folder / SETTINGS
    if not path.is_file():
        raise MissingFileError(f"out: expected a run to resume with {path}, got no such file")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        config, recipe = BMRLConfig.from_dict(settings["model"]), TrainingConfig.from_dict(settings["recipe"])
    except BMRLError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: expected the settings of a training run, got {error!r}") from error
    diverged = folder / DIVERGED
    if diverged.is_file():
        raise DivergenceError(f"{diverged}: {diverged.read_text(encoding='utf-8', errors='replace').strip()}")
    names = [generator.name for generator in manifest.generators("seen")]
    expected = [generator.name for generator in config.generators]
    if names != expected:
        raise DataError(f"{manifest.root}: expected the run's generators {', '.join(expected)}, got {', '.join(names)}")
    return config, recipe
