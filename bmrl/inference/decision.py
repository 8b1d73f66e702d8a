"""The decision rule, once: which class an image's probabilities name, and whether the image is seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bmrl.inference.checks import as_probabilities, check_rate

if TYPE_CHECKING:
    from torch import Tensor

    from bmrl.inference.checks import Values

__all__ = ["Decisions", "decide", "decide_checked"]


class Decisions(NamedTuple):
    """What the probabilities of n images say, on the CPU.

    Attributes:
        labels: ``(n,)`` int64, the most probable class of each image; the lowest index where several are.
        scores: ``(n,)`` float64, its probability, in 1/x .. 1 for x classes: higher is more like a seen generator.
    """

    labels: Tensor
    scores: Tensor

    def seen(self, threshold: float) -> Tensor:
        """Return ``(n,)`` bool: an image is seen when its score is at or above ``threshold``, compared in float64.

        Raises:
            RangeError, DTypeError: ``threshold`` is not a number in 0 .. 1.
        """
        check_rate("threshold", threshold)
        return self.scores >= threshold


def decide(probabilities: Values) -> Decisions:
    """Return the most probable class of each image and its probability (the decision rule of arXiv:2504.14129).

    Everything that names a generator or calls an image unseen calls this: the attributor, the clients of a server,
    and the evaluation with its metrics.

    Args:
        probabilities: ``(n, x)``, floating point, rows summing to 1; n >= 1.

    Raises:
        ShapeError: there is no image or no class. RangeError: rows are not probabilities (NaN among them).
        DTypeError: ``probabilities`` is not floating point.

    Example:
        >>> decided = decide([[0.75, 0.25], [0.5, 0.5]])
        >>> decided.labels.tolist(), decided.scores.tolist(), decided.seen(0.7).tolist()
        ([0, 0], [0.75, 0.5], [True, False])
    """
    return decide_checked(as_probabilities("probabilities", probabilities))


def decide_checked(probabilities: Tensor) -> Decisions:
    """Return the same for what :func:`~bmrl.inference.checks.as_probabilities` returned."""
    scores, labels = probabilities.max(dim=1)
    return Decisions(labels, scores)
