"""Where the images of each generator are in a folder that is to be imported."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from bmrl._text import printable
from bmrl._values import described
from bmrl.data.finding import UNSUPPORTED, find_files, is_hidden
from bmrl.data.importers.families import rule_of
from bmrl.data.importers.known import names_photographs
from bmrl.data.manifest import PARSING
from bmrl.errors import DataError, MissingFileError
from bmrl.generators import NAME_RULE, is_name
from bmrl.images import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from bmrl.data.importers.families import GeneratorRule

__all__ = ["PHOTOGRAPHS", "FoundImage", "Layout", "read_layout", "similar_names"]

PHOTOGRAPHS = "real"
"""The class of photographs in a generator's folder."""

_SPLIT_FOLDERS = frozenset(("train", "training", "val", "valid", "validation", "dev", "test", "testing"))
_FAKES = re.compile(r"([0-9]+_)?fakes?|ai", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An image of the source.

    Attributes:
        path: relative to the source.
        below: relative to its generator's folder.
    """

    path: PurePosixPath
    below: PurePosixPath


@dataclass(slots=True)
class Layout:
    """The contents of a source folder.

    Attributes:
        images: those of each generator.
        ignored: the number of other files, by suffix.
        skipped: path and reason of what was left out.
        warnings: what was not taken by its folder's name.
    """

    images: dict[str, list[FoundImage]] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_layout(source: Path, said: Mapping[str, GeneratorRule]) -> Layout:
    """Return the images of each generator's folder.

    The folders of ``source`` are the generators, or all of them are splits (``train``, ``val``, ``test``) and hold the
    generators' folders. In a generator's folder, but not in one of photographs, a sub-folder named as photographs are
    holds photographs.

    Args:
        source: the folder to import.
        said: what the user said of the folders; one of them may have the name of a split.

    Raises:
        MissingFileError: there is no such folder.
        DataError: there is no folder in it, one has a name that no generator may have, some are splits and others not,
            or photographs have a folder of fakes.
    """
    if not os.path.isdir(source):
        raise MissingFileError(
            f"{printable(str(source))}: expected a folder with a folder per generator, got none at this path"
        )
    layout = Layout()
    tops = _folders(source, layout)
    if not tops:
        raise DataError(f"{source}: expected a folder per generator, got no folders")
    splits = [name for name in tops if name.lower() in _SPLIT_FOLDERS and name not in said]
    folders: defaultdict[str, list[Path]] = defaultdict(list)
    if splits and len(splits) < len(tops):
        other = next(name for name in tops if name not in splits)
        raise DataError(f"{source}: expected a folder per generator, got {splits[0]}, a split, next to {other}")
    for top in tops:
        if not splits:
            folders[top].append(source / top)
        else:
            for name in _folders(source / top, layout):
                folders[name].append(source / top / name)
    if not folders:
        raise DataError(f"{source}: expected a folder per generator in {', '.join(splits)}, got no folders")
    if splits:
        layout.warnings.append(f"the splits of the source ({', '.join(splits)}) were not kept: new ones were drawn")
    for name in sorted(folders):
        if not is_name(name):
            raise DataError(f"{printable(str(source))}: expected folders named in {NAME_RULE}, got {described(name)}")
    for name in sorted(folders):
        layout.images[name] = []
        for folder in folders[name]:
            _add_folder(layout, name, folder, source, said)
    return layout


def _folders(folder: Path, layout: Layout) -> list[str]:
    """Return the names of the folders in a folder; count the files in it as ignored."""
    names = []
    try:
        entries = sorted(os.listdir(folder))
    except OSError as error:
        raise DataError(f"{folder}: expected a readable folder, got: {error.strerror}") from error
    for name in entries:
        if is_hidden(name) or name == PARSING:
            continue
        if (folder / name).is_dir():
            names.append(name)
        else:
            layout.ignored[Path(name).suffix.lower()] += 1
    return names


def _add_folder(layout: Layout, generator: str, folder: Path, source: Path, said: Mapping[str, GeneratorRule]) -> None:
    found = find_files(folder)
    layout.skipped += [(path.relative_to(source).as_posix(), reason) for path, reason in found.skipped]
    rule = rule_of(generator, said)
    are_photographs = rule is not None and rule.generator.is_real
    moved: Counter[str] = Counter()
    for file in found.files:
        suffix = file.suffix.lower()
        if suffix not in SUFFIXES:
            layout.ignored[suffix] += 1
            continue
        image = FoundImage(PurePosixPath(file.relative_to(source)), PurePosixPath(file.relative_to(folder)))
        home = generator
        for place, part in enumerate(image.below.parts[:-1], 1):
            where = PurePosixPath(folder.relative_to(source), *image.below.parts[:place])
            if are_photographs and _FAKES.fullmatch(part):
                raise DataError(f"{source / where}: expected photographs, as {generator} says, got a folder of fakes")
            if not are_photographs and (names_photographs(part) or part.lower() == "nature"):
                moved[str(where)] += 1
                home = PHOTOGRAPHS
                break
        layout.images.setdefault(home, []).append(image)
    layout.warnings += [
        f"{where}: {number} images taken as photographs, class {PHOTOGRAPHS!r}, not as {generator}"
        for where, number in moved.items()
    ]
    unsupported = {suffix: number for suffix, number in _count(found.files).items() if suffix in UNSUPPORTED}
    if unsupported:
        numbers = ", ".join(f"{number} {suffix}" for suffix, number in sorted(unsupported.items()))
        layout.warnings.append(f"{generator}: left out pictures in formats that can't be read ({numbers})")


def _count(files: Collection[Path]) -> Counter[str]:
    return Counter(file.suffix.lower() for file in files)


def similar_names(names: Collection[str]) -> list[list[str]]:
    """Return the names that differ only in case, punctuation or the spelling of a letter, one list each."""
    by_key: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        folded = unicodedata.normalize("NFKC", name).casefold()
        by_key["".join(filter(str.isalnum, folded))].append(name)
    return [same for same in by_key.values() if len(same) > 1]
