"""Choosing the number of epochs by training groups only."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from lightning.pytorch.callbacks import Callback

from bmrl.data.manifest import Manifest
from bmrl.errors import RangeError
from bmrl.models import BMRLConfig
from bmrl.training.fitting import fit
from bmrl.training.loading import load_split
from bmrl.training.recipes import TrainingConfig
from bmrl.training.task import AttributionTask

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from bmrl.data.row import Row

__all__ = ["MakeTask", "cross_validate", "split_into_folds"]

MakeTask: TypeAlias = Callable[[BMRLConfig, TrainingConfig], AttributionTask]

_logger = logging.getLogger(__name__)


def split_into_folds(manifest: Manifest, folds: int) -> list[Manifest]:
    """Return the training split once per fold, with the groups of that fold as the validation split.

    Raises:
        RangeError: a fold has no group, or all groups of a generator.
    """
    splits = []
    for held_out in range(folds):
        rows = tuple(
            dataclasses.replace(row, split="val" if _fold(row, folds) == held_out else "train")
            for row in manifest.select(split="train", role="seen")
        )
        if len({row.split for row in rows}) < 2:
            raise RangeError(f"folds: expected a training group in each of {folds} folds, got none in one; take fewer")
        trained_on = {row.generator for row in rows if row.split == "train"}
        for generator in manifest.generators("seen"):
            if generator.name not in trained_on:
                raise RangeError(
                    f"folds: expected groups of every seen generator outside each of {folds} folds, got none of "
                    f"{generator.name} outside one; take more folds or groups"
                )
        splits.append(Manifest(manifest.root, rows))
    return splits


def cross_validate(
    splits: Sequence[Manifest],
    config: BMRLConfig,
    recipes: Sequence[TrainingConfig],
    make_task: MakeTask,
    *,
    device: str | torch.device,
) -> list[float]:
    """Return the accuracy on held-out training groups after each epoch, averaged over the folds.

    Args:
        splits: see :func:`split_into_folds`.
        config: of the model.
        recipes: one per fold, all with the same number of epochs.
        make_task: builds what is trained.
        device: as of :func:`bmrl.training.train`.
    """
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
    """Return a fold that depends only on the group."""
    return int.from_bytes(hashlib.sha256(row.group.encode()).digest()[:8], "big") % folds


class _Curve(Callback):
    """Remembers the validation accuracy of each epoch."""

    def __init__(self) -> None:
        self.accuracies: list[float] = []

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.accuracies.append(float(trainer.callback_metrics["val_accuracy"]))
