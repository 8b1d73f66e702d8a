"""Training: the recipe, the task on Lightning, and the run that turns a folder of faces into a model folder."""

from __future__ import annotations

from bmrl.training.recipes import TrainingConfig

__all__ = ["AttributionTask", "BMRLTask", "TrainingConfig", "TrainingRun", "train"]

_HOMES = {
    "AttributionTask": "bmrl.training.task",
    "BMRLTask": "bmrl.training.task",
    "TrainingRun": "bmrl.training.run",
    "train": "bmrl.training.run",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'bmrl.training' has no attribute {name!r}")
    import importlib

    try:
        return getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name == "lightning":
            from bmrl.errors import MissingExtraError

            raise MissingExtraError("lightning", "train") from error
        raise
