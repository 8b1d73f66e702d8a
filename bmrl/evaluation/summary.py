"""From predictions to figures: the numbers of ``metrics.json``, for a model and for whatever it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from bmrl.errors import DataError, DTypeError, RangeError
from bmrl.evaluation import metrics
from bmrl.evaluation.detection import detection_metrics, real_probability
from bmrl.evaluation.intervals import wilson_interval
from bmrl.evaluation.predictions import Predictions
from bmrl.inference.checks import check_thresholds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["headline", "summarize"]


def summarize(predictions: Predictions, thresholds: Sequence[float]) -> dict[str, Any]:
    """Compute every figure of an evaluation as plain data, ready for JSON.

    Args:
        predictions: at least one seen image among them.
        thresholds: one or more, each in 0 .. 1.

    Returns:
        Shares are numbers in 0 .. 1, an interval is ``[low, high]`` (95 %, Wilson); what does not exist is None.

        * ``seen``: ``num_images``, ``accuracy``, ``accuracy_interval``, ``balanced_accuracy``, ``confusion`` (counts,
          true class by predicted class), ``per_generator`` (a list: ``generator``, ``manipulation``, ``architecture``,
          ``num_images``, ``num_correct``, ``recall``, ``recall_interval``).
        * ``unseen`` (None without unseen images): ``num_images``, ``auroc``, ``fpr95``, ``aupr_seen``,
          ``aupr_unseen``, ``oscr``, ``per_generator`` (``generator``, ``manipulation``, ``architecture``,
          ``num_images``, ``auroc``, ``rejection`` and ``rejection_interval`` (one entry a threshold), ``named``:
          how often each class was the most probable one).
        * ``thresholds``: a list: ``threshold``, ``seen_acceptance`` with its interval, ``seen_accepted_and_right``
          (both of all seen images) and, with unseen images, ``unseen_rejection`` (of all unseen images, with its
          interval) and ``unseen_rejection_mean`` (every unseen generator counting equally), else None.
        * ``detection``: ``seen`` and ``all``, each as :func:`~bmrl.evaluation.detection.detection_metrics` returns
          it, and ``reason`` None; without a real and a generated class both are None and ``reason`` says so.

    Raises:
        DataError: there is no seen image. RangeError: no threshold is given, or one lies outside 0 .. 1.
    """
    thresholds = check_thresholds(thresholds)
    if not isinstance(predictions, Predictions):
        raise DTypeError(f"predictions: expected Predictions, got {type(predictions).__name__}")
    if not predictions.seen.any():
        raise DataError("predictions: expected at least one image of a seen generator, got unseen ones only")
    return {
        "seen": _seen(predictions),
        "unseen": _unseen(predictions, thresholds) if not predictions.seen.all() else None,
        "thresholds": [_at_threshold(predictions, threshold) for threshold in thresholds],
        "detection": _detection(predictions),
    }


def headline(figures: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the figures that comparisons are made of, by name, from the result of :func:`summarize`.

    ``accuracy``, ``balanced_accuracy``, ``auroc``, ``fpr95``, ``aupr_seen``, ``aupr_unseen``, ``oscr`` and, for every
    threshold t, ``acceptance@t`` (of seen images) and ``rejection@t`` (of unseen ones). None where there is no figure.

    Raises:
        DataError: ``figures`` is something else.
    """
    if not isinstance(figures, Mapping):
        raise DataError(f"figures: expected the result of evaluate or summarize, got {type(figures).__name__}")
    try:
        return _headline(figures)
    except (LookupError, TypeError, AttributeError) as error:
        raise DataError(f"figures: expected the result of evaluate or summarize, got one without {error}") from error


def _headline(figures: Mapping[str, Any]) -> dict[str, float | None]:
    names = ("auroc", "fpr95", "aupr_seen", "aupr_unseen", "oscr")
    unseen = figures["unseen"] or {}
    found: dict[str, float | None] = {name: figures["seen"][name] for name in ("accuracy", "balanced_accuracy")}
    found |= {name: unseen.get(name) for name in names}
    for entry in figures["thresholds"]:
        found[f"acceptance@{entry['threshold']:g}"] = entry["seen_acceptance"]
        found[f"rejection@{entry['threshold']:g}"] = entry["unseen_rejection"]
    return found


