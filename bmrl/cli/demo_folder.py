"""The folder of ``bmrl demo``: an earlier demo's files are known by size and time; no others are removed."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Any

from bmrl._files import CLAIM, remove_leftovers, write_text
from bmrl.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MARK", "clear", "record"]

MARK = ".bmrl-demo"


def _contents(folder: Path) -> dict[str, list[int] | None]:
    """Return size and time of change of each file below ``folder`` without our marks, and None for each folder."""
    found: dict[str, list[int] | None] = {}
    for path in sorted(folder.rglob("*")):
        name, status = str(path.relative_to(folder)), path.lstat()
        if name not in (MARK, CLAIM):
            found[name] = None if stat.S_ISDIR(status.st_mode) else [status.st_size, status.st_mtime_ns]
    return found


def record(folder: Path) -> None:
    """Remember what the demo made, so that the next one removes nothing else."""
    content = {"note": "bmrl demo made these files, and replaces them when it runs again", "made": _contents(folder)}
    write_text(folder / MARK, json.dumps(content, indent=1) + "\n")


def clear(folder: Path) -> None:
    """Make ``folder`` empty if it is new, empty, or holds what an earlier demo left and nothing else.

    Raises:
        ConfigError: it holds anything else; nothing is changed then.
    """
    remove_leftovers(folder / MARK)
    found = _contents(folder)
    made = _made(folder / MARK)
    foreign = [name for name, state in found.items() if name not in made or made[name] != state]
    if foreign:
        raise ConfigError(
            f"out: expected a new or empty folder, or what an earlier demo left in it, got {folder / foreign[0]}, "
            "which is not, or was changed since; move it away, or give another folder"
        )
    for name in reversed(found):
        path = folder / name
        if found[name] is None:
            path.rmdir()  # refuses to remove what came into it just now
        else:
            path.unlink()
    (folder / MARK).unlink(missing_ok=True)
    record(folder)


def _made(mark: Path) -> dict[str, Any]:
    """Return what an earlier demo made; nothing if there was none or its mark can't be read."""
    try:
        made = json.loads(mark.read_text(encoding="utf-8"))["made"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return made if isinstance(made, dict) else {}
