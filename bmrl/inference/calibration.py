"""Guarantees by calibration: the temperature, conformal limits of the score, and the risk of a wrong name."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from bmrl._checks import check_shape, check_share
from bmrl.errors import ConfigError, RangeError
from bmrl.inference.checks import as_scores, check_rate
from bmrl.inference.limits import Limits

if TYPE_CHECKING:
    from torch import Tensor

    from bmrl.inference.checks import Values
    from bmrl.models import CalibrationAnswers, FittedDecision
    from bmrl.models.parts import DecisionConfig

__all__ = [
    "Outcome",
    "RiskCoverage",
    "check_calibratable",
    "conformal_limit",
    "fit_temperature",
    "limits_for",
    "outcomes",
    "risk_coverage",
    "risk_limit",
]


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature by which dividing the logits makes the labels most likely.

    One number for all classes: the most probable class of each image stays.

    Args:
        logits: ``(n, x)`` floating point, of images that the model was not trained on.
        labels: ``(n,)`` int64, their classes.

    Returns:
        In 0.05 .. 20.

    Raises:
        ShapeError: the sizes differ. RangeError: there is no image.

    Source: Guo et al., arXiv:1706.04599.

    Example:
        >>> logits = torch.tensor([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [4.0, 0.0]])
        >>> round(fit_temperature(logits, torch.tensor([0, 0, 0, 1])), 3)  # three of four: log 3 = 4 / T
        3.641
    """
    check_shape("logits", logits, "images generators")
    check_shape("labels", labels, "images", images=len(logits))
    if not len(logits):
        raise RangeError("logits: expected at least one image, got none")
    logits = logits.detach().double().cpu()
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [log_temperature], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-10, tolerance_change=1e-12
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        with torch.enable_grad():
            value = torch.nn.functional.cross_entropy(logits / log_temperature.exp(), labels.cpu())
            value.backward()
        return value

    optimizer.step(loss)
    return min(max(math.exp(log_temperature.item()), 0.05), 20.0)


def conformal_limit(scores: Values, accept: float) -> float:
    r"""Return the limit that the score of a new seen picture reaches with a probability of at least ``accept``.

    Split conformal prediction: of n calibration pictures exchangeable with the new one, the limit lies in the middle
    between the k-th smallest score, :math:`k = \lfloor (1 - accept)(n + 1) \rfloor`, and the next smaller one. (At the
    score itself, rounding would decide about that picture.)

    Args:
        scores: ``(n,)`` of seen pictures that neither the model nor the score was fitted to.
        accept: in 0 .. 1.

    Returns:
        The limit; an image passes when its score is at or above it.

    Raises:
        ConfigError: ``accept`` takes more than n pictures; the message says how many.
        RangeError, ShapeError, DTypeError: ``accept`` or ``scores`` do not fit.

    Source: Vovk et al., Algorithmic Learning in a Random World (2005); Bates et al., arXiv:2104.08279.

    Example:
        >>> conformal_limit([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], accept=0.8)
        1.5
    """
    check_rate("accept", accept)
    ordered = as_scores("scores", scores).sort().values
    _check_enough("accept", accept, 1 - accept, len(ordered))
    rank = math.floor((1 - accept) * (len(ordered) + 1) + 1e-9)  # .1 * 10 is less than 1
    place = min(rank, len(ordered)) - 1
    limit = float(ordered[place])
    if place:
        return (float(ordered[place - 1]) + limit) / 2
    return limit - (float(ordered[1]) - limit) / 2 if len(ordered) > 1 else limit


def risk_limit(probabilities: Values, right: Tensor, max_error: float) -> float:
    r"""Return the probability from which on a name may be said, so that wrong ones stay at or below ``max_error``.

    Conformal risk control: for n calibration pictures exchangeable with a new one, the smallest :math:`\lambda` with
    :math:`(n R(\lambda) + 1) / (n + 1) \le max\_error`, where :math:`R(\lambda)` is the share of pictures whose most
    probable class is wrong and has at least the probability :math:`\lambda`. A new picture then gets a wrong name with
    a probability of at most ``max_error``: of all seen pictures, not of those that are named.

    Args:
        probabilities: ``(n,)`` in 0 .. 1, of the most probable class.
        right: ``(n,)`` bool, whether that is the picture's class.
        max_error: > 0 and < 1.

    Returns:
        In 0 .. 1, in the middle between two probabilities that occur, or 1; pictures are named at or above it.

    Raises:
        ConfigError: ``max_error`` takes more than n pictures, or the model is sure of its errors at probability 1.
        RangeError, ShapeError, DTypeError: an argument does not fit.

    Source: Angelopoulos et al., arXiv:2208.02814.

    Example:
        >>> probabilities = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.96, 0.97, 0.98]
        >>> limit = risk_limit(probabilities, torch.tensor([False, True, False, *[True] * 6]), max_error=0.2)
        >>> 0.5 < limit <= 0.6  # one of the two errors may stay: (1 + 1) / 10
        True
    """
    check_share("max_error", max_error)
    values = as_scores("probabilities", probabilities)
    check_shape("right", right, "images", images=len(values))
    n = len(values)
    _check_enough("max_error", max_error, max_error, n)
    allowed = math.floor(max_error * (n + 1) + 1e-9) - 1
    wrong = values[~right.cpu()].sort(descending=True).values
    if len(wrong) <= allowed:
        return 0.0
    first = wrong[allowed]  # the surest error that may not stay
    if first == 1:
        raise ConfigError(
            f"max_error: expected a model whose errors can be told by their probability, got more than {allowed} of "
            f"{n} calibration pictures named wrongly with a probability of 1"
        )
    above = values[values > first]
    lower, upper = float(first), float(above.min()) if len(above) else 1.0
    middle = (lower + upper) / 2
    return middle if middle > lower else upper  # of neighboring numbers, rounding may give back the error's own


