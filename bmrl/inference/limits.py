"""The limits between seen, uncertain and unseen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from bmrl._checks import check_number
from bmrl._results import Result
from bmrl.errors import RangeError
from bmrl.inference.checks import check_rate

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MAX_PROBABILITY", "VERDICTS", "Limits", "Verdict"]

MAX_PROBABILITY = "max_probability"
"""The name of the paper's score."""

Verdict = Literal["seen", "unseen", "uncertain"]
VERDICTS: tuple[Verdict, ...] = ("seen", "uncertain", "unseen")


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits(Result):
    """What an image must reach for a name to be said.

    An image whose score is below ``unseen`` is unseen. One is seen, and its generator is named, if the score reaches
    ``seen`` and the probability of its most probable class reaches ``probability``. Any other is uncertain.

    Attributes:
        unseen: of the score; below it, an image is called unseen.
        seen: of the score, at least ``unseen``.
        probability: in 0 .. 1.
        score: the name of the score, see :data:`bmrl.inference.scores.SCORES`.
        accept: the share of seen pictures whose score reaches ``unseen``, if the limit was chosen for one.
        typical: the share of seen pictures whose score reaches ``seen``, if the limit was chosen for one.
        max_error: the share of seen pictures that get a wrong name, at most, if ``probability`` was chosen for one.

    Raises:
        RangeError, DTypeError: a value is out of range, not finite or of another type.

    Example:
        >>> limits = Limits(unseen=0.2, seen=0.6, probability=0.9)
        >>> limits.verdicts(torch.tensor([0.1, 0.3, 0.7, 0.7]), torch.tensor([0.95, 0.95, 0.95, 0.5]))
        ['unseen', 'uncertain', 'seen', 'uncertain']
    """

    unseen: float
    seen: float
    probability: float
    score: str = MAX_PROBABILITY
    accept: float | None = None
    typical: float | None = None
    max_error: float | None = None

    def __post_init__(self) -> None:
        for name in ("unseen", "seen"):
            value = getattr(self, name)
            check_number(name, value)
            if not abs(value) < float("inf"):
                raise RangeError(f"{name}: expected a finite number, got {value}")
        if self.seen < self.unseen:
            raise RangeError(f"seen: expected at least unseen {self.unseen}, got {self.seen}")
        check_rate("probability", self.probability)
        for name in ("accept", "typical", "max_error"):
            if getattr(self, name) is not None:
                check_rate(name, getattr(self, name))

    @classmethod
    def of_threshold(cls, threshold: float) -> Limits:
        """Return the paper's rule: seen from a maximum probability of ``threshold`` on, else unseen.

        Raises:
            RangeError, DTypeError: ``threshold`` is not a number in 0 .. 1.
        """
        check_rate("threshold", threshold)
        return cls(unseen=float(threshold), seen=float(threshold), probability=0.0)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Limits:
        """Return the limits of what :meth:`to_dict` gave.

        Raises:
            RangeError, DTypeError: a value does not fit, or a field is missing or unknown.
        """
        try:
            return cls(**data)
        except TypeError as error:
            if type(error) is not TypeError:
                raise
            raise RangeError(f"limits: expected the fields of Limits, got {', '.join(map(str, data))}") from error

    def verdicts(self, scores: Tensor, probabilities: Tensor) -> list[Verdict]:
        """Decide about n images, in float64.

        Args:
            scores: ``(n,)`` floating point.
            probabilities: ``(n,)`` floating point, of the most probable class.
        """
        scores, probabilities = scores.double(), probabilities.double()
        seen = (scores >= self.seen) & (probabilities >= self.probability)
        places = torch.where(seen, 0, torch.where(scores < self.unseen, 2, 1))
        return [VERDICTS[place] for place in places.tolist()]

    def reason(self, verdict: Verdict, score: float, probability: float) -> str:
        """Say in words why an image got its verdict; numbers have as many digits as it takes to tell them apart."""
        if self.score == MAX_PROBABILITY and self.unseen == self.seen and not self.probability:
            sign = "below" if verdict == "unseen" else "not below"
            return f"probability {_shown(probability, self.unseen)[0]} is {sign} the threshold {self.unseen:.15g}"
        risk = "" if self.max_error is None else (
            f", a limit at which at most {_percent(self.max_error)} of all seen pictures get a wrong name"
        )  # fmt: skip
        if verdict == "unseen":
            return f"score {_compared(score, self.unseen, 'is below')}{_share(self.accept)}"
        if verdict == "seen":
            reached = _compared(probability, self.probability, "reaches")
            return f"score {_compared(score, self.seen, 'reaches')}, and probability {reached}{risk}"
        if score < self.seen:
            return f"score {_compared(score, self.seen, 'is below')}{_share(self.typical)}"
        return f"probability {_compared(probability, self.probability, 'is below')}{risk}"


def _compared(value: float, limit: float, verb: str) -> str:
    return f" {verb} ".join(_shown(value, limit))


def _shown(value: float, limit: float) -> tuple[str, str]:
    """Return both numbers with three digits after the point, or more where both would read the same."""
    for digits in range(3, 18):
        shown = f"{value:z.{digits}f}", f"{limit:z.{digits}f}"
        if (float(shown[0]) < float(shown[1])) == (float(shown[0]) < limit) == (value < limit):
            return shown
    return repr(value), repr(limit)


def _share(share: float | None) -> str:
    return "" if share is None else f", which at least {_percent(share)} of seen pictures reach"


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
