"""The rules that the rows of a manifest keep, each with the error that a breach of it raises."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, get_args

from bmrl.errors import DataError
from bmrl.models.config import Architecture, Manipulation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bmrl.data.manifest import Row

MANIPULATIONS: tuple[str, ...] = get_args(Manipulation)
ARCHITECTURES: tuple[str, ...] = get_args(Architecture)
ROLES = ("seen", "unseen")
SPLITS = ("train", "val", "test")


def check_rows(rows: Sequence[Row], places: Iterable[str], name: str) -> None:
    """Check every row and all of them together.

    Args:
        rows: the rows in order.
        places: where each row stands, as an error shall name it.
        name: the manifest as an error shall name it.

    Raises:
        DataError: the first breach found, on one line.
    """
    if not rows:
        raise DataError(f"{name}: expected at least one row, got none")
    paths: dict[PurePosixPath, str] = {}
    families: dict[str, tuple[tuple[str, str, str], str]] = {}
    splits: dict[str, tuple[str, str]] = {}
    for row, place in zip(rows, places, strict=True):
        _check_row(row, place)
        first_place = paths.setdefault(PurePosixPath(row.path), place)
        if first_place is not place:
            raise DataError(f"{place}, column path: expected each path once, got {row.path!r} as in {first_place}")

        family = (row.manipulation, row.architecture, row.role)
        first_family, first_place = families.setdefault(row.generator, (family, place))
        if family != first_family:
            raise DataError(
                f"{place}, column generator: expected one manipulation, architecture and role for {row.generator!r}, "
                f"got {' '.join(family)} here and {' '.join(first_family)} in {first_place}"
            )

        # Unseen images are tested only, so a group that they share with a training image can't be trained on twice.
        if row.role == "seen":
            first_split, first_place = splits.setdefault(row.group, (row.split, place))
            if row.split != first_split:
                raise DataError(
                    f"{place}, column group: expected one split for the group {row.group!r}, "
                    f"got {row.split} here and {first_split} in {first_place}"
                )


def _check_row(row: Row, place: str) -> None:
    _check_path(row.path, place)
    for column, name in (("generator", row.generator), ("group", row.group)):
        if not name or name != name.strip() or not is_text(name):
            raise DataError(f"{place}, column {column}: expected a name without outer spaces, got {name!r}")
    for column, value, choices in (
        ("manipulation", row.manipulation, MANIPULATIONS),
        ("architecture", row.architecture, ARCHITECTURES),
        ("role", row.role, ROLES),
        ("split", row.split, SPLITS),
    ):
        if value not in choices:
            raise DataError(f"{place}, column {column}: expected {' or '.join(choices)}, got {value!r}")
    if (row.manipulation == "none") != (row.architecture == "none"):
        raise DataError(
            f"{place}, column architecture: expected manipulation and architecture none for a photograph and neither "
            f"for a generator, got manipulation {row.manipulation} and architecture {row.architecture}"
        )
    if row.role == "unseen" and row.split != "test":
        raise DataError(f"{place}, column split: expected test for role unseen, got {row.split}")


def _check_path(path: str, place: str) -> None:
    """Check that ``path`` names something inside the manifest's folder, on every operating system."""
    inside = bool(PurePosixPath(path).name) and ".." not in PurePosixPath(path).parts
    absolute = PurePosixPath(path).is_absolute() or PureWindowsPath(path).drive
    if not inside or absolute or "\\" in path or not is_text(path):
        raise DataError(
            f"{place}, column path: expected a path relative to the manifest's folder and inside it, "
            f"with / between the parts, got {path!r}"
        )


def is_text(value: str) -> bool:
    r"""Whether ``value`` survives a CSV file in UTF-8: no NUL, no carriage return, no stray byte of a file name."""
    return not {"\0", "\r"} & set(value) and value.encode("utf-8", "ignore").decode("utf-8") == value
