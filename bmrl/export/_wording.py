"""Words of strangers, such as a server or an engine, in our messages."""

from __future__ import annotations

__all__ = ["shown"]

LONGEST = 300  # characters


def shown(what: object) -> str:
    r"""Return a text as it may stand in a message: on one line, cut, what a terminal would act on as ``\x1b``.

    Of an error without a text it is the name of its class.
    """
    text = str(what)
    if isinstance(what, BaseException) and not text.strip():
        text = type(what).__name__
    line = " ".join(text[: 2 * LONGEST].split())
    line = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."
