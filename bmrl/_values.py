"""Checks of plain values, without PyTorch: one wording, ``argument: expected X, got Y``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmrl.errors import DTypeError, RangeError

if TYPE_CHECKING:
    from collections.abc import Collection


def check_path(name: str, value: Any) -> Path:
    """Return a path of text as a Path; whether it exists is not checked.

    Raises:
        DTypeError: it is not a path, or a path of bytes.
        RangeError: it is empty, or holds a null character.
    """
    if not isinstance(value, str | os.PathLike) or isinstance(os.fspath(value), bytes):
        raise DTypeError(f"{name}: expected a path, got {described(value)}")
    if not os.fspath(value) or "\0" in os.fspath(value):
        raise RangeError(f"{name}: expected a path, got {described(os.fspath(value))}")
    return Path(value)


def check_switch(name: str, value: Any) -> None:
    """Check for True or False; any other value, such as "false" or a module, would count as True."""
    if not isinstance(value, bool):
        raise DTypeError(f"{name}: expected True or False, got {described(value)}")


def described(value: Any) -> str:
    """Return the repr of a plain value, or the type's name of any other; a class is called one."""
    plain = value is None or isinstance(value, bool | int | float | complex | str | bytes)
    other = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
    try:
        text = repr(value) if plain else other
    except ValueError:  # Python writes no integer of more than 4,300 digits
        text = "an integer of thousands of digits"
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_choice(name: str, value: Any, choices: Collection[Any]) -> None:
    """Check that ``value`` is one of ``choices``, and of the same type: True is not 1."""
    if not any(
        isinstance(value, type(choice)) and not isinstance(value, bool) and value == choice for choice in choices
    ):
        raise RangeError(f"{name}: expected {' or '.join(repr(choice) for choice in choices)}, got {described(value)}")
