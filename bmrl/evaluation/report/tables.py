"""The tables of the report as plain text cells, walked from the table of metrics."""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING, Any, NamedTuple

from bmrl.evaluation.measures import threshold_free_measures, threshold_measures
from bmrl.evaluation.table import metric_lines
from bmrl.evaluation.yardsticks import YARDSTICKS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bmrl.evaluation.measures import Measure, ThresholdMeasure
    from bmrl.evaluation.result import Evaluation

__all__ = ["Cell", "comparison", "seen_generators", "unseen_generators"]


class Cell(NamedTuple):
    """A value as it is shown, its interval as it is shown, and the shares for a bar; ``""`` and None where empty."""

    text: str = ""
    interval: str = ""
    value: float | None = None
    bounds: tuple[float, float] | None = None


class _Column(NamedTuple):
    """A metric of single generators; ``place`` is that of its threshold, or None."""

    entry: Measure | ThresholdMeasure
    title: str
    place: int | None

    def of_generator(self, values: Mapping[str, Any]) -> Cell:
        """Return the cell of an entry of ``per_generator``."""
        assert self.entry.per_generator is not None
        return self._cell(values, self.entry.per_generator.name, self.place)

    def of_all(self, section: Mapping[str, Any], evaluation: Evaluation) -> Cell:
        """Return the cell of all images."""
        if self.place is None:
            return self._cell(section, self.entry.name)
        return self._cell(evaluation.thresholds[self.place], self.entry.name)

    def of_mean(self, rows: list[list[Cell]], index: int) -> Cell:
        """Return the mean over the generators."""
        values = [row[index].value for row in rows]
        return Cell(self.entry.text(mean(value for value in values if value is not None)))

    def _cell(self, values: Mapping[str, Any], name: str, index: int | None = None) -> Cell:
        value, bounds = values[name], values.get(f"{name}_interval")
        if index is not None:
            value, bounds = value[index], None if bounds is None else bounds[index]
        if bounds is None:
            return Cell(self.entry.text(value), value=value)
        low, high = bounds
        return Cell(self.entry.text(value), f"{self.entry.text(low)} – {self.entry.text(high)}", value, (low, high))


def comparison(evaluation: Evaluation) -> dict[str, Any]:
    """Return the table of all metrics: ``columns`` (the models) and ``rows`` (title, better, why, values)."""
    models = {"This model": evaluation.metrics}
    models |= {YARDSTICKS[name].title: summary.metrics for name, summary in evaluation.yardsticks.items()}
    models |= {name: summary.metrics for name, summary in evaluation.baselines.items()}
    rows: list[dict[str, Any]] = []
    explained = set()
    for name, title, entry in metric_lines(evaluation.metrics):
        rows.append(
            {
                "title": title,
                "better": "↑" if entry.higher_is_better else "↓",
                "why": "" if entry.name in explained else entry.explanation,  # once, not at each threshold
                "values": [entry.text(metrics.get(name)) for metrics in models.values()],
            }
        )
        explained.add(entry.name)
    return {"columns": list(models), "rows": rows}


def seen_generators(evaluation: Evaluation) -> dict[str, Any]:
    """Return ``titles``, ``rows`` (a list of cells per generator) and ``all`` (cells) of the seen generators."""
    return _generators(evaluation, "seen", evaluation.seen)


def unseen_generators(evaluation: Evaluation) -> dict[str, Any] | None:
    """Return the same of the unseen generators, ``mean`` (cells), and ``accepted``: seen images at each threshold.

    None without unseen images.
    """
    if evaluation.unseen is None:
        return None
    table = _generators(evaluation, "unseen", evaluation.unseen)
    columns = _columns(evaluation, "unseen")
    table["mean"] = [column.of_mean(table["rows"], index) for index, column in enumerate(columns)]
    acceptance = next(entry for entry in threshold_measures("seen") if entry.name == "seen_acceptance")
    table["accepted"] = [
        Cell() if column.place is None else _Column(acceptance, "", column.place).of_all({}, evaluation)
        for column in columns
    ]
    return table


def _generators(evaluation: Evaluation, over: str, section: Mapping[str, Any]) -> dict[str, Any]:
    columns = _columns(evaluation, over)
    return {
        "titles": [column.title for column in columns],
        "rows": [[column.of_generator(values) for column in columns] for values in section["per_generator"]],
        "all": [column.of_all(section, evaluation) for column in columns],
    }


def _columns(evaluation: Evaluation, over: str) -> list[_Column]:
    columns = [
        _Column(entry, entry.per_generator.title, None)
        for entry in threshold_free_measures(over)
        if entry.per_generator is not None
    ]
    for index, values in enumerate(evaluation.thresholds):
        columns += [
            _Column(at, f"{at.per_generator.title} at {values['threshold']:g}", index)
            for at in threshold_measures(over)
            if at.per_generator is not None
        ]
    return columns
