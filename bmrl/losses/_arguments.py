"""Checks of the numbers that losses take next to their batches."""

from __future__ import annotations

import math

from bmrl._checks import check_integer, check_not_negative, check_number, check_positive
from bmrl.errors import RangeError

__all__ = ["check_count", "check_finite_number", "check_finite_positive", "check_weight"]


def check_finite_number(name: str, value: float) -> None:
    """Check for a number that is neither infinite nor NaN."""
    check_number(name, value)
    if not -math.inf < value < math.inf:
        raise RangeError(f"{name}: expected a finite number, got {value}")


def check_finite_positive(name: str, value: float) -> None:
    """Check for a finite number above zero."""
    check_positive(name, value)
    check_finite_number(name, value)


def check_weight(name: str, value: float) -> None:
    """Check for a finite number, zero or above."""
    check_not_negative(name, value)
    check_finite_number(name, value)


def check_count(name: str, value: int | None, *, optional: bool = False) -> None:
    """Check for an integer above zero, or None where that is allowed."""
    if value is not None or not optional:
        check_integer(name, value, least=1)
