"""Names of a package that load on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bmrl._extras import missing_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["lazy_names"]


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a package.

    Args:
        package: its ``__name__``.
        homes: for each public name, the module below the package that defines it.

    Raises:
        AttributeError: (when called) the package has no such name.
        MissingExtraError: (when called) a package of an extra is not installed.
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
        except ModuleNotFoundError as error:
            missing = missing_extra(error)
            if missing is None:
                raise
            raise missing from error

    return load
