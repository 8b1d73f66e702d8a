"""Evaluation and attribution: metrics, the report, the shortcut baseline and :class:`Attributor`.

Names load on first use, so that attributing an image needs neither matplotlib nor scikit-learn nor Jinja2.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bmrl.evaluation.attributor import Attribution, Attributor
    from bmrl.evaluation.predictions import Predictions, predict
    from bmrl.evaluation.run import evaluate
    from bmrl.evaluation.summary import summarise

__all__ = ["Attribution", "Attributor", "Predictions", "evaluate", "predict", "summarise"]

_HOMES = {
    "Attribution": "attributor",
    "Attributor": "attributor",
    "Predictions": "predictions",
    "evaluate": "run",
    "predict": "predictions",
    "summarise": "summary",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"bmrl.evaluation.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'bmrl.evaluation' has no attribute {name!r}")
