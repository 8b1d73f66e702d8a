"""The metrics of one or more models as a plain text table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bmrl._text import columns
from bmrl.evaluation.measures import threshold_free_measures, threshold_measures
from bmrl.evaluation.summary import as_summary

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bmrl.evaluation.measures import Measure, ThresholdMeasure
    from bmrl.evaluation.summary import Summary

__all__ = ["format_metrics", "metric_lines"]


def format_metrics(models: Mapping[str, Summary | Mapping[str, Any]]) -> str:
    """Return a plain text table: one line per metric, one column per model, ``-`` for what a model does not have.

    Args:
        models: by name, what :func:`~bmrl.evaluation.evaluate` or :func:`~bmrl.evaluation.summarize` returned, or the
            content of a ``metrics.json``.

    Raises:
        DataError: a model's metrics are something else.

    Example:
        >>> summary = {"seen": {"accuracy": 0.9, "balanced_accuracy": 0.875}, "unseen": None, "thresholds": []}
        >>> for line in format_metrics({"mine": summary}).splitlines()[1:4]:
        ...     print(line)
        Seen accuracy      90.0%
        Balanced accuracy  87.5%
        AUROC seen/unseen  -
    """
    found = {name: as_summary(summary).metrics for name, summary in models.items()}
    lines = [("", *found)]
    for name, title, entry in metric_lines(name for metrics in found.values() for name in metrics):
        lines.append((title, *(entry.text(metrics.get(name)) for metrics in found.values())))
    return columns(lines)


def metric_lines(names: Iterable[str]) -> list[tuple[str, str, Measure | ThresholdMeasure]]:
    """Return name, title and entry of each metric of ``names``, in the order of the table and by threshold.

    Args:
        names: keys of :attr:`Summary.metrics <bmrl.evaluation.Summary.metrics>` of one or more models.
    """
    known = dict.fromkeys(names)
    lines: list[tuple[str, str, Measure | ThresholdMeasure]] = [
        (entry.name, entry.title, entry) for entry in threshold_free_measures() if entry.name in known
    ]
    for threshold in sorted({float(name.partition("@")[2]) for name in known if "@" in name}):
        lines += [
            (at.name_at(threshold), at.title_at(threshold), at)
            for at in threshold_measures()
            if at.name_at(threshold) in known
        ]
    return lines
