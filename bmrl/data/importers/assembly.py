"""What all importers share: from a list of candidates to a folder with a manifest."""

from __future__ import annotations

import logging
import shutil
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from bmrl._regular_files import open_regular
from bmrl.data._parsing_map import order_problem
from bmrl.data.importers.candidates import Candidate, examine
from bmrl.data.importers.destination import check_destination, new_data_folder
from bmrl.data.importers.report import FILENAME, ImportReport
from bmrl.data.importers.splits import assign_splits, check_shares, merge_groups
from bmrl.data.manifest import PARSING, Manifest
from bmrl.data.row import Row
from bmrl.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["assemble"]

_CHUNK = 64  # images that a thread examines at a time

_logger = logging.getLogger(__name__)


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
    skipped: Sequence[tuple[str, str]] = (),
    warnings: Sequence[str] = (),
) -> ImportReport:
    """Make a data set of what an importer found, and report what could not be taken.

    Every image is decoded once: those that can't be are left out. Images of identical bytes are put into one
    group. Groups of seen generators are shared out to train, val and test
    (:func:`~bmrl.data.importers.splits.assign_splits`), all images of unseen ones go to test. The manifest is
    written last, so that a folder with a manifest is complete; a failure on the way removes ``out``, and what a
    killed import left there is replaced by the next one.

    Args:
        candidates: the images found, each ``path`` once.
        out: a folder that :func:`check_destination` accepts.
        source: the folder the candidates come from.
        val: >= 0, the share of validation images.
        test: >= 0, the share of test images; ``val + test < 1``.
        seed: of the splits.
        symlink: link to the images and maps instead of copying them.
        ignored: the number of other files found, by suffix, for the report.
        skipped: what was left out before, and why, for the report.
        warnings: what else needs attention, for the report.

    Raises:
        DataError: ``out`` is not accepted, no candidate is readable, or a file can't be copied.
        FolderInUseError: another process writes into ``out`` now.
        RangeError: the shares are out of range.
    """
    check_shares(val, test)
    check_destination(source, out)
    with new_data_folder(source, out):
        found = _examined(candidates)
        if not found.taken:
            raise DataError(f"{source}: expected at least one readable image, got none of {len(candidates)}")
        manifest = Manifest(out, _rows(found, partial(assign_splits, val=val, test=test, seed=seed)))
        report = _report(found, manifest, source=source, ignored=ignored or {}, skipped=skipped, warnings=warnings)
        _transfer(found.taken, out, symlink=symlink)
        try:
            report.write()
            manifest.write()
        except OSError as error:
            raise DataError(f"{out}: expected a folder that can be written into, got: {error.strerror}") from error
        for warning in report.warnings:
            _logger.warning("%s: %s", out, warning)
    return report


@dataclass(slots=True)
class _Examined:
    """What reading all candidates showed.

    Attributes:
        taken: those that can be read; without a map where it can't be used.
        duplicates: those of ``taken`` with identical bytes, one list per set.
        skipped: path and reason of the others.
        parsing_skipped: path and reason of the maps left out.
        order_problem: what is wrong with the maps as a whole, if anything.
    """

    taken: list[Candidate]
    duplicates: list[list[Candidate]]
    skipped: list[tuple[str, str]]
    parsing_skipped: list[tuple[str, str]]
    order_problem: str | None

    @property
    def mislabeled(self) -> list[list[Candidate]]:
        """Those of the duplicates that are under several generators."""
        return [same for same in self.duplicates if len({candidate.generator for candidate in same}) > 1]


