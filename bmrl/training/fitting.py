"""The training of a task in place, on Lightning's loop."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, TQDMProgressBar

from bmrl.training._checkpoints import RunCheckpoints, kept_weights
from bmrl.training._metrics import MetricsLogger
from bmrl.training._quiet import quiet_lightning
from bmrl.training._trainer import make_trainer, run_trainer
from bmrl.training.hardware import lightning_device, resolve_precision, resolve_workers, training_device
from bmrl.training.loading import evaluation_loader, training_loader

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import lightning as L
    import torch

    from bmrl.data.dataset import FaceDataset
    from bmrl.training.task import AttributionTask

__all__ = ["fit"]

_logger = logging.getLogger(__name__)
_SHOWN = ("train_loss", "train_accuracy", "val_accuracy")


def fit(
    task: AttributionTask,
    train_set: FaceDataset,
    val_set: FaceDataset | None,
    *,
    folder: Path | None = None,
    checkpoint: Path | None = None,
    device: str | torch.device = "auto",
    progress: bool | None = None,
    workers: int | None = 0,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Train a task in place.

    Args:
        task: holds the model and its recipe; afterwards, the weights to keep.
        train_set: seen images to learn.
        val_set: seen images to watch, or None.
        folder: where ``log/`` and ``checkpoints/`` go; None writes nothing.
        checkpoint: where to go on from.
        device: where to train: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``.
        progress: show a progress bar; None shows one on a terminal, and logs one line per epoch elsewhere.
        workers: processes that read and change images ahead, see :func:`~bmrl.training.hardware.resolve_workers`.
        callbacks: more Lightning callbacks.

    Raises:
        DeviceError: the device is not there, or can't be trained on.
        DivergenceError: a loss, a gradient, a weight or an answer is not finite.
        KeyboardInterrupt: as it was raised.
    """
    recipe, place = task.recipe, training_device(device)
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
            max_epochs=recipe.epochs,
            precision=resolve_precision(recipe.precision, place),
            callbacks=watch,
            logger=MetricsLogger(folder) if folder is not None else False,
            enable_checkpointing=folder is not None,
            enable_progress_bar=show_bar,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            **lightning_device(place),
        )
        loaders = (
            training_loader(
                train_set,
                batch_size=recipe.batch_size,
                seed=recipe.seed,
                balance=recipe.balance,
                augmentation=recipe.augmentation,
                workers=resolve_workers(workers),
            ),
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
    """Logs one line per epoch."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._log(trainer)  # Lightning knows the metrics of an epoch only after all hooks of its end

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._log(trainer)

    @staticmethod
    def _log(trainer: L.Trainer) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name in _SHOWN}
        text = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in sorted(metrics.items()))
        if metrics:
            _logger.info("epoch %d of %s: %s", trainer.current_epoch, trainer.max_epochs, text)
