"""The one data format inside bmrl: a ``manifest.csv`` that lists images and what is known of them."""

from __future__ import annotations

import csv
import io
import os
from array import array
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from pathlib import Path, PurePosixPath
from typing import cast

from bmrl._files import new_file
from bmrl._regular_files import open_regular
from bmrl._text import one_line, printable
from bmrl._values import check_choice
from bmrl.data.row import COLUMNS, REQUIRED, ROLES, SPLITS, Row
from bmrl.data.rules import check_rows
from bmrl.errors import DataError, DTypeError, MissingFileError
from bmrl.generators import Architecture, Generator, Manipulation

__all__ = ["FILENAME", "PARSING", "Manifest"]

FILENAME = "manifest.csv"
PARSING = "parsing"
"""The folder next to the images that holds their face-parsing maps."""

_VALUES = attrgetter(*COLUMNS)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A folder of images and the rows that describe them; every rule holds once it is constructed.

    Args:
        root: the folder that the paths of the rows are relative to.
        rows: at least one row.

    Raises:
        DataError: a row, or two rows together, break a rule; the message names row, column, what was expected
            and what was found. Whether the images exist is not checked here but by the data set, which skips
            and counts those that can't be read.

    Example:
        >>> row = Row("ddpm/1.png", "ddpm", "EFS", "diffusion", "seen", "train", "person 1")
        >>> Manifest(Path("faces"), (row,)).generators()
        [Generator(name='ddpm', manipulation='EFS', architecture='diffusion')]
    """

    root: Path
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))
        object.__setattr__(self, "rows", tuple(self.rows))
        check_rows(self.rows, lambda index: f"manifest row {index}", "manifest")

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Manifest:
        """Read ``folder/manifest.csv``, or the CSV file at ``folder`` itself (its folder is then the root).

        The file is UTF-8 (with or without a byte order mark), its first line names the columns in any order;
        columns that :class:`Row` does not have are left out.

        Raises:
            MissingFileError: there is no such file.
            DataError: it can't be read, is not UTF-8 or CSV, lacks a column, or breaks a rule; the message
                names file, line, column, what was expected and what was found.
        """
        if not isinstance(folder, (str, os.PathLike)):
            raise DTypeError(f"folder: expected a path, got {type(folder).__name__}")
        path = Path(folder)
        if os.path.isdir(path):  # False for what no path can be, unlike path.is_dir()
            if not os.path.lexists(path / FILENAME):
                raise MissingFileError(
                    f"{printable(str(path / FILENAME))}: expected a CSV file, got nothing at this path; "
                    "bmrl import folder makes a data folder of a folder of images"
                )
            path = path / FILENAME
        lines, rows = _parse(path)
        name = printable(str(path))
        check_rows(rows, lambda index: f"{name}, line {lines[index]}", name)
        manifest = object.__new__(cls)  # not cls(...), which would check a million rows once more
        object.__setattr__(manifest, "root", path.parent)
        object.__setattr__(manifest, "rows", rows)
        return manifest

    def write(self) -> Path:
        """Write ``root/manifest.csv`` (creating the folder) in one step, so that no reader sees half a file.

        Returns:
            The path of the file.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        path = self.root / FILENAME
        with new_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(map(_VALUES, self.rows))
        return path

    def select(self, split: str | None = None, role: str | None = None) -> list[Row]:
        """Return the rows of one split, of one role, or of both, in the manifest's order.

        Raises:
            RangeError: ``split`` or ``role`` is not such a name.
        """
        if split is not None:
            check_choice("split", split, SPLITS)
        if role is not None:
            check_choice("role", role, ROLES)
        return [row for row in self.rows if split in (None, row.split) and role in (None, row.role)]

    def generators(self, role: str | None = None) -> list[Generator]:
        """Return the generators (photographs among them), of one role or of both, sorted by name.

        Raises:
            RangeError: ``role`` is not such a name.
        """
        found = {row.generator: row for row in self.select(role=role)}
        return [
            Generator(
                name=name,
                manipulation=cast("Manipulation", row.manipulation),
                architecture=cast("Architecture", row.architecture),
            )
            for name, row in sorted(found.items())
        ]

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of images of each generator in each split; generators by name, splits with none too.

        Example:
            >>> row = Row("ddpm/1.png", "ddpm", "EFS", "diffusion", "seen", "train", "person 1")
            >>> Manifest(Path("faces"), (row,)).counts()
            {'ddpm': {'train': 1, 'val': 0, 'test': 0}}
        """
        counts = {name: dict.fromkeys(SPLITS, 0) for name in sorted({row.generator for row in self.rows})}
        for row in self.rows:
            counts[row.generator][row.split] += 1
        return counts

    def image_path(self, row: Row) -> Path:
        """Return the path of the image of ``row``."""
        return self.root / row.path

    def parsing_path(self, row: Row) -> Path:
        """Return the path of the parsing map of ``row`` if it has one: ``root/parsing/<path>.png``.

        The image's suffix gives way to ``.png``, so ``a.jpg`` and ``a.png`` in one folder would share a map.
        """
        return self.root / PARSING / PurePosixPath(row.path).with_suffix(".png")


def _parse(path: Path) -> tuple[array[int], tuple[Row, ...]]:
    """Return the line and the row of every line below the header; blank lines are left out."""
    name = printable(str(path))
    lines = array("L")
    rows: list[Row] = []
    shared: dict[str, str] = {}  # one string for all the rows that name the same generator, split or group
    line = 0
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, None)
            if header is None:
                raise DataError(f"{name}: expected the columns {', '.join(REQUIRED)}, got an empty file")
            _check_header(header, name)
            known = [column for column in COLUMNS if column in header]  # an optional one is the last
            pick = itemgetter(*(header.index(column) for column in known))
            line = reader.line_num
            for values in reader:
                first, line = line + 1, reader.line_num
                if not values:
                    continue
                if len(values) != len(header):
                    raise DataError(f"{name}, line {first}: expected {len(header)} values, got {len(values)}")
                image, *others = pick(values)
                lines.append(first)
                rows.append(Row(image, *[shared.setdefault(value, value) for value in others]))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingFileError(f"{name}: expected a CSV file, got nothing at this path") from error
    except IsADirectoryError as error:
        raise DataError(f"{name}: expected a CSV file, got a folder") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: expected UTF-8 text, got other bytes at byte {error.start}") from error
    except csv.Error as error:
        raise DataError(f"{name}, line {line + 1}: expected CSV, got: {one_line(error)}") from error
    except DataError:
        raise
    except (OSError, ValueError) as error:  # ValueError: no file can have this name
        reason = getattr(error, "strerror", None) or one_line(error)
        raise DataError(f"{name}: expected a readable file, got: {reason}") from error
    return lines, tuple(rows)


def _check_header(header: list[str], name: str) -> None:
    for separator, called in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(header) == 1 and separator in header[0]:
            raise DataError(f"{name}, line 1: expected columns separated by commas, got {called}")
    for column in COLUMNS:
        if header.count(column) != 1 and (column in header or column in REQUIRED):
            got = f"{header.count(column)} of them in {printable(', '.join(header))}"
            raise DataError(f"{name}, line 1: expected one column {column}, got {got}")
