"""What an evaluation returns, and the content of ``metrics.json``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bmrl._results import plain
from bmrl._version import __version__
from bmrl.evaluation.summary import Summary
from bmrl.evaluation.yardsticks import best_yardsticks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bmrl.evaluation.predictions import Predictions, Skipped
    from bmrl.inference.limits import Limits

__all__ = ["FORMAT", "Evaluation"]

FORMAT = 2
"""Of ``metrics.json``; raised when a key changes its meaning or goes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation(Summary):
    """What :func:`~bmrl.evaluation.evaluate` found: a :class:`~bmrl.evaluation.Summary` with where it comes from.

    ``metrics`` holds each metric by name, as of every summary.

    Attributes:
        folder: where ``metrics.json`` and ``report.html`` are.
        model: ``name``, ``folder`` (None for a model that was passed), ``image_size`` and ``generators`` (a list of
            ``name``, ``manipulation``, ``architecture`` in the order of the probabilities).
        data: ``root``, ``split``, ``num_images`` (read) and ``num_skipped``.
        created: when, in UTC (ISO 8601).
        limits: what an image had to reach for a name to be said.
        outcomes: what became of the images by the model's decision, as they are and altered, see
            :func:`~bmrl.evaluation.outcomes.outcomes`.
        sources: the controls within one source, see :func:`~bmrl.evaluation.sources.within_sources`.
        families: how often the family of an unseen picture is named rightly, see
            :func:`~bmrl.evaluation.families.families_of_unseen`.
        predictions: what the metrics were computed from.
        yardsticks: the summary of each yardstick by its name in :data:`bmrl.evaluation.yardsticks.YARDSTICKS`.
        yardsticks_left_out: why one that was asked for is missing, by its name.
        baselines: the summaries of other models, by name.
    """

    folder: Path
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    created: str
    predictions: Predictions
    limits: Limits
    outcomes: Sequence[Mapping[str, Any]]
    sources: Mapping[str, Any]
    families: Mapping[str, Any]
    yardsticks: Mapping[str, Summary] = field(default_factory=dict)
    yardsticks_left_out: Mapping[str, str] = field(default_factory=dict)
    baselines: Mapping[str, Summary] = field(default_factory=dict)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The images that could not be read."""
        return self.predictions.skipped

    @property
    def best_yardsticks(self) -> list[dict[str, Any]]:
        """The model next to the best yardstick, see :func:`~bmrl.evaluation.yardsticks.best_yardsticks`."""
        return best_yardsticks(self, dict(self.yardsticks))

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``metrics.json``: all but ``folder`` and ``predictions``.

        That is the attributes by name, ``best_yardsticks``, ``skipped`` (a list of ``path``, ``generator`` and
        ``reason``), ``format`` and
        ``bmrl_version``.
        """
        names = (
            *("created", "model", "data", "limits", "seen", "unseen", "thresholds"),
            *("outcomes", "sources", "families", "detection"),
        )
        content: dict[str, Any] = {"format": FORMAT, "bmrl_version": __version__}
        content |= {name: plain(getattr(self, name)) for name in names}
        content["skipped"] = [entry.to_dict() for entry in self.skipped]
        for name in ("yardsticks", "baselines"):
            content[name] = {each: plain(_summary_of(summary)) for each, summary in getattr(self, name).items()}
        content["yardsticks_left_out"] = dict(self.yardsticks_left_out)
        content["best_yardsticks"] = self.best_yardsticks
        return content


def _summary_of(summary: Summary) -> dict[str, Any]:
    """Return only the metrics, also of an evaluation."""
    return {name: getattr(summary, name) for name in ("seen", "unseen", "thresholds", "detection")}
