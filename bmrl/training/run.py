"""A training run: a folder of faces in, a model folder out, resumable after a kill."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import sys
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from safetensors.torch import save_file

from bmrl._checks import check_choice
from bmrl._fields import names_of, unknown_name
from bmrl.data.dataset import FaceDataset
from bmrl.data.manifest import Manifest
from bmrl.errors import ConfigError, DataError, MissingFileError
from bmrl.models import BMRLConfig, build_model, presets, save_model
from bmrl.training import recipes
from bmrl.training._quiet import quiet_lightning
from bmrl.training.loading import evaluation_loader, training_loader
from bmrl.training.recipes import TrainingConfig
from bmrl.training.task import AttributionTask, BMRLTask

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

__all__ = ["PRESETS", "TrainingRun", "check_device", "fit", "load_split", "train", "without_missing_maps"]

_logger = logging.getLogger(__name__)

PRESETS: dict[str, tuple[Callable[..., BMRLConfig], Callable[..., TrainingConfig]]] = {
    "paper": (presets.paper, recipes.paper),
    "tiny": (presets.tiny, recipes.tiny),
}
"""Presets by name: a model and the recipe that trains it."""

_SHOWN = ("train_loss", "train_accuracy", "val_accuracy")
SETTINGS = "training.json"
LAST_CHECKPOINT = Path("checkpoints", "last.ckpt")
BEST_CHECKPOINT = Path("checkpoints", "best.ckpt")


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
        data: a folder with ``manifest.csv``; ``train`` images are learnt, ``val`` images watched.
        out: the run's folder, which becomes the model folder. Must be new or empty unless ``resume``.
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
        ConfigError: ``out`` is not empty, a setting does not fit, or the checkpoint of the run is damaged.
        RangeError: an unknown preset.
    """
    folder = Path(out)
    manifest = Manifest.read(data)
    config, recipe = (
        _read_settings(folder, manifest)
        if resume
        else _new_settings(folder, manifest, preset, model_changes or {}, recipe_changes or {})
    )
    if resume and (folder / "config.json").is_file():  # written last
        _logger.info("%s: the run is finished", folder)
        return TrainingRun(folder, (), config.parsing)
    check_device(device)
    train_set = load_split(manifest, config, "train")
    val_set = load_split(manifest, config, "val") if manifest.select(split="val", role="seen") else None
    if val_set is None:
        _logger.warning("%s: no validation images; the last weights are kept", manifest.root)
    config = without_missing_maps(config, train_set)
    skipped = (*train_set.skipped, *(val_set.skipped if val_set is not None else ()))
    torch.manual_seed(recipe.seed)
    task = BMRLTask(build_model(config), recipe)
    if not resume:
        folder.mkdir(parents=True, exist_ok=True)
        settings = {"model": config.to_dict(), "recipe": recipe.to_dict()}
        (folder / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    fit(
        task,
        train_set,
        val_set,
        folder=folder,
        checkpoint=_checked(folder / LAST_CHECKPOINT) if resume else None,
        device=device,
        progress=progress,
    )
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in task.objective.state_dict().items()}
    if state:
        save_file(state, folder / "objective.safetensors")
        shutil.copymode(folder / SETTINGS, folder / "objective.safetensors")
    save_model(task.model, folder)
    return TrainingRun(folder, skipped, config.parsing)


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
        watch += _checkpoints(folder, with_validation=val_set is not None)
    with quiet_lightning():
        trainer = L.Trainer(
            accelerator=device,
            devices=1,
            max_epochs=recipe.epochs,
            precision=resolve_precision(recipe.precision, device),
            callbacks=watch,
            logger=CSVLogger(folder, name="log", flush_logs_every_n_steps=1) if folder is not None else False,
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
        trainer.fit(task, *loaders, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    if folder is not None:
        best = folder / BEST_CHECKPOINT
        kept = best if recipe.keep == "best" and best.is_file() else folder / LAST_CHECKPOINT
        # The averaged weights, if they are averaged, also where no epoch was left to train.
        task.load_state_dict(torch.load(kept, weights_only=True)["state_dict"])
    task.to("cpu").eval()


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


def _checkpoints(folder: Path, *, with_validation: bool) -> list[Callback]:
    """Return the callbacks that keep the last epoch, and the best one if there is validation."""
    place: dict[str, Any] = {
        "dirpath": folder / LAST_CHECKPOINT.parent,
        "enable_version_counter": False,
        "save_on_train_epoch_end": True,  # after validation: a run resumes at the start of an epoch
    }
    # The best one first: the last checkpoint holds its score, which a resumed run compares with.
    best = ModelCheckpoint(filename=BEST_CHECKPOINT.stem, monitor="val_loss", mode="min", **place)
    last = ModelCheckpoint(filename=LAST_CHECKPOINT.stem, **place)
    return [best, last] if with_validation else [last]


def load_split(manifest: Manifest, config: BMRLConfig, split: str) -> FaceDataset:
    """Return the seen images of a split; with parsing maps if they are trained on.

    Raises:
        DataError: a class of the model has no training image, so that it would never be learnt.
    """
    dataset = FaceDataset(
        manifest,
        split=split,
        image_size=config.image_size,
        generators=config.generators,
        parsing=config.parsing and split == "train",
    )
    absent = [generator.name for label, generator in enumerate(config.generators) if label not in dataset.labels]
    if split == "train" and absent:
        raise DataError(f"{manifest.root}: expected training images of every seen generator, got none of {absent[0]}")
    return dataset


def without_missing_maps(config: BMRLConfig, train_set: FaceDataset) -> BMRLConfig:
    """Return the configuration with the parsing branch off if no training image has a map, and say so in the log."""
    if not config.parsing or train_set.num_parsing:
        return config
    _logger.warning("no parsing maps found; the parsing branch is off")
    return dataclasses.replace(config, parsing=False)


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
        ConfigError: it is not.
    """
    if device == "gpu" and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        raise ConfigError("device: expected a GPU that PyTorch can use, got none; train with cpu or auto")


def _new_settings(
    folder: Path, manifest: Manifest, preset: str, model_changes: dict[str, Any], recipe_changes: dict[str, Any]
) -> tuple[BMRLConfig, TrainingConfig]:
    check_choice("preset", preset, PRESETS)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
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


def _checked(checkpoint: Path) -> Path | None:
    """Return a checkpoint that can be read; None if the run had not come to its first one."""
    if not checkpoint.is_file():
        return None
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever PyTorch's reader meets in damaged bytes
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(f"{checkpoint}: expected the checkpoint of a training run, got {reason}") from error
    return checkpoint


def _read_settings(folder: Path, manifest: Manifest) -> tuple[BMRLConfig, TrainingConfig]:
    path = folder / SETTINGS
    if not path.is_file():
        raise MissingFileError(f"out: expected a run to resume with {path}, got no such file")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        config, recipe = BMRLConfig.from_dict(settings["model"]), TrainingConfig.from_dict(settings["recipe"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: expected the settings of a training run, got {error!r}") from error
    names = [generator.name for generator in manifest.generators("seen")]
    expected = [generator.name for generator in config.generators]
    if names != expected:
        raise DataError(f"{manifest.root}: expected the run's generators {', '.join(expected)}, got {', '.join(names)}")
    return config, recipe