def _seen(predictions: Predictions) -> dict[str, Any]:
    probabilities, labels = predictions.probabilities[predictions.seen], predictions.labels[predictions.seen]
    confusion = metrics.confusion_matrix(probabilities, labels)
    per_generator = []
    for label, generator in enumerate(predictions.generators):
        right, total = int(confusion[label, label]), int(confusion[label].sum())
        per_generator.append(
            {
                "generator": generator.name,
                "manipulation": generator.manipulation,
                "architecture": generator.architecture,
                "num_images": total,
                "num_correct": right,
                "recall": right / total if total else None,
                "recall_interval": list(wilson_interval(right, total)) if total else None,
            }
        )
    return {
        "num_images": len(labels),
        "accuracy": metrics.accuracy(probabilities, labels),
        "accuracy_interval": list(wilson_interval(int(confusion.diagonal().sum()), len(labels))),
        "balanced_accuracy": metrics.balanced_accuracy(probabilities, labels),
        "confusion": confusion.tolist(),
        "per_generator": per_generator,
    }


def _unseen(predictions: Predictions, thresholds: Sequence[float]) -> dict[str, Any]:
    scores = metrics.max_probability(predictions.probabilities)
    seen, unseen = predictions.seen, ~predictions.seen
    examples = {row.generator: row for row, is_unseen in zip(predictions.rows, unseen, strict=True) if is_unseen}
    per_generator = []
    for name, row in sorted(examples.items()):
        mine = predictions.of(name)
        per_generator.append(
            {
                "generator": name,
                "manipulation": row.manipulation,
                "architecture": row.architecture,
                "num_images": int(mine.sum()),
                "auroc": metrics.auroc(scores[seen], scores[mine]),
                "rejection": [_rejection(predictions.probabilities[mine], threshold)[0] for threshold in thresholds],
                "rejection_interval": [
                    _rejection(predictions.probabilities[mine], threshold)[1] for threshold in thresholds
                ],
                "named": torch.bincount(
                    predictions.probabilities[mine].argmax(dim=1), minlength=len(predictions.generators)
                ).tolist(),
            }
        )
    return {
        "num_images": int(unseen.sum()),
        "auroc": metrics.auroc(scores[seen], scores[unseen]),
        "fpr95": metrics.fpr_at_tpr(scores[seen], scores[unseen], tpr=0.95),
        "aupr_seen": metrics.aupr(scores[seen], scores[unseen]),
        "aupr_unseen": metrics.aupr(scores[seen], scores[unseen], positive="unseen"),
        "oscr": metrics.oscr(
            predictions.probabilities[seen], predictions.labels[seen], predictions.probabilities[unseen]
        ),
        "per_generator": per_generator,
    }


def _rejection(probabilities: Tensor, threshold: float) -> tuple[float, list[float]]:
    rate = metrics.rejection_rate(probabilities, threshold)
    return rate, list(wilson_interval(round(rate * len(probabilities)), len(probabilities)))


def _at_threshold(predictions: Predictions, threshold: float) -> dict[str, Any]:
    seen, unseen = predictions.seen, ~predictions.seen
    accepted = metrics.max_probability(predictions.probabilities) >= threshold
    right = predictions.probabilities.argmax(dim=1) == predictions.labels
    num_seen, num_accepted = int(seen.sum()), int((seen & accepted).sum())
    figures = {
        "threshold": float(threshold),
        "seen_acceptance": num_accepted / num_seen,
        "seen_acceptance_interval": list(wilson_interval(num_accepted, num_seen)),
        "seen_accepted_and_right": int((seen & accepted & right).sum()) / num_seen,
        "unseen_rejection": None,
        "unseen_rejection_interval": None,
        "unseen_rejection_mean": None,
    }
    if unseen.any():
        names = {row.generator for row, is_unseen in zip(predictions.rows, unseen, strict=True) if is_unseen}
        rates = [_rejection(predictions.probabilities[predictions.of(name)], threshold)[0] for name in sorted(names)]
        rate, interval = _rejection(predictions.probabilities[unseen], threshold)
        figures["unseen_rejection"] = rate
        figures["unseen_rejection_interval"] = interval
        figures["unseen_rejection_mean"] = sum(rates) / len(rates)
    return figures


def _detection(predictions: Predictions) -> dict[str, Any]:
    try:
        probability_real = real_probability(predictions.probabilities, predictions.generators)
    except RangeError as error:
        return {"seen": None, "all": None, "reason": str(error)}
    real, seen = predictions.real, predictions.seen
    return {
        "seen": detection_metrics(probability_real[seen], real[seen]),
        "all": detection_metrics(probability_real, real),
        "reason": None,
    }
