"""The part that all importers share: from a list of candidates to a folder with a manifest."""

from __future__ import annotations

import logging
import shutil
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from bmrl.data._manifest_rules import SPLITS
from bmrl.data.importers.candidates import Candidate, examine
from bmrl.data.importers.report import FILENAME, ImportReport
from bmrl.data.importers.splits import assign_splits, check_shares, merge_groups
from bmrl.data.manifest import Manifest, Row
from bmrl.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["assemble", "check_destination"]

_logger = logging.getLogger(__name__)


def check_destination(source: Path, out: Path) -> None:
    """Check that ``out`` can take a data set without touching what is there.

    Raises:
        DataError: ``out`` is a file, holds something, or is or lies in ``source``.
    """
    if out.resolve().is_relative_to(source.resolve()):
        raise DataError(f"{out}: expected a folder outside {source}, which an import leaves as it is, got one inside")
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: expected a new or empty folder, got a file")
    if out.is_dir() and any(out.iterdir()):
        raise DataError(f"{out}: expected a new or empty folder, got one that holds files")


def assemble(
    candidates: Sequence[Candidate],
    out: Path,
    *,
    source: Path,
    val: float,
    test: float,
    seed: int,
    symlink: bool = False,
    ignored: Mapping[str, int] | None = None,
) -> tuple[Manifest, ImportReport]:
    """Make a data set of what an importer found, and report what could not be taken.

    Every image is decoded once: those that can't be are left out. Images of the very same bytes are put into one
    group. Groups of seen generators are shared out to train, val and test
    (:func:`~bmrl.data.importers.splits.assign_splits`), images of unseen ones are all for the test. The manifest is
    written last, and a failure on the way removes ``out``, so that a folder with a manifest is complete.

    Args:
        candidates: the images found, each ``path`` once.
        out: a folder that :func:`check_destination` accepts.
        source: the folder the candidates come from.
        val: >= 0, the share of validation images.
        test: >= 0, the share of test images; ``val + test < 1``.
        seed: of the splits.
        symlink: link to the images and maps instead of copying them.
        ignored: the number of other files found, by suffix, for the report.

    Raises:
        DataError: ``out`` is not accepted, or no candidate is readable.
        RangeError: the shares are out of range.
    """
    check_shares(val, test)
    check_destination(source, out)
    with ThreadPoolExecutor() as pool:
        findings = list(pool.map(examine, candidates))
    skipped, parsing_skipped = [], []
    taken: list[Candidate] = []
    by_bytes: defaultdict[bytes, list[Candidate]] = defaultdict(list)
    maps = Counter(_parsing_name(candidate.path) for candidate in candidates if candidate.parsing)
    for candidate, finding in zip(candidates, findings, strict=True):
        if finding.problem is not None:
            skipped.append((candidate.path, finding.problem))
            continue
        problem = finding.parsing_problem
        if candidate.parsing and maps[_parsing_name(candidate.path)] > 1:
            problem = "expected one image of this name, got several with different suffixes"
        if problem is not None:
            parsing_skipped.append((candidate.path, problem))
            candidate = replace(candidate, parsing=None)
        taken.append(candidate)
        by_bytes[finding.digest].append(candidate)
    if not taken:
        raise DataError(f"{source}: expected at least one readable image, got none of {len(candidates)}")

    duplicates = [same for same in by_bytes.values() if len(same) > 1]
    rows = _rows(taken, duplicates, val=val, test=test, seed=seed)
    images = {name: dict.fromkeys(SPLITS, 0) for name in sorted({row.generator for row in rows})}
    for row in rows:
        images[row.generator][row.split] += 1
    report = ImportReport(
        source=str(source),
        images=images,
        num_parsing=sum(candidate.parsing is not None for candidate in taken),
        skipped=skipped,
        parsing_skipped=parsing_skipped,
        ignored=dict(ignored or {}),
        duplicates=[[candidate.path for candidate in same] for same in duplicates],
        mislabelled=[
            [candidate.path for candidate in same]
            for same in duplicates
            if len({candidate.generator for candidate in same}) > 1
        ],
        warnings=_warnings(images, {row.generator for row in rows if row.role == "seen"}),
    )
    manifest = Manifest(out, rows)
    try:
        _transfer(taken, out, symlink=symlink)
        report.write(out)
        manifest.write()
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    level = logging.WARNING if skipped or parsing_skipped or report.mislabelled else logging.INFO
    _logger.log(level, "%s: %s; see %s", out, report.summary(), FILENAME)
    for warning in report.warnings:
        _logger.warning("%s: %s", out, warning)
    return manifest, report


def _rows(
    taken: Sequence[Candidate], duplicates: Sequence[Sequence[Candidate]], *, val: float, test: float, seed: int
) -> tuple[Row, ...]:
    groups = merge_groups(
        {candidate.group for candidate in taken}, [[each.group for each in same] for same in duplicates]
    )
    sizes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for candidate in taken:
        if candidate.role == "seen":
            sizes[groups[candidate.group]][candidate.generator.name] += 1
    splits = assign_splits(sizes, val=val, test=test, seed=seed)
    return tuple(
        Row(
            path=candidate.path,
            generator=candidate.generator.name,
            manipulation=candidate.generator.manipulation,
            architecture=candidate.generator.architecture,
            role=candidate.role,
            split=splits[groups[candidate.group]] if candidate.role == "seen" else "test",
            group=groups[candidate.group],
        )
        for candidate in taken
    )


def _warnings(images: Mapping[str, Mapping[str, int]], seen: set[str]) -> list[str]:
    if not seen:
        return ["no generator is seen, so there is nothing to train on"]
    return [
        f"{name}: no images in {split} (too few groups)"
        for name in sorted(seen)
        for split in ("train", "test")
        if not images[name][split]
    ]


def _transfer(taken: Sequence[Candidate], out: Path, *, symlink: bool) -> None:
    files = [(candidate.file, out / candidate.path) for candidate in taken]
    files += [(each.parsing, out / "parsing" / _parsing_name(each.path)) for each in taken if each.parsing]
    for origin, target in files:
        target.parent.mkdir(parents=True, exist_ok=True)
        if symlink:
            target.symlink_to(origin.resolve())
        else:
            shutil.copyfile(origin, target)


def _parsing_name(path: str) -> PurePosixPath:
    return PurePosixPath(path).with_suffix(".png")
