"""The metrics of an evaluation, one entry each.

:data:`MEASURES` is the only list of them: ``metrics.json``, the report, the tables of the command line and the
comparison with ResNet-18 all walk it. To add a metric, write its function into :mod:`bmrl.evaluation.metrics` and an
entry here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from bmrl.evaluation.intervals import wilson_interval
from bmrl.evaluation.metrics import accuracy, aupr, auroc, balanced_accuracy, fpr_at_tpr, oscr, rejection_rate

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from bmrl.evaluation.predictions import Predictions

__all__ = ["MEASURES", "Column", "Measure", "ThresholdMeasure", "threshold_free_measures", "threshold_measures"]


class Column(NamedTuple):
    """What a metric is called when it is computed for one generator: its key in JSON, and the header in the report."""

    name: str
    title: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Described:
    """What is known about a metric in addition to its value.

    Attributes:
        name: its key in JSON.
        title: its name for a reader.
        explanation: what the value says, in one or two sentences for a reader of the report.
        over: the images it is about, and its section of the JSON. One over the unseen images also sees the
            seen ones; it is None where there are no unseen images.
        higher_is_better: False where a low value is a good one.
        format: a format specification for the value.
        has_interval: whether it is a share of the images it is about, so that it has a Wilson interval.
        per_generator: what it is called for one generator (of only the seen ones, or of the unseen ones next to all
            seen images); None if it is not computed for one.
    """

    name: str
    title: str
    explanation: str
    over: Literal["seen", "unseen"]
    higher_is_better: bool = True
    format: str = ".1%"
    has_interval: bool = False
    per_generator: Column | None = None

    def text(self, value: float | None) -> str:
        """Return a value as it is shown: formatted, or ``-`` where there is none."""
        return "-" if value is None else format(value, self.format)

    def interval(self, value: float | None, predictions: Predictions) -> list[float] | None:
        """Return the 95% interval ``[low, high]`` of a value that is a share of the images."""
        if value is None:
            return None
        count = self._count(predictions)
        return list(wilson_interval(round(value * count), count))

    def _count(self, predictions: Predictions) -> int:
        seen = int(predictions.seen.sum())
        return seen if self.over == "seen" else len(predictions.rows) - seen


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure(_Described):
    """A metric that needs no threshold.

    Attributes:
        compute: from predictions that hold seen images, and unseen ones if ``over`` says so.
    """

    compute: Callable[[Predictions], float]

    def value(self, predictions: Predictions) -> float | None:
        """Return the metric, or None where there are no images that it is about."""
        return self.compute(predictions) if self._count(predictions) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class ThresholdMeasure(_Described):
    """A metric at a threshold.

    Attributes:
        compute: from predictions and a threshold in 0 .. 1.
    """

    compute: Callable[[Predictions, float], float]

    def value(self, predictions: Predictions, threshold: float) -> float | None:
        """Return the metric, or None where there are no images that it is about."""
        return self.compute(predictions, threshold) if self._count(predictions) else None

    def title_at(self, threshold: float) -> str:
        """Return the title with its threshold."""
        return f"{self.title} at {threshold:g}"

    def name_at(self, threshold: float) -> str:
        """Return the name with its threshold, such as ``seen_acceptance@0.7``."""
        return f"{self.name}@{threshold:g}"


def _seen(predictions: Predictions) -> tuple[Tensor, Tensor]:
    return predictions.probabilities[predictions.seen], predictions.labels[predictions.seen]


def _unseen(predictions: Predictions) -> Tensor:
    return predictions.probabilities[~predictions.seen]


def _scores(predictions: Predictions) -> tuple[Tensor, Tensor]:
    scores = predictions.decisions.scores
    return scores[predictions.seen], scores[~predictions.seen]


def _oscr(predictions: Predictions) -> float:
    seen, unseen = _scores(predictions)
    return oscr(*_seen(predictions), _unseen(predictions), seen_scores=seen, unseen_scores=unseen)


def _acceptance(predictions: Predictions, threshold: float) -> float:
    accepted = predictions.decisions.seen(threshold)[predictions.seen]
    return int(accepted.sum()) / len(accepted)


def _accepted_and_right(predictions: Predictions, threshold: float) -> float:
    decided = predictions.decisions
    right = decided.seen(threshold) & (decided.labels == predictions.labels)
    return int(right.sum()) / int(predictions.seen.sum())


def _mean_rejection(predictions: Predictions, threshold: float) -> float:
    rates = [
        rejection_rate(predictions.probabilities[predictions.of(name)], threshold)
        for name in predictions.unseen_generators
    ]
    return sum(rates) / len(rates)


MEASURES: tuple[Measure | ThresholdMeasure, ...] = (
    Measure(
        name="accuracy",
        title="Seen accuracy",
        explanation="Share of images from known generators that are named right when nothing may be rejected.",
        over="seen",
        compute=lambda predictions: accuracy(*_seen(predictions)),
        has_interval=True,
        per_generator=Column("recall", "recall"),
    ),
    Measure(
        name="balanced_accuracy",
        title="Balanced accuracy",
        explanation="The same, with every generator counting equally, however many images it has.",
        over="seen",
        compute=lambda predictions: balanced_accuracy(*_seen(predictions)),
    ),
    Measure(
        name="auroc",
        title="AUROC seen/unseen",
        explanation="How often a random seen image gets a higher score than a random unseen one: the score that "
        "the model decides by, or else the maximum probability. 50% is guessing.",
        over="unseen",
        compute=lambda predictions: auroc(*_scores(predictions)),
        per_generator=Column("auroc", "AUROC"),
    ),
    Measure(
        name="fpr95",
        title="FPR at 95% TPR",
        explanation="Share of unseen images that are accepted at the threshold that accepts 95% of the seen ones.",
        over="unseen",
        compute=lambda predictions: fpr_at_tpr(*_scores(predictions), tpr=0.95),
        higher_is_better=False,
    ),
    Measure(
        name="aupr_seen",
        title="AUPR, seen",
        explanation="Mean precision when the most confident answers are taken for seen images. It depends on the mix: "
        "guessing scores the share of seen images.",
        over="unseen",
        compute=lambda predictions: aupr(*_scores(predictions)),
    ),
    Measure(
        name="aupr_unseen",
        title="AUPR, unseen",
        explanation="The same when the least confident answers are taken for unseen images. Guessing scores the share "
        "of unseen images.",
        over="unseen",
        compute=lambda predictions: aupr(*_scores(predictions), positive="unseen"),
    ),
    Measure(
        name="oscr",
        title="OSCR",
        explanation="How often a random seen image is named right and is more confident than a random unseen one. "
        "It is never above the seen accuracy.",
        over="unseen",
        compute=_oscr,
    ),
    ThresholdMeasure(
        name="seen_acceptance",
        title="Seen accepted",
        explanation="Share of seen images whose maximum probability is at or above the threshold.",
        over="seen",
        compute=_acceptance,
        has_interval=True,
    ),
    ThresholdMeasure(
        name="seen_accepted_and_right",
        title="Seen accepted and right",
        explanation="Share of seen images that are accepted and named right.",
        over="seen",
        compute=_accepted_and_right,
        has_interval=True,
    ),
    ThresholdMeasure(
        name="unseen_rejection",
        title="Unseen rejected",
        explanation="Share of unseen images whose maximum probability is below the threshold. It means nothing without "
        "the acceptance of seen images: a model that is never sure rejects everything.",
        over="unseen",
        compute=lambda predictions, threshold: rejection_rate(_unseen(predictions), threshold),
        has_interval=True,
        per_generator=Column("rejection", "rejected"),
    ),
    ThresholdMeasure(
        name="unseen_rejection_mean",
        title="Unseen rejected, mean over generators",
        explanation="The same, with every unseen generator counting equally, however many images it has.",
        over="unseen",
        compute=_mean_rejection,
    ),
)


def threshold_free_measures(over: str | None = None) -> list[Measure]:
    """Return the metrics that need no threshold, of one section or of both."""
    return [entry for entry in MEASURES if isinstance(entry, Measure) and over in (None, entry.over)]


def threshold_measures(over: str | None = None) -> list[ThresholdMeasure]:
    """Return the metrics at a threshold, over the seen images, the unseen ones, or both."""
    return [entry for entry in MEASURES if isinstance(entry, ThresholdMeasure) and over in (None, entry.over)]
