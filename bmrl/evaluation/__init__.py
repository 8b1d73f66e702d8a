"""Evaluation: metrics, the report and the shortcut baseline.

Names load on first use, so that reading predictions needs neither matplotlib nor scikit-learn nor Jinja2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bmrl._lazy import lazy_names

if TYPE_CHECKING:
    from bmrl.evaluation.predictions import Predictions, predict
    from bmrl.evaluation.run import evaluate
    from bmrl.evaluation.summary import summarize

__all__ = ["Predictions", "evaluate", "predict", "summarize"]

_HOMES = {
    "Predictions": "predictions",
    "evaluate": "run",
    "predict": "predictions",
    "summarize": "summary",
}

__getattr__ = lazy_names(__name__, _HOMES)
