"""What an importer took, left out and noticed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FILENAME", "ImportReport"]

FILENAME = "import_report.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportReport:
    """What an importer took, left out and noticed; written beside the manifest as ``import_report.json``.

    Attributes:
        source: the folder that was imported.
        images: the number of images taken, by generator and split.
        num_parsing: the number of parsing maps taken.
        skipped: path (relative to ``source``) and reason of each image that was left out.
        parsing_skipped: path and reason of each parsing map that was left out.
        ignored: the number of files that are no images by their names, by suffix; hidden files are not counted.
        duplicates: images of the very same bytes, one list each; they share a group and so a split.
        mislabeled: those of ``duplicates`` that lie in several generators' folders: all but one label must be wrong.
        warnings: what else is worth a look, such as a seen generator without training images.
    """

    source: str
    images: dict[str, dict[str, int]]
    num_parsing: int
    skipped: list[tuple[str, str]]
    parsing_skipped: list[tuple[str, str]]
    ignored: dict[str, int]
    duplicates: list[list[str]]
    mislabeled: list[list[str]]
    warnings: list[str]

    def write(self, folder: Path) -> Path:
        """Write ``folder/import_report.json`` and return its path."""
        path = folder / FILENAME
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8", errors="backslashreplace")  # file names need not be UTF-8
        return path

    def summary(self) -> str:
        """Return the figures on one line, to be printed after an import."""
        taken = sum(sum(splits.values()) for splits in self.images.values())
        return (
            f"{taken} images of {len(self.images)} generators, {self.num_parsing} parsing maps; "
            f"skipped {len(self.skipped)} images and {len(self.parsing_skipped)} maps, "
            f"ignored {sum(self.ignored.values())} other files, {len(self.duplicates)} sets of duplicates "
            f"({len(self.mislabeled)} across generators)"
        )
