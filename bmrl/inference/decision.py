"""The decision rule, once: which class an image's probabilities name, and whether the image is seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bmrl._checks import check_shape
from bmrl.inference.checks import as_probabilities, as_scores, check_rate

if TYPE_CHECKING:
    from torch import Tensor

    from bmrl.inference.checks import Values
    from bmrl.inference.limits import Limits, Verdict

__all__ = ["Decisions", "decide", "decide_checked"]


class Decisions(NamedTuple):
    """What the probabilities of n images say, on the CPU.

    Attributes:
        labels: ``(n,)`` int64, the most probable class of each image; the lowest index where several are.
        probabilities: ``(n,)`` float64, its probability, in 1/x .. 1 for x classes.
        scores: ``(n,)`` float64, higher is more like a seen generator; the paper's is the same probability.
    """

    labels: Tensor
    probabilities: Tensor
    scores: Tensor

    def verdicts(self, limits: Limits) -> list[Verdict]:
        """Return what each image is under ``limits``, compared in float64."""
        return limits.verdicts(self.scores, self.probabilities)

    def seen(self, threshold: float) -> Tensor:
        """Return ``(n,)`` bool: whether the probability is at or above ``threshold``, compared in float64.

        That is the paper's rule, also where there are other scores.

        Raises:
            RangeError, DTypeError: ``threshold`` is not a number in 0 .. 1.
        """
        check_rate("threshold", threshold)
        return self.probabilities >= threshold


def decide(probabilities: Values, scores: Values | None = None) -> Decisions:
    """Return the most probable class of each image, its probability, and the score that says whether it is seen.

    Everything that names a generator or calls an image unseen calls this: the attributor, the clients of a server,
    and the evaluation with its metrics.

    Args:
        probabilities: ``(n, x)``, floating point, rows summing to 1; n >= 1.
        scores: ``(n,)``, floating point, as :class:`~bmrl.inference.Decider` returns them; None takes the maximum
            probabilities, the paper's rule (arXiv:2504.14129).

    Raises:
        ShapeError: there is no image or no class, or there are not as many scores as images.
        RangeError: rows are not probabilities (NaN among them).
        DTypeError: an argument is not floating point.

    Example:
        >>> decided = decide([[0.75, 0.25], [0.5, 0.5]])
        >>> decided.labels.tolist(), decided.scores.tolist(), decided.seen(0.7).tolist()
        ([0, 0], [0.75, 0.5], [True, False])
    """
    checked = as_probabilities("probabilities", probabilities)
    if scores is None:
        return decide_checked(checked)
    given = as_scores("scores", scores)
    check_shape("scores", given, "images", images=len(checked))
    return decide_checked(checked, given)


def decide_checked(probabilities: Tensor, scores: Tensor | None = None) -> Decisions:
    """Return the same for what :mod:`bmrl.inference.checks` returned."""
    largest, labels = probabilities.max(dim=1)
    return Decisions(labels, largest, largest if scores is None else scores)
