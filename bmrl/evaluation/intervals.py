"""Confidence intervals for observed shares."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist
from typing import NamedTuple

from bmrl._checks import check_integer, check_number
from bmrl.errors import RangeError

__all__ = ["Interval", "wilson_interval"]


class Interval(NamedTuple):
    """Lower and upper bound of a share, both in 0 .. 1."""

    low: float
    high: float


def wilson_interval(successes: int, total: int, *, confidence: float = 0.95) -> Interval:
    """Return Wilson's score interval for a share observed as ``successes`` of ``total`` (J. Am. Stat. Assoc. 1927).

    Unlike the textbook interval it stays within 0 .. 1 and has a width at 0 % and 100 %. It takes the images as
    independent: where several show one person or source, the truth is less certain than it says.

    Args:
        successes: 0 .. ``total``.
        total: > 0.
        confidence: strictly between 0 and 1.

    Raises:
        RangeError: a number lies outside its range. DTypeError: it is not a number, or not an integer.

    Example:
        >>> low, high = wilson_interval(8, 10)
        >>> round(low, 3), round(high, 3)
        (0.49, 0.943)
    """
    check_integer("total", total, least=1)
    check_integer("successes", successes)
    if not 0 <= successes <= total:
        raise RangeError(f"successes: expected 0 .. {total}, got {successes}")
    check_number("confidence", confidence)
    if not 0 < confidence < 1:
        raise RangeError(f"confidence: expected between 0 and 1, got {confidence}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / total
    middle = share + z**2 / (2 * total)
    half = z * sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    scale = 1 + z**2 / total
    low, high = (middle - half) / scale, (middle + half) / scale
    return Interval(min(share, max(0.0, low)), max(share, min(1.0, high)))  # rounding must not break 0 <= low <= share
