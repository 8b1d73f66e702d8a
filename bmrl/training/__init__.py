"""Training: the recipe, the task on Lightning, and the run that turns a folder of faces into a model folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bmrl._lazy import lazy_names
from bmrl.training.picture_augmentation import AugmentationConfig
from bmrl.training.recipes import TrainingConfig

if TYPE_CHECKING:
    from bmrl.training.run import TrainingRun, train
    from bmrl.training.task import AttributionTask, BMRLTask

__all__ = ["AttributionTask", "AugmentationConfig", "BMRLTask", "TrainingConfig", "TrainingRun", "train"]

_HOMES = {
    "AttributionTask": "task",
    "BMRLTask": "task",
    "TrainingRun": "run",
    "train": "run",
}

__getattr__ = lazy_names(__name__, _HOMES)
