"""Text from data, such as names of files, as a message may show it."""

from __future__ import annotations

__all__ = ["one_line", "printable"]


def printable(text: str) -> str:
    r"""Return a text without characters that a terminal acts on: line breaks become ``\n``, escapes ``\x1b``."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def one_line(text: str | Exception) -> str:
    """Return a text, or what an exception says, on one printable line."""
    return printable(" ".join(str(text).split())) or type(text).__name__
