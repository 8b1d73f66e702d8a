"""Text from elsewhere, such as file names or a server's messages, made safe to show in a message."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unicodedata import east_asian_width

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["columns", "one_line", "printable", "shown"]

LONGEST = 300  # characters


def printable(text: str) -> str:
    r"""Return a text without characters that a terminal acts on: line breaks become ``\n``, escapes ``\x1b``."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def one_line(text: str | Exception) -> str:
    """Return a text, or what an exception says, on one printable line."""
    return printable(" ".join(str(text).split())) or type(text).__name__


def shown(what: object) -> str:
    r"""Return a text as a message may show it: on one line, cut, with what a terminal would act on as ``\x1b``.

    Of an error without a text it is the name of its class.
    """
    text = str(what)
    if isinstance(what, BaseException) and not text.strip():
        text = type(what).__name__
    line = " ".join(text[: 2 * LONGEST].split())
    line = printable(line)
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


def columns(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of cells as aligned columns, two spaces apart; a wide character takes two places.

    Example:
        >>> print(columns([("", "a"), ("first", "1.0"), ("second", "0.5")]))
                a
        first   1.0
        second  0.5
    """
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _width(text: str) -> int:
    return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)
