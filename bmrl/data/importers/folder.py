"""Import images from a folder that holds a folder for each generator."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bmrl.data.importers.assembly import assemble, check_destination
from bmrl.data.importers.candidates import Candidate
from bmrl.data.importers.families import GeneratorRule, known_family, read_families
from bmrl.data.importers.splits import check_shares
from bmrl.errors import DataError, MissingFileError
from bmrl.images import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from bmrl.data.importers.report import ImportReport
    from bmrl.data.manifest import Manifest

__all__ = ["import_folder"]

_PARSING = "parsing"


def import_folder(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    families: str | os.PathLike[str] | None = None,
    unseen: Collection[str] = (),
    seed: int = 0,
    val: float = 0.1,
    test: float = 0.2,
    symlink: bool = False,
) -> tuple[Manifest, ImportReport]:
    """Make a data set in ``out`` of the images in ``source/<generator>/``, and return its manifest and the report.

    Every folder of ``source`` is a generator, named so, and searched with its subfolders for images (by their names;
    hidden files are passed over, links to folders below the generator's are not followed). A parsing map is taken
    from ``source/parsing/<generator>/<path of the image>.png`` where there is one. ``source`` is never changed.

    The families of a generator come from the YAML file ``families``
    (:func:`~bmrl.data.importers.families.read_families`), else from its name: folders that begin with "real" are
    photographs, and the generators of the paper are known. Images whose file names agree but for the suffix are one
    group, in whatever generator's folder they lie, since fakes are often named after the picture that they
    were made of; a pattern in ``families`` groups otherwise.

    Args:
        source: the folder to import.
        out: a new or empty folder; in the end it holds ``manifest.csv``, ``import_report.json``, the images and,
            in ``parsing``, the maps.
        families: YAML file on the generators.
        unseen: names of generators to be tested only, whatever ``families`` says.
        seed: of the splits.
        val: >= 0, the share of validation images of every seen generator.
        test: >= 0, the share of test images; ``val + test < 1``.
        symlink: link to the images and maps instead of copying them.

    Raises:
        MissingFileError: ``source`` or ``families`` does not exist.
        DataError: there is no generator, image or readable image, or a folder of unknown family; ``families`` breaks
            its schema or names a generator without a folder; a pattern does not fit an image; ``out`` is not empty.
        RangeError: the shares are out of range.
    """
    source, out = Path(source), Path(out)
    if not source.is_dir():
        raise MissingFileError(f"{source}: expected a folder with a folder per generator, got none at this path")
    check_shares(val, test)
    check_destination(source, out)
    rules = _rules(source, None if families is None else Path(families), unseen)
    candidates: list[Candidate] = []
    ignored = Counter(entry.suffix.lower() for entry in source.iterdir() if entry.is_file() and entry.name[0] != ".")
    for rule in rules:
        for relative in _walk(source / rule.generator.name):
            if relative.suffix.lower() in SUFFIXES:
                candidates.append(_candidate(source, rule, relative))
            else:
                ignored[relative.suffix.lower()] += 1
    if not candidates:
        raise DataError(
            f"{source}: expected images ({' '.join(sorted(SUFFIXES))}) in the generators' folders, got none"
        )
    return assemble(
        candidates,
        out,
        source=source,
        val=val,
        test=test,
        seed=seed,
        symlink=symlink,
        ignored=dict(sorted(ignored.items())),
    )


def _rules(source: Path, families: Path | None, unseen: Collection[str]) -> list[GeneratorRule]:
    """Return the rule of every generator's folder, sorted by name."""
    names = sorted(
        entry.name for entry in source.iterdir() if entry.is_dir() and entry.name != _PARSING and entry.name[0] != "."
    )
    if not names:
        raise DataError(f"{source}: expected a folder per generator, got no folders")
    said = {} if families is None else read_families(families)
    for name, where in [(name, families) for name in said] + [(name, "unseen") for name in unseen]:
        if name not in names:
            raise DataError(f"{where}: expected generators among {', '.join(names)}, got {name!r}")
    rules = []
    unknown = []
    for name in names:
        generator = known_family(name)
        rule = said.get(name) or (GeneratorRule(generator) if generator else None)
        if rule is None:
            unknown.append(name)
        else:
            rules.append(GeneratorRule(rule.generator, "unseen" if name in unseen else rule.role, rule.group))
    if unknown:
        entries = ", ".join(f"{name}: {{manipulation: EFS, architecture: GAN}}" for name in unknown)
        raise DataError(
            f"families: expected the manipulation (none, EFS, FS, AM) and architecture (GAN, diffusion) of "
            f"{', '.join(unknown)}, got none; correct this and pass it as a YAML file: {{{entries}}}"
        )
    return rules


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files below ``folder``, relative to it, in a fixed order."""

    def fail(error: OSError) -> NoReturn:
        raise DataError(f"{error.filename}: expected a readable folder, got: {error.strerror}") from error

    for current, folders, files in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        for name in sorted(files):
            if name[0] != ".":
                yield (Path(current) / name).relative_to(folder)


def _candidate(source: Path, rule: GeneratorRule, relative: Path) -> Candidate:
    path = f"{rule.generator.name}/{relative.as_posix()}"
    group = relative.stem.strip()
    if rule.group is not None:
        match = rule.group.search(relative.with_suffix("").as_posix())
        group = (match.group(1 if rule.group.groups else 0) or "").strip() if match else ""
        if not group:
            raise DataError(f"{path}: expected the group pattern {rule.group.pattern!r} to find a name, got nothing")
    parsing = source / _PARSING / Path(path).with_suffix(".png")
    return Candidate(source / path, path, rule.generator, rule.role, group, parsing if parsing.exists() else None)
