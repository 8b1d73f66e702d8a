"""The one data format inside bmrl: a ``manifest.csv`` that lists images and what is known of them."""

from __future__ import annotations

import contextlib
import csv
import os
from dataclasses import astuple, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import cast

from bmrl._checks import check_choice
from bmrl.data._manifest_rules import ROLES, SPLITS, check_rows
from bmrl.errors import DataError, MissingFileError
from bmrl.models.config import Architecture, Generator, Manipulation

__all__ = ["FILENAME", "Manifest", "Row"]

FILENAME = "manifest.csv"


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a manifest; the rules are checked by :class:`Manifest`, which sees all rows.

    Attributes:
        path: the image, relative to the manifest's folder, with ``/`` between the parts.
        generator: the label to attribute: the name of what made the image.
        manipulation: ``none`` (a photograph), ``EFS`` (entire face synthesis), ``FS`` (face swap) or ``AM``
            (attribute manipulation).
        architecture: ``none`` (a photograph), ``GAN`` or ``diffusion``.
        role: ``seen`` (may be trained on) or ``unseen`` (tested only).
        split: ``train``, ``val`` or ``test``.
        group: images that share a person, a source picture or a video share this name; the seen images of
            one group all lie in one split.
    """

    path: str
    generator: str
    manipulation: str
    architecture: str
    role: str
    split: str
    group: str


COLUMNS = tuple(field.name for field in fields(Row))


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
        check_rows(self.rows, [f"manifest row {index}" for index in range(len(self.rows))], "manifest")

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
        path = Path(folder)
        if path.is_dir():
            path = path / FILENAME
        if not path.exists():
            raise MissingFileError(f"{path}: expected a CSV file, got nothing at this path")
        places, rows = _parse(path)
        check_rows(rows, places, str(path))
        return cls(path.parent, tuple(rows))

    def write(self) -> Path:
        """Write ``root/manifest.csv`` (creating the folder) in one step, so that no reader sees half a file.

        Returns:
            The path of the file.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        path = self.root / FILENAME
        temporary = self.root / f".{FILENAME}.{os.getpid()}"
        try:
            with temporary.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(COLUMNS)
                writer.writerows(map(astuple, self.rows))
            temporary.replace(path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
        return path

    def select(self, split: str | None = None, role: str | None = None) -> list[Row]:
        """Return the rows of one split, of one role, or of both, in the manifest's order.

        Raises:
            RangeError: ``split`` or ``role`` is no such name.
        """
        if split is not None:
            check_choice("split", split, SPLITS)
        if role is not None:
            check_choice("role", role, ROLES)
        return [row for row in self.rows if split in (None, row.split) and role in (None, row.role)]

    def generators(self, role: str | None = None) -> list[Generator]:
        """Return the generators (photographs among them), of one role or of both, sorted by name.

        Raises:
            RangeError: ``role`` is no such name.
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

    def image_path(self, row: Row) -> Path:
        """Return where the image of ``row`` lies."""
        return self.root / row.path

    def parsing_path(self, row: Row) -> Path:
        """Return where the parsing map of ``row`` lies if it has one: ``root/parsing/<path>.png``.

        The image's suffix gives way to ``.png``, so ``a.jpg`` and ``a.png`` in one folder would share a map.
        """
        return self.root / "parsing" / PurePosixPath(row.path).with_suffix(".png")


def _parse(path: Path) -> tuple[list[str], list[Row]]:
    """Return the place ("file, line n") and the row of every line below the header; blank lines are left out."""
    places: list[str] = []
    rows: list[Row] = []
    line = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, None)
            if header is None:
                raise DataError(f"{path}: expected the columns {', '.join(COLUMNS)}, got an empty file")
            for column in COLUMNS:
                if header.count(column) != 1:
                    got = f"{header.count(column)} of them in {', '.join(header)}"
                    raise DataError(f"{path}, line 1: expected one column {column}, got {got}")
            positions = [header.index(column) for column in COLUMNS]
            line = reader.line_num
            for values in reader:
                line, place = reader.line_num, f"{path}, line {line + 1}"
                if not values:
                    continue
                if len(values) != len(header):
                    raise DataError(f"{place}: expected {len(header)} values, got {len(values)}")
                places.append(place)
                rows.append(Row(*(values[position] for position in positions)))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8 text, got other bytes at byte {error.start}") from error
    except csv.Error as error:
        raise DataError(f"{path}, line {line + 1}: expected CSV, got: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: expected a readable file, got: {error.strerror}") from error
    return places, rows
