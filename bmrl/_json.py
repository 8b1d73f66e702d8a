"""Reading JSON that others may have written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

from bmrl.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["parse_json", "read_json"]

MAX_BYTES = 16 * 2**20


def read_json(path: Path) -> Any:
    """Return what a UTF-8 file of JSON holds, with or without a byte-order mark.

    Raises:
        ConfigError: it can't be read, is larger than 16 MiB, or is not what :func:`parse_json` takes.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: expected a file of JSON, got {error.strerror or error}") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path}: expected at most {MAX_BYTES} bytes of JSON, got more")
    try:
        return parse_json(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected JSON in UTF-8, got {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def parse_json(text: str) -> Any:
    """Return what a text of JSON holds.

    Raises:
        ConfigError: it is not JSON, names a key twice, holds NaN or Infinity, which JSON does not know, is nested too
            deeply or holds a number of thousands of digits.
    """
    try:
        return json.loads(text, object_pairs_hook=_distinct, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        reason = "one nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise ConfigError(f"expected JSON, got {reason}") from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} twice")
    return made


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant}, which JSON does not know")
