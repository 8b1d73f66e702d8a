"""What a claim is, and how numbers are written in it."""

from __future__ import annotations

from typing import NamedTuple


class Claim(NamedTuple):
    """A piece of a page, which must be there word for word."""

    page: str
    text: str


def significant(value):
    """Return a number with three significant digits, as the tables have it."""
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ratio(median, low, high, write=significant):
    return f"{write(median)} ({write(low)}-{write(high)})"
