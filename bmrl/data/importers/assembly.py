"""The part that all importers share: from a list of candidates to a folder with a manifest."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from bmrl._files import CLAIM, claimed
from bmrl._regular_files import open_regular
from bmrl.data._parsing_map import order_problem
from bmrl.data.importers.candidates import Candidate, examine
from bmrl.data.importers.report import FILENAME, ImportReport
from bmrl.data.importers.splits import assign_splits, check_shares, merge_groups
from bmrl.data.manifest import FILENAME as MANIFEST
from bmrl.data.manifest import Manifest
from bmrl.data.row import Row
from bmrl.errors import DataError, FolderInUseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["assemble", "check_destination"]

_UNFINISHED = ".bmrl-unfinished-import"
"""In a folder while an import writes into it; after a kill, it says that all that lies there is the import's."""

_CHUNK = 64  # images that a thread examines at a time

_logger = logging.getLogger(__name__)


def check_destination(source: Path, out: Path) -> None:
    """Check that ``out`` can take a data set without touching what is there.

    Raises:
        DataError: ``out`` is a file, holds something other than an unfinished import, or one of the two folders lies
            in the other.
    """
    if out.resolve().is_relative_to(source.resolve()):
        raise DataError(f"{out}: expected a folder outside {source}, which an import leaves as it is, got one inside")
    if source.resolve().is_relative_to(out.resolve()):
        raise DataError(f"{out}: expected a new or empty folder, got one that holds {source}")
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: expected a new or empty folder, got a file")
    if out.is_dir() and not _is_unfinished(out) and _contents(out):
        raise DataError(f"{out}: expected a new or empty folder, got one that holds files")


def _contents(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if entry.name != CLAIM]


def _is_unfinished(folder: Path) -> bool:
    """Whether a folder holds what an import that was killed had written so far, and nothing but that."""
    return (folder / _UNFINISHED).is_file() and not (folder / MANIFEST).exists()


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

    Every image is decoded once: those that can't be are left out. Images of the very same bytes are put into one
    group. Groups of seen generators are shared out to train, val and test
    (:func:`~bmrl.data.importers.splits.assign_splits`), images of unseen ones are all for the test. The manifest is
    written last, so that a folder with a manifest is complete; a failure on the way removes ``out``, and what a kill
    has left there is replaced by the next import.

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
        warnings: what else is worth a look, for the report.

    Raises:
        DataError: ``out`` is not accepted, no candidate is readable, or a file can't be copied.
        FolderInUseError: another process writes into ``out`` now.
        RangeError: the shares are out of range.
    """
    check_shares(val, test)
    check_destination(source, out)
    with _new_data_folder(source, out):
        return _assemble(
            candidates,
            out,
            source=source,
            draw=partial(assign_splits, val=val, test=test, seed=seed),
            symlink=symlink,
            ignored=dict(ignored or {}),
            skipped=list(skipped),
            warnings=list(warnings),
        )


@contextlib.contextmanager
def _new_data_folder(source: Path, out: Path) -> Iterator[None]:
    """Keep ``out`` for the block alone, empty; remove it if the block fails."""
    existed = out.exists()
    try:
        with claimed(out):
            check_destination(source, out)  # another import may have ended while this one began
            try:
                for entry in _contents(out):
                    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
                (out / _UNFINISHED).touch()
                yield
                (out / _UNFINISHED).unlink()
            except BaseException:
                for entry in _contents(out):
                    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
                raise
    except BaseException as error:
        if not existed and not isinstance(error, FolderInUseError):
            with contextlib.suppress(OSError):  # somebody else may have put something there
                out.rmdir()
        raise


def _assemble(
    candidates: Sequence[Candidate],
    out: Path,
    *,
    source: Path,
    draw: Callable[[Mapping[str, Mapping[str, int]]], dict[str, str]],
    symlink: bool,
    ignored: dict[str, int],
    skipped: list[tuple[str, str]],
    warnings: list[str],
) -> ImportReport:
    with ThreadPoolExecutor() as pool:
        chunks = [candidates[start : start + _CHUNK] for start in range(0, len(candidates), _CHUNK)]
        findings = [finding for found in pool.map(lambda chunk: list(map(examine, chunk)), chunks) for finding in found]
    parsing_skipped = []
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

    problem = order_problem([found.lower_lip for found in findings if found.lower_lip is not None])
    warnings += [problem] if problem else []
    duplicates = [same for same in by_bytes.values() if len(same) > 1]
    mislabeled = [same for same in duplicates if len({candidate.generator for candidate in same}) > 1]
    manifest = Manifest(out, _rows(taken, duplicates, draw))
    images = manifest.counts()
    report = ImportReport(
        source=source,
        folder=out,
        images=images,
        num_parsing=sum(candidate.parsing is not None for candidate in taken),
        skipped=skipped,
        parsing_skipped=parsing_skipped,
        ignored=ignored,
        duplicates=[[candidate.path for candidate in same] for same in duplicates],
        mislabeled=[[candidate.path for candidate in same] for same in mislabeled],
        warnings=[
            *warnings,
            *_warnings_of_labels(mislabeled),
            *_warnings_of_splits(images, {row.generator for row in manifest.select(role="seen")}),
        ],
    )
    _transfer(taken, out, symlink=symlink)
    try:
        report.write()
        manifest.write()
    except OSError as error:
        raise DataError(f"{out}: expected a folder that can be written into, got: {error.strerror}") from error
    for warning in report.warnings:
        _logger.warning("%s: %s", out, warning)
    return report


def _rows(
    taken: Sequence[Candidate],
    duplicates: Sequence[Sequence[Candidate]],
    draw: Callable[[Mapping[str, Mapping[str, int]]], dict[str, str]],
) -> tuple[Row, ...]:
    groups = merge_groups(
        {group for each in taken for group in (each.group, *each.also, *each.split_with)},
        [[each.group for each in same] for same in duplicates] + [[each.group, *each.also] for each in taken],
    )
    units = merge_groups(  # what lies in one split
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
        f"{len(mislabeled)} pictures lie under several generators, such as {example}: all but one label of each must "
        f"be wrong; see mislabeled in {FILENAME}"
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
    files += [(each.parsing, out / "parsing" / _parsing_name(each.path)) for each in taken if each.parsing]
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
