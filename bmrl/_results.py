"""Results of the library's functions: frozen dataclasses that become plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

__all__ = ["Result", "plain"]


class Result:
    """Base of the frozen dataclasses that the library's functions return."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that JSON can hold: fields by name, paths as text, tuples as lists."""
        data: dict[str, Any] = plain(self)
        return data


def plain(value: Any) -> Any:
    """Return a value in the types that JSON has.

    Example:
        >>> from pathlib import Path
        >>> plain({"folder": Path("a/b"), "sizes": (1, 2)})
        {'folder': 'a/b', 'sizes': [1, 2]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    return str(value) if isinstance(value, PurePath) else value
