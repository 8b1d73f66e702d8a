"""What becomes of pictures by the model's own decision, as they are and altered as pictures on the web are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from bmrl.errors import DataError
from bmrl.evaluation.intervals import wilson_interval
from bmrl.evaluation.metrics import accuracy, auroc, balanced_accuracy, oscr
from bmrl.inference.calibration import risk_coverage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bmrl.evaluation.predictions import Predictions

__all__ = ["AS_THEY_ARE", "outcomes"]

AS_THEY_ARE = "as they are"

MOST_POINTS = 101
"""Of a risk-coverage curve."""


def outcomes(predictions: Predictions, altered: Mapping[str, Predictions]) -> list[dict[str, Any]]:
    """Return what becomes of the images, one entry for each version of them.

    Args:
        predictions: of the images as they are, with the model's limits.
        altered: the same after each alteration, by its name.

    Returns:
        Entries with ``version`` and shares in 0 .. 1. Of the seen images: ``accuracy`` and ``balanced_accuracy`` (when
        nothing may be rejected), ``right`` and ``wrong`` (those that are named, and rightly or not), ``uncertain`` and
        ``rejected`` (called unseen); ``risk_coverage``, a list of at most 101 pairs ``[coverage, risk]``: when the
        pictures of the highest probabilities are answered, the share of wrong answers among them; and ``aurc``, the
        area under that curve. Of the unseen ones, None where there are none: ``unseen_named``, ``unseen_uncertain``,
        ``unseen_rejected``; and ``auroc`` and ``oscr`` of the score. ``wrong_interval`` and ``unseen_named_interval``
        are 95 % intervals (Wilson).

    Raises:
        DataError: the predictions have no limits, or no seen image.
    """
    return [_outcome(version, each) for version, each in ({AS_THEY_ARE: predictions} | dict(altered)).items()]


def _outcome(version: str, predictions: Predictions) -> dict[str, Any]:
    if predictions.limits is None:
        raise DataError("predictions: expected some with the model's limits, got none")
    seen = predictions.seen
    if not seen.any():
        raise DataError("predictions: expected at least one image of a seen generator, got none")
    decided = predictions.decisions
    verdicts = decided.verdicts(predictions.limits)
    named, rejected = (torch.tensor([verdict == kind for verdict in verdicts]) for kind in ("seen", "unseen"))
    correct = decided.labels == predictions.labels
    unseen, probabilities, labels = ~seen, predictions.probabilities[seen], predictions.labels[seen]

    curve = risk_coverage(decided.probabilities[seen], correct[seen])
    thinned = torch.searchsorted(curve.coverage, torch.linspace(0, 1, MOST_POINTS, dtype=torch.float64))
    points = thinned.clamp(max=len(curve.coverage) - 1).unique()

    def interval(images: torch.Tensor, of: torch.Tensor) -> list[float] | None:
        return list(wilson_interval(int((images & of).sum()), int(of.sum()))) if of.any() else None

    def share(images: torch.Tensor, of: torch.Tensor) -> float | None:
        return int((images & of).sum()) / int(of.sum()) if of.any() else None

    found: dict[str, Any] = {
        "version": version,
        "accuracy": accuracy(probabilities, labels),
        "balanced_accuracy": balanced_accuracy(probabilities, labels),
        "right": share(named & correct, seen),
        "wrong": share(named & ~correct, seen),
        "uncertain": share(~named & ~rejected, seen),
        "rejected": share(rejected, seen),
        "wrong_interval": interval(named & ~correct, seen),
        "risk_coverage": torch.stack((curve.coverage[points], curve.risk[points]), dim=1).tolist(),
        "aurc": curve.area,
        "unseen_named": share(named, unseen),
        "unseen_named_interval": interval(named, unseen),
        "unseen_uncertain": share(~named & ~rejected, unseen),
        "unseen_rejected": share(rejected, unseen),
        "auroc": None,
        "oscr": None,
    }
    if unseen.any():
        scores = decided.scores[seen], decided.scores[unseen]
        found["auroc"] = auroc(*scores)
        found["oscr"] = oscr(
            probabilities, labels, predictions.probabilities[unseen], seen_scores=scores[0], unseen_scores=scores[1]
        )
    return found
