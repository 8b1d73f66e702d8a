"""Training: the recipe, the task on Lightning, and the run that turns a folder of faces into a model folder."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bmrl.errors import MissingExtraError
from bmrl.training.recipes import TrainingConfig

if TYPE_CHECKING:
    from bmrl.training.run import TrainingRun, train
    from bmrl.training.task import AttributionTask, BMRLTask

__all__ = ["AttributionTask", "BMRLTask", "TrainingConfig", "TrainingRun", "train"]

_HOMES = {
    "AttributionTask": "bmrl.training.task",
    "BMRLTask": "bmrl.training.task",
    "TrainingRun": "bmrl.training.run",
    "train": "bmrl.training.run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'bmrl.training' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name == "lightning":
            raise MissingExtraError("lightning", "train") from error
        raise
