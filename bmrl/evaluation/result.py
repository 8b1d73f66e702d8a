"""What an evaluation returns, and the content of ``metrics.json``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bmrl._results import plain
from bmrl._version import __version__
from bmrl.evaluation.summary import Summary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bmrl.evaluation.predictions import Predictions, Skipped
    from bmrl.inference.limits import Limits

__all__ = ["FORMAT", "Evaluation"]

FORMAT = 1
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
        predictions: what the metrics were computed from.
        shortcut: the summary of the shortcut baseline, or None.
        shortcut_reason: why ``shortcut`` is None, or None.
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
    shortcut: Summary | None = None
    shortcut_reason: str | None = None
    baselines: Mapping[str, Summary] = field(default_factory=dict)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The images that could not be read."""
        return self.predictions.skipped

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``metrics.json``: all but ``folder`` and ``predictions``.

        That is the attributes by name, ``skipped`` (a list of ``path``, ``generator`` and ``reason``), ``format`` and
        ``bmrl_version``.
        """
        names = (
            *("created", "model", "data", "limits", "seen", "unseen", "thresholds"),
            *("outcomes", "sources", "detection"),
        )
        content: dict[str, Any] = {"format": FORMAT, "bmrl_version": __version__}
        content |= {name: plain(getattr(self, name)) for name in names}
        content["skipped"] = [entry.to_dict() for entry in self.skipped]
        content["shortcut"] = None if self.shortcut is None else self.shortcut.to_dict()
        content["shortcut_reason"] = self.shortcut_reason
        content["baselines"] = {name: plain(_summary_of(summary)) for name, summary in self.baselines.items()}
        return content


def _summary_of(summary: Summary) -> dict[str, Any]:
    """Return only the metrics, also of an evaluation."""
    return {name: getattr(summary, name) for name in ("seen", "unseen", "thresholds", "detection")}
