"""The checkpoints of a run: the last epoch and the best one, written whole or not at all, and checked before use."""

from __future__ import annotations

import io
import json
import math
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from bmrl._files import new_file
from bmrl.errors import ConfigError

if TYPE_CHECKING:
    import os

    import lightning as L

    from bmrl.training.task import AttributionTask

__all__ = ["BEST_CHECKPOINT", "LAST_CHECKPOINT", "AtomicCheckpointIO", "RunCheckpoints", "kept_weights", "resume_point"]

LAST_CHECKPOINT = Path("checkpoints", "last.ckpt")
BEST_CHECKPOINT = Path("checkpoints", "best.ckpt")
SETTINGS_KEY = "settings"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints next to their place and renames them; Lightning's class goes through ``TMPDIR``."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint whole or not at all."""
        buffer = io.BytesIO()  # PyTorch's writer would not say what is wrong with the disk
        torch.save(checkpoint, buffer)
        with new_file(Path(path)) as temporary:
            temporary.write_bytes(buffer.getbuffer())


class RunCheckpoints(Checkpoint):
    """Keeps the last epoch, and the one with the lowest validation loss if there is validation.

    Only names within the run's folder are remembered, so that the folder may move between two starts of the run.

    Args:
        folder: of the run.
        settings: what :meth:`AttributionTask.settings` returns.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self._folder = folder
        self._settings = settings
        self.best_loss = math.inf
        self.best_epoch = -1

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Make the folder."""
        (self._folder / LAST_CHECKPOINT).parent.mkdir(exist_ok=True)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write; after validation, so that a run resumes at the start of an epoch."""
        loss = float(trainer.callback_metrics.get("val_loss", math.inf))
        # The best one first: the last checkpoint says which epoch that is, which a resumed run compares with.
        if loss < self.best_loss:
            self.best_loss, self.best_epoch = loss, trainer.current_epoch
            trainer.save_checkpoint(self._folder / BEST_CHECKPOINT)
        trainer.save_checkpoint(self._folder / LAST_CHECKPOINT)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of this."""
        return {"best_loss": self.best_loss, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.best_loss, self.best_epoch = state_dict["best_loss"], state_dict["best_epoch"]

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the settings of the run, by which a checkpoint of another run is known."""
        checkpoint[SETTINGS_KEY] = json.dumps(self._settings)


def resume_point(folder: Path, task: AttributionTask) -> Path | None:
    """Return the checkpoint to go on from; None if the run had not come to its first one.

    Args:
        folder: of the run.
        task: as it is before training; it is not changed.

    Raises:
        ConfigError: the last checkpoint is damaged or not of this run; or the best one is, and it is to be kept.
    """
    last = folder / LAST_CHECKPOINT
    if not last.is_file():
        return None
    checkpoint = _read(last, task)
    best_epoch = checkpoint["callbacks"][RunCheckpoints.__qualname__]["best_epoch"]
    if task.recipe.keep == "best" and best_epoch >= 0:
        best = folder / BEST_CHECKPOINT
        lost = "; the best weights are lost: put the file back, or train into a new folder"
        if not best.is_file():
            raise ConfigError(f"{best}: expected the checkpoint of epoch {best_epoch + 1}, got no such file{lost}")
        found = _read(best, task)["epoch"]
        # A kill after the best one was written and before the last one was leaves a best one of the epoch after.
        if found not in (best_epoch, checkpoint["epoch"] + 1):
            raise ConfigError(
                f"{best}: expected the checkpoint of epoch {best_epoch + 1}, got that of epoch {found + 1}{lost}"
            )
    return last


def kept_weights(folder: Path, task: AttributionTask, *, with_validation: bool) -> Any:
    """Return the weights that the recipe keeps of a finished run.

    Raises:
        ConfigError: their checkpoint is damaged or not of this run.
    """
    keep_best = with_validation and task.recipe.keep == "best"
    return _read(folder / (BEST_CHECKPOINT if keep_best else LAST_CHECKPOINT), task)["state_dict"]


def _read(path: Path, task: AttributionTask) -> dict[str, Any]:
    """Return a checkpoint of this run on the CPU.

    Raises:
        ConfigError: it is damaged or not of this run.
    """
    expected = f"{path}: expected the checkpoint of a training run"
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # PyTorch's reader looks at no checksum
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # any that damaged bytes cause in the readers
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(f"{expected}, got {reason}") from error
    if damaged:
        raise ConfigError(f"{expected}, got a damaged file ({damaged})")
    try:
        difference = _difference(checkpoint, task)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"{expected}, got another file ({error!r})") from error
    if difference:
        raise ConfigError(f"{path}: expected a checkpoint of this run, got {difference}")
    return dict(checkpoint)


def _difference(checkpoint: Any, task: AttributionTask) -> str | None:
    """Return in what a checkpoint is not this run's; None if it is."""
    if not isinstance(checkpoint, dict):
        return f"a {type(checkpoint).__name__}"
    # First the keys, so that what is not a checkpoint is said to be none.
    state, stored = checkpoint["state_dict"], json.loads(checkpoint[SETTINGS_KEY])
    (optimizer_state,), _, _ = checkpoint["optimizer_states"], checkpoint["lr_schedulers"], checkpoint["loops"]
    int(checkpoint["epoch"]), int(checkpoint["global_step"])
    RunCheckpoints(Path(), {}).load_state_dict(checkpoint["callbacks"][RunCheckpoints.__qualname__])
    current = json.loads(json.dumps(task.settings()))
    for section in current:
        for name in sorted(current[section].keys() | stored[section].keys()):
            if current[section].get(name) != stored[section].get(name):
                return f"another {name}: {stored[section].get(name)!r}, not {current[section].get(name)!r}"
    shapes = {name: tuple(tensor.shape) for name, tensor in task.state_dict().items()}
    current_state: Any = checkpoint.get("current_model_state", state)  # where the saved weights are an average
    for weights in (state, current_state):
        if {name: tuple(tensor.shape) for name, tensor in weights.items()} != shapes:
            return "weights of other names or shapes"
    (optimizer,), _ = task.configure_optimizers()
    optimizer.load_state_dict(optimizer_state)
    for parameter, entries in optimizer.state.items():
        if any(entry.dim() and entry.shape != parameter.shape for entry in entries.values()):
            return "an optimizer of other shapes"
    return None
