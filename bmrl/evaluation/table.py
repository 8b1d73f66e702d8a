"""The figures of one or more models as a plain text table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bmrl.evaluation.summary import headline

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["format_figures"]

_TITLES = {
    "accuracy": "seen accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC seen/unseen",
    "fpr95": "FPR at 95 % TPR",
    "oscr": "OSCR",
}


def format_figures(models: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a line a figure and a column a model; a figure that a model does not have is ``-``.

    Args:
        models: by name, what :func:`~bmrl.evaluation.run.evaluate` or
            :func:`~bmrl.evaluation.summary.summarize` returned.
    """
    columns = {name: _figures(headline(figures)) for name, figures in models.items()}
    titles = list(dict.fromkeys(title for column in columns.values() for title in column))
    lines = [("", *columns)]
    for title in titles:
        values = [column.get(title) for column in columns.values()]
        lines.append((title, *("-" if value is None else f"{value:.3f}" for value in values)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _figures(found: Mapping[str, float | None]) -> dict[str, float | None]:
    figures = {title: found.get(name) for name, title in _TITLES.items()}
    for name, value in found.items():
        kind, _, threshold = name.partition("@")
        if threshold:
            what = "seen accepted" if kind == "acceptance" else "unseen rejected"
            figures[f"{what} at {threshold}"] = value
    return figures
