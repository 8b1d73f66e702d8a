"""Metrics of closed-set and open-set attribution, as pure functions of probabilities.

Conventions, the same everywhere in bmrl:

* The *score* of an image is its maximum probability; higher means "more like a seen generator".
* An image counts as **seen** when its score is at or above the threshold and as **unseen** when strictly below
  (the decision rule of arXiv:2504.14129, see :func:`bmrl.inference.decide`). Numbers are compared in float64.
* *Positive* is the seen class unless a function says otherwise.
* Inputs are tensors on any device, or anything :func:`torch.as_tensor` takes; results are Python floats.

Every function raises :class:`~bmrl.errors.ShapeError` for empty or misshapen input,
:class:`~bmrl.errors.DTypeError` for a wrong type and :class:`~bmrl.errors.RangeError` for NaN, infinities, rows that
are not probabilities, and labels or rates out of range.

Which of them an evaluation reports is said in :mod:`bmrl.evaluation.measures`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from bmrl._checks import check_positive
from bmrl._values import check_choice
from bmrl.errors import ShapeError
from bmrl.inference.checks import as_labels, as_probabilities, as_scores, check_rate
from bmrl.inference.decision import decide, decide_checked

if TYPE_CHECKING:
    from torch import Tensor

    from bmrl.inference.checks import Values

__all__ = [
    "accuracy",
    "aupr",
    "auroc",
    "balanced_accuracy",
    "confusion_matrix",
    "fpr_at_tpr",
    "oscr",
    "rejection_rate",
]


def confusion_matrix(probabilities: Values, labels: Values) -> Tensor:
    """Count images by true generator (row) and most probable one (column); a tie goes to the lower index.

    Args:
        probabilities: ``(n, x)``, floating point, rows summing to 1.
        labels: ``(n,)``, integers in 0 .. x-1.

    Returns:
        ``(x, x)`` int64, on the CPU; its sum is n.
    """
    checked = as_probabilities("probabilities", probabilities)
    num_images, num_generators = checked.shape
    truth = as_labels("labels", labels, num_images, num_generators)
    cells = truth * num_generators + decide_checked(checked).labels
    return torch.bincount(cells, minlength=num_generators**2).reshape(num_generators, num_generators)


def accuracy(probabilities: Values, labels: Values) -> float:
    """Return the share of images whose most probable generator is the true one, in 0 .. 1.

    Args:
        probabilities: ``(n, x)``, floating point, rows summing to 1.
        labels: ``(n,)``, integers in 0 .. x-1.

    Raises:
        DTypeError, RangeError, ShapeError: an argument is something else.

    Example:
        >>> accuracy([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]], [0, 0, 0, 1])
        0.5
    """
    counts = confusion_matrix(probabilities, labels)
    return int(counts.diagonal().sum()) / int(counts.sum())


def balanced_accuracy(probabilities: Values, labels: Values) -> float:
    """Return the mean recall of the generators that occur among ``labels``, in 0 .. 1.

    Every such generator counts equally, however many images it has.

    Args:
        probabilities: ``(n, x)``, floating point, rows summing to 1.
        labels: ``(n,)``, integers in 0 .. x-1.

    Raises:
        DTypeError, RangeError, ShapeError: an argument is something else.

    Example:
        >>> round(balanced_accuracy([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]], [0, 0, 0, 1]), 4)
        0.3333
    """
    counts = confusion_matrix(probabilities, labels)
    totals = counts.sum(dim=1)
    occurs = totals > 0
    return float((counts.diagonal()[occurs].double() / totals[occurs]).mean())


def rejection_rate(probabilities: Values, threshold: float) -> float:
    """Return the share of images whose score lies strictly below ``threshold``, in 0 .. 1.

    The paper's "ACC on unseen". Alone it says little (a model that is sure of nothing scores 1): print it next to
    the acceptance of seen images, which is ``1 - rejection_rate`` of those at the same threshold.

    Args:
        probabilities: ``(n, x)``, floating point, rows summing to 1.
        threshold: in 0 .. 1.

    Example:
        >>> rejection_rate([[0.5, 0.5], [0.75, 0.25]], 0.75)
        0.5
    """
    check_rate("threshold", threshold)
    rejected = ~decide(probabilities).seen(threshold)
    return int(rejected.sum()) / len(rejected)


def auroc(seen_scores: Values, unseen_scores: Values) -> float:
    """Return the chance that a random seen image outscores a random unseen one; a tie counts half.

    Args:
        seen_scores: ``(n,)``, floating point, finite.
        unseen_scores: ``(m,)``, floating point, finite.

    Returns:
        0 .. 1; 0.5 is chance, 1 perfect separation.

    Example:
        >>> auroc([0.9, 0.6], [0.6, 0.2])
        0.875
    """
    seen = as_scores("seen_scores", seen_scores)
    unseen = as_scores("unseen_scores", unseen_scores)
    return _wins(seen, unseen) / (len(seen) * len(unseen))


def fpr_at_tpr(seen_scores: Values, unseen_scores: Values, *, tpr: float = 0.95) -> float:
    """Return the share of unseen images accepted at the highest threshold that accepts ``tpr`` of the seen ones.

    No interpolation: the threshold is the score of a seen image, and images at it are accepted.

    Args:
        seen_scores: ``(n,)``, floating point, finite.
        unseen_scores: ``(m,)``, floating point, finite.
        tpr: share of seen images to accept at least, above 0 and up to 1.

    Returns:
        0 .. 1; lower is better.

    Example:
        >>> fpr_at_tpr([0.9, 0.8, 0.7], [0.75, 0.1], tpr=0.6)
        0.0
    """
    seen = as_scores("seen_scores", seen_scores)
    unseen = as_scores("unseen_scores", unseen_scores)
    check_positive("tpr", tpr)
    check_rate("tpr", tpr)
    shares = torch.arange(1, len(seen) + 1, dtype=torch.float64) / len(seen)
    needed = int(torch.searchsorted(shares, torch.tensor(tpr, dtype=torch.float64)))
    threshold = seen.sort(descending=True).values[needed]
    return int((unseen >= threshold).sum()) / len(unseen)


def aupr(seen_scores: Values, unseen_scores: Values, *, positive: Literal["seen", "unseen"] = "seen") -> float:
    r"""Return the average precision :math:`\sum_k (R_k - R_{k-1}) P_k` over the distinct scores.

    Args:
        seen_scores: ``(n,)``, floating point, finite.
        unseen_scores: ``(m,)``, floating point, finite.
        positive: which images are to be found: ``"seen"`` by high scores, or ``"unseen"`` by low ones.

    Returns:
        Above 0, up to 1; chance is the share of positive images, so compare it only at equal n and m.

    Example:
        >>> aupr([0.9, 0.6], [0.7])
        0.8333333333333333
    """
    check_choice("positive", positive, ("seen", "unseen"))
    hits = as_scores("seen_scores", seen_scores)
    misses = as_scores("unseen_scores", unseen_scores)
    if positive == "unseen":
        hits, misses = -misses, -hits
    thresholds, counts = torch.unique(hits, return_counts=True)  # ascending
    true_positives = len(hits) - torch.searchsorted(hits.sort().values, thresholds)
    false_positives = len(misses) - torch.searchsorted(misses.sort().values, thresholds)
    precision = true_positives.double() / (true_positives + false_positives)
    return float((counts * precision).sum() / len(hits))


def oscr(
    seen_probabilities: Values,
    seen_labels: Values,
    unseen_probabilities: Values,
    *,
    seen_scores: Values | None = None,
    unseen_scores: Values | None = None,
) -> float:
    """Return the open-set classification rate: the area under CCR over FPR.

    As the threshold falls from 1 to 0, CCR is the share of seen images that are accepted *and* named right, FPR the
    share of unseen images that are accepted. Images of equal score enter together (a straight line), so the area is
    exactly the chance that a random seen image is named right and outscores a random unseen one, a tie counting half.

    Args:
        seen_probabilities: ``(n, x)``, floating point, rows summing to 1.
        seen_labels: ``(n,)``, integers in 0 .. x-1.
        unseen_probabilities: ``(m, x)``, floating point, rows summing to 1.
        seen_scores: ``(n,)``, floating point, finite; None takes the maximum probabilities.
        unseen_scores: ``(m,)``, of the same kind.

    Returns:
        0 .. 1, at most the accuracy on the seen images.

    Raises:
        DTypeError, RangeError: an argument is something else.
        ShapeError: the shapes do not fit each other.

    Example:
        >>> oscr([[0.9, 0.1], [0.6, 0.4]], [0, 1], [[0.5, 0.5]])
        0.5
    """
    seen = as_probabilities("seen_probabilities", seen_probabilities)
    unseen = as_probabilities("unseen_probabilities", unseen_probabilities)
    labels = as_labels("seen_labels", seen_labels, *seen.shape)
    if seen.shape[1] != unseen.shape[1]:
        raise ShapeError(f"unseen_probabilities: expected {seen.shape[1]} generators, got {unseen.shape[1]}")
    decided, others = decide(seen, seen_scores), decide(unseen, unseen_scores)
    right = decided.labels == labels
    return _wins(decided.scores[right], others.scores) / (len(seen) * len(unseen))


def _wins(upper: Tensor, lower: Tensor) -> float:
    """Count the pairs with ``upper > lower``, ties as half, in O((n + m) log m)."""
    ordered = lower.sort().values
    strict = torch.searchsorted(ordered, upper)
    ties = torch.searchsorted(ordered, upper, right=True)
    return int((strict + ties).sum()) / 2
