"""The rules that the rows of a manifest keep, each with the error that a breach of it raises."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from bmrl._values import described
from bmrl.data.row import ROLES, SPLITS
from bmrl.errors import BMRLError, DataError
from bmrl.generators import NAME_RULE, check_family, is_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bmrl.data.row import Row

__all__ = ["check_rows", "is_inside"]


def check_rows(rows: Sequence[Row], place: Callable[[int], str], name: str) -> None:
    """Check every row and all of them together.

    Args:
        rows: the rows in order.
        place: where the row of an index is, as an error names it.
        name: the manifest as an error names it.

    Raises:
        DataError: the first breach found, on one line.
    """
    if not rows:
        raise DataError(f"{name}: expected at least one row, got none")
    paths: dict[str, int] = {}
    families: dict[str, tuple[tuple[str, str, str], int]] = {}
    splits: dict[str, tuple[str, int]] = {}
    groups: set[str] = set()
    sources = {""}
    labels: set[tuple[str, str, str, str, str]] = set()
    # A manifest may have a million rows: what many rows share is checked where it is first met.
    for index, row in enumerate(rows):
        _check_path(row.path, place, index)
        first = paths.setdefault(_normal(row.path), index)
        if first != index:
            raise DataError(
                f"{place(index)}, column path: expected each path once, got {row.path!r} as in {place(first)}"
            )
        if row.group not in groups:
            if not row.group or row.group != row.group.strip() or not _is_stored(row.group):
                raise DataError(
                    f"{place(index)}, column group: expected a name without outer spaces, got {row.group!r}"
                )
            groups.add(row.group)
        if row.source not in sources:
            if row.source != row.source.strip() or not _is_stored(row.source):
                raise DataError(
                    f"{place(index)}, column source: expected a name without outer spaces or none, got {row.source!r}"
                )
            sources.add(row.source)

        family = (row.manipulation, row.architecture, row.role)
        label = (row.generator, *family, row.split)
        if label not in labels:
            _check_label(row, place, index)
            first_family, first = families.setdefault(row.generator, (family, index))
            if family != first_family:
                raise DataError(
                    f"{place(index)}, column generator: expected one manipulation, architecture and role for "
                    f"{row.generator!r}, got {' '.join(family)} here and {' '.join(first_family)} in {place(first)}"
                )
            labels.add(label)

        # Unseen images are tested only, so a group that they share with a training image can't be trained on twice.
        if row.role == "seen":
            first_split, first = splits.setdefault(row.group, (row.split, index))
            if row.split != first_split:
                raise DataError(
                    f"{place(index)}, column group: expected one split for the group {row.group!r}, "
                    f"got {row.split} here and {first_split} in {place(first)}"
                )


def _check_label(row: Row, place: Callable[[int], str], index: int) -> None:
    if not is_name(row.generator):
        got = described(row.generator)
        raise DataError(f"{place(index)}, column generator: expected {NAME_RULE}, got {got}")
    try:
        check_family(row.manipulation, row.architecture)
    except BMRLError as error:
        raise DataError(f"{place(index)}, column {error}") from error
    for column, value, choices in (("role", row.role, ROLES), ("split", row.split, SPLITS)):
        if value not in choices:
            raise DataError(f"{place(index)}, column {column}: expected {' or '.join(choices)}, got {value!r}")
    if row.role == "unseen" and row.split != "test":
        raise DataError(f"{place(index)}, column split: expected test for role unseen, got {row.split}")


def _check_path(path: str, place: Callable[[int], str], index: int) -> None:
    if not is_inside(path):
        raise DataError(
            f"{place(index)}, column path: expected a path relative to the manifest's folder and inside it, "
            f"with / between the parts, got {path!r}"
        )


def is_inside(path: str) -> bool:
    """Whether ``path`` names something inside the manifest's folder, on every operating system."""
    if "\\" in path or path.startswith("/") or path[1:2] == ":" or not _is_stored(path):  # C: is a drive
        return False
    parts = path.split("/")
    return ".." not in parts and any(part not in ("", ".") for part in parts)


def _normal(path: str) -> str:
    """Return the one spelling of a path that has several, such as ``./a//b``."""
    return str(PurePosixPath(path)) if "//" in path or "." in path.split("/") or path.endswith("/") else path


def _is_stored(path: str) -> bool:
    """Whether ``path`` survives a CSV file in UTF-8: no NUL, no carriage return, no byte that is not UTF-8."""
    if path.isprintable():
        return True
    return not {"\0", "\r"} & set(path) and path.encode("utf-8", "ignore").decode("utf-8") == path