def check_calibratable(num_pictures: int, asked: DecisionConfig) -> None:
    """Check that there are enough calibration pictures for what is asked of a decision.

    Raises:
        ConfigError: there are not; the message says how many it takes.
    """
    for name, value in (("accept", asked.accept), ("typical", asked.typical)):
        _check_enough(name, value, 1 - value, num_pictures)
    _check_enough("max_error", asked.max_error, asked.max_error, num_pictures)


def _check_enough(name: str, value: float, share: float, num_pictures: int) -> None:
    """Check that a share of n + 1 pictures is one picture at least; 1 - .9 is a little less than .1."""
    if share * (num_pictures + 1) < 1 - 1e-9:
        needed = "infinitely many" if share <= 0 else f"{math.ceil(1 / share - 1e-9) - 1}"
        raise ConfigError(f"{name}: expected {needed} calibration pictures or more for {value:g}, got {num_pictures}")


def limits_for(fitted: FittedDecision, *, accept: float, typical: float, max_error: float) -> Limits:
    """Return the limits that give what is asked for: ``accept`` and ``max_error`` in every version of the pictures.

    Args:
        fitted: what was answered about the calibration pictures.
        accept: the share of seen pictures that may not be called unseen, see :func:`conformal_limit`.
        typical: the share of seen pictures, in all versions together, whose score is high enough for a name, at most
            ``accept``. In the strictest version alone, one that leaves no trace of a generator would let any score
            pass.
        max_error: the share of seen pictures that may get a wrong name, see :func:`risk_limit`. That a name also takes
            a score of at least ``seen`` only makes wrong ones fewer.

    Shares are of all seen pictures together, in the mix of the calibration pictures, and not of each class.

    Raises:
        ConfigError: what is asked for takes more calibration pictures than there were.
        RangeError, DTypeError: a value is out of range.
    """
    check_rate("accept", accept)
    check_rate("typical", typical)
    if typical > accept:
        raise RangeError(f"typical: expected at most accept {accept:g}, got {typical:g}")
    answers = fitted.answers
    unseen = min(conformal_limit(scores, accept) for scores in answers.scores)
    return Limits(
        unseen=unseen,
        seen=max(unseen, conformal_limit(answers.scores.flatten(), typical)),
        probability=max(
            risk_limit(probabilities, right, max_error)
            for probabilities, right in zip(answers.probabilities, answers.right, strict=True)
        ),
        score=fitted.score,
        accept=float(accept),
        typical=float(typical),
        max_error=float(max_error),
    )


class Outcome(NamedTuple):
    """What became of pictures of seen generators: shares in 0 .. 1 that sum to 1."""

    right: float
    """Named, and rightly."""
    wrong: float
    """Named, and wrongly."""
    uncertain: float
    """Neither named nor called unseen."""
    unseen: float
    """Called unseen, although their generators are seen."""


def outcomes(answers: CalibrationAnswers, limits: Limits) -> dict[str, Outcome]:
    """Return what becomes of the calibration pictures, by the name of their version.

    These are the pictures that the limits were chosen on: new ones fare a little worse.

    Args:
        answers: about the calibration pictures.
        limits: by which is decided.
    """
    found = {}
    for version, scores, probabilities, right in zip(
        answers.versions, answers.scores, answers.probabilities, answers.right.tolist(), strict=True
    ):
        verdicts = limits.verdicts(scores, probabilities)
        named = [correct for verdict, correct in zip(verdicts, right, strict=True) if verdict == "seen"]
        counts = sum(named), len(named) - sum(named), verdicts.count("uncertain"), verdicts.count("unseen")
        found[version] = Outcome(*(count / len(verdicts) for count in counts))
    return found


class RiskCoverage(NamedTuple):
    """The error among the pictures that are answered, as fewer are."""

    coverage: Tensor
    """``(m,)`` float64 in 0 .. 1, ascending: the share of pictures that are answered."""
    risk: Tensor
    """``(m,)`` float64 in 0 .. 1: the share of wrong answers among them."""
    area: float
    """The mean risk over all numbers of answered pictures (AURC): 0 .. 1, lower is better."""


def risk_coverage(scores: Values, right: Tensor) -> RiskCoverage:
    """Return how the error falls when the pictures of the lowest scores are not answered.

    Pictures of one score are answered together.

    Args:
        scores: ``(n,)``, by which pictures are answered first.
        right: ``(n,)`` bool, whether the answer is right.

    Raises:
        RangeError, ShapeError, DTypeError: the arguments do not fit.

    Source: Geifman and El-Yaniv, arXiv:1705.08500; Geifman et al., arXiv:1805.08206 (AURC).

    Example:
        >>> curve = risk_coverage([0.9, 0.8, 0.7, 0.6], torch.tensor([True, True, False, True]))
        >>> curve.coverage.tolist(), [round(value, 3) for value in curve.risk.tolist()]
        ([0.25, 0.5, 0.75, 1.0], [0.0, 0.0, 0.333, 0.25])
    """
    values = as_scores("scores", scores)
    check_shape("right", right, "images", images=len(values))
    levels, places = torch.unique(-values, return_inverse=True)  # ascending, so that the highest score comes first
    counts = torch.zeros(len(levels), dtype=torch.float64).index_add_(0, places, torch.ones_like(values))
    wrong = torch.zeros(len(levels), dtype=torch.float64).index_add_(0, places, (~right.cpu()).double())
    answered, errors = counts.cumsum(0), wrong.cumsum(0)
    risk = errors / answered
    return RiskCoverage(answered / len(values), risk, float((risk * counts).sum() / len(values)))
