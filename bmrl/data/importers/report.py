"""What an importer took, left out and noticed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bmrl._results import Result
from bmrl.data.manifest import FILENAME as MANIFEST

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FILENAME", "ImportReport"]

FILENAME = "import_report.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportReport(Result):
    """What an importer took, left out and noticed; written next to the manifest as ``import_report.json``.

    Attributes:
        source: the folder that was imported.
        folder: the new data folder, which ``Manifest.read`` takes.
        images: the number of images taken, by generator and split.
        num_parsing: the number of parsing maps taken.
        skipped: path (relative to ``source``) and reason of each image that was left out.
        parsing_skipped: path and reason of each parsing map that was left out.
        ignored: the number of files that are not images by their names, by suffix; hidden files are not counted.
        duplicates: images of identical bytes, one list per set; they share a group and so a split.
        mislabeled: those of ``duplicates`` that are under several generators: all but one label must be wrong.
        warnings: what else needs attention, such as a seen generator without training images.
    """

    source: Path
    folder: Path
    images: dict[str, dict[str, int]]
    num_parsing: int
    skipped: list[tuple[str, str]]
    parsing_skipped: list[tuple[str, str]]
    ignored: dict[str, int]
    duplicates: list[list[str]]
    mislabeled: list[list[str]]
    warnings: list[str]

    @property
    def manifest(self) -> Path:
        """The path of the manifest."""
        return self.folder / MANIFEST

    @property
    def num_images(self) -> int:
        """The number of images taken."""
        return sum(sum(splits.values()) for splits in self.images.values())

    def write(self) -> Path:
        """Write ``import_report.json`` into the data folder and return its path."""
        path = self.folder / FILENAME
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8", errors="backslashreplace")  # file names need not be UTF-8
        return path

    def summary(self) -> str:
        """Return the counts on one line, to be printed after an import."""
        return (
            f"{self.num_images} images of {len(self.images)} generators, {self.num_parsing} parsing maps; "
            f"skipped {len(self.skipped)} images and {len(self.parsing_skipped)} maps, "
            f"ignored {sum(self.ignored.values())} other files, {len(self.duplicates)} sets of duplicates "
            f"({len(self.mislabeled)} across generators)"
        )
