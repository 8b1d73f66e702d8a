"""Evaluation: metrics, the report, yardsticks and the comparison with ResNet-18.

Names load on first use, so that reading predictions needs neither matplotlib nor scikit-learn nor Jinja2 nor Lightning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bmrl._lazy import lazy_names

if TYPE_CHECKING:
    from bmrl.evaluation.comparison import Comparison, MethodResult, compare, format_comparison, train_resnet18
    from bmrl.evaluation.predictions import Predictions, Skipped, predict
    from bmrl.evaluation.report import render_report
    from bmrl.evaluation.result import Evaluation
    from bmrl.evaluation.run import evaluate
    from bmrl.evaluation.summary import Summary, summarize
    from bmrl.evaluation.table import format_metrics
    from bmrl.evaluation.yardsticks import shortcut_baseline

__all__ = [
    "Comparison",
    "Evaluation",
    "MethodResult",
    "Predictions",
    "Skipped",
    "Summary",
    "compare",
    "evaluate",
    "format_comparison",
    "format_metrics",
    "predict",
    "render_report",
    "shortcut_baseline",
    "summarize",
    "train_resnet18",
]

_HOMES = {
    "Comparison": "comparison",
    "Evaluation": "result",
    "MethodResult": "comparison",
    "Predictions": "predictions",
    "Skipped": "predictions",
    "Summary": "summary",
    "compare": "comparison",
    "evaluate": "run",
    "format_comparison": "comparison",
    "format_metrics": "table",
    "predict": "predictions",
    "render_report": "report",
    "shortcut_baseline": "yardsticks",
    "summarize": "summary",
    "train_resnet18": "comparison",
}

__getattr__ = lazy_names(__name__, _HOMES)