def _examined(candidates: Sequence[Candidate]) -> _Examined:
    with ThreadPoolExecutor() as pool:
        chunks = [candidates[start : start + _CHUNK] for start in range(0, len(candidates), _CHUNK)]
        findings = [finding for found in pool.map(lambda chunk: list(map(examine, chunk)), chunks) for finding in found]
    shares = [found.lower_lip for found in findings if found.lower_lip is not None]
    examined = _Examined([], [], [], [], order_problem(shares))
    by_bytes: defaultdict[bytes, list[Candidate]] = defaultdict(list)
    maps = Counter(_parsing_name(candidate.path) for candidate in candidates if candidate.parsing)
    for candidate, finding in zip(candidates, findings, strict=True):
        if finding.problem is not None:
            examined.skipped.append((candidate.path, finding.problem))
            continue
        problem = finding.parsing_problem
        if candidate.parsing and maps[_parsing_name(candidate.path)] > 1:
            problem = "expected one image of this name, got several with different suffixes"
        if problem is not None:
            examined.parsing_skipped.append((candidate.path, problem))
            candidate = replace(candidate, parsing=None)
        examined.taken.append(candidate)
        by_bytes[finding.digest].append(candidate)
    examined.duplicates = [same for same in by_bytes.values() if len(same) > 1]
    return examined


def _report(
    found: _Examined,
    manifest: Manifest,
    *,
    source: Path,
    ignored: Mapping[str, int],
    skipped: Sequence[tuple[str, str]],
    warnings: Sequence[str],
) -> ImportReport:
    images = manifest.counts()
    seen = {row.generator for row in manifest.select(role="seen")}
    return ImportReport(
        source=source,
        folder=manifest.root,
        images=images,
        num_parsing=sum(candidate.parsing is not None for candidate in found.taken),
        skipped=[*skipped, *found.skipped],
        parsing_skipped=found.parsing_skipped,
        ignored=dict(ignored),
        duplicates=[[candidate.path for candidate in same] for same in found.duplicates],
        mislabeled=[[candidate.path for candidate in same] for same in found.mislabeled],
        warnings=[
            *warnings,
            *([found.order_problem] if found.order_problem else []),
            *_warnings_of_labels(found.mislabeled),
            *_warnings_of_splits(images, seen),
        ],
    )


def _rows(found: _Examined, draw: Callable[[Mapping[str, Mapping[str, int]]], dict[str, str]]) -> tuple[Row, ...]:
    taken = found.taken
    groups = merge_groups(
        {group for each in taken for group in (each.group, *each.also, *each.split_with)},
        [[each.group for each in same] for same in found.duplicates] + [[each.group, *each.also] for each in taken],
    )
    units = merge_groups(  # what must be in one split
        set(groups.values()), [[groups[group] for group in (each.group, *each.split_with)] for each in taken]
    )
    sizes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for candidate in taken:
        if candidate.role == "seen":
            sizes[units[groups[candidate.group]]][candidate.generator.name] += 1
    splits = draw(sizes)
    return tuple(
        Row(
            path=candidate.path,
            generator=candidate.generator.name,
            manipulation=candidate.generator.manipulation,
            architecture=candidate.generator.architecture,
            role=candidate.role,
            split=splits[units[groups[candidate.group]]] if candidate.role == "seen" else "test",
            group=groups[candidate.group],
        )
        for candidate in taken
    )


def _warnings_of_labels(mislabeled: Sequence[Sequence[Candidate]]) -> list[str]:
    if not mislabeled:
        return []
    example = " and ".join(candidate.path for candidate in mislabeled[0][:2])
    return [
        f"pictures in the folders of several generators: {len(mislabeled)}, such as {example}; all but one label of "
        f"each must be wrong; see mislabeled in {FILENAME}"
    ]


def _warnings_of_splits(images: Mapping[str, Mapping[str, int]], seen: set[str]) -> list[str]:
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
    files += [(each.parsing, out / PARSING / _parsing_name(each.path)) for each in taken if each.parsing]
    for origin, target in files:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if symlink:
                target.symlink_to(origin.resolve())
            else:
                with open_regular(origin) as reading, target.open("xb") as writing:
                    shutil.copyfileobj(reading, writing)
        except OSError as error:
            raise DataError(f"{target}: expected to copy {origin} here, got: {error.strerror}") from error


def _parsing_name(path: str) -> PurePosixPath:
    return PurePosixPath(path).with_suffix(".png")
