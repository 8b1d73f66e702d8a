"""Import images from a folder that holds a folder for each generator."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from bmrl._checks import check_integer, check_switch
from bmrl._text import printable
from bmrl.data.finding import PARSING
from bmrl.data.importers.assembly import assemble, check_destination
from bmrl.data.importers.candidates import Candidate
from bmrl.data.importers.families import GeneratorRule, families_entry, known_family, read_families
from bmrl.data.importers.frames import swapped_videos, video_folders, warn_of_numbers, warn_of_series
from bmrl.data.importers.layout import alike, read_layout
from bmrl.data.importers.splits import check_shares
from bmrl.errors import DataError, DTypeError
from bmrl.images import SUFFIXES

if TYPE_CHECKING:
    import re
    from collections.abc import Collection, Mapping, Sequence

    from bmrl.data.importers.layout import FoundImage, Layout
    from bmrl.data.importers.report import ImportReport
    from bmrl.data.manifest import Manifest

__all__ = ["import_folder"]


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

    Every folder of ``source`` is a generator, named so, and searched with its sub-folders for images (by their names;
    hidden files are passed over, linked folders are followed once). A parsing map is taken from
    ``source/parsing/<path of the image>.png`` where there is one. ``source`` is never changed.

    The families of a generator come from the YAML file ``families``
    (:func:`~bmrl.data.importers.families.read_families`), else from its name: folders named "real" in their first or
    last word are photographs, and the generators of the paper are known. Such a sub-folder of a generator's folder,
    as in ``MidJourney/{fake,real}``, holds photographs too: class ``real``. Where the folders of ``source`` are splits
    (``train``, ``val``, ``test``), the generators are in those; new splits are drawn.

    Numbered images in a sub-folder that is named as a video, or has the same numbers as others, are frames of one
    video and one group (:mod:`bmrl.data.importers.frames`). Other images whose file names agree but for the suffix are
    one group, in whatever generator's folder they lie, since fakes are often named after the picture that they
    were made of. A pattern in ``families`` groups otherwise.

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
            its schema or names a generator without a folder; a pattern does not fit an image; ``out`` is not empty or
            can't be written.
        FolderInUseError: another process writes into ``out`` now.
        DTypeError, RangeError: ``seed``, ``symlink``, ``unseen`` or the shares are of another type or out of range.
    """
    source, out = Path(source), Path(out)
    check_shares(val, test)
    check_switch("symlink", symlink)
    check_integer("seed", seed)
    if isinstance(unseen, str):
        raise DTypeError(f"unseen: expected a list of generators, got the text {unseen!r}")
    said = {} if families is None else read_families(Path(families))
    layout = read_layout(source, said)
    check_destination(source, out)
    rules = _rules(layout, said, "families" if families is None else printable(os.fspath(families)), unseen)
    candidates: list[Candidate] = []
    warnings = list(layout.warnings)
    for name, images in layout.images.items():
        found, warning = _candidates(source, rules[name], images)
        candidates += found
        warnings += [f"{name}: {warning}"] if warning else []
        warnings += [] if images else [f"{name}: no images in its folder"]
    if not candidates:
        raise DataError(
            f"{source}: expected images ({' '.join(sorted(SUFFIXES))}) in the generators' folders, got none"
        )
    warnings += [
        f"{', '.join(names)}: names that are nearly the same, taken as {len(names)} classes"
        for names in alike(layout.images)
    ]
    return assemble(
        candidates,
        out,
        source=source,
        val=val,
        test=test,
        seed=seed,
        symlink=symlink,
        ignored=dict(sorted(layout.ignored.items())),
        skipped=layout.skipped,
        warnings=warnings,
    )


def _rules(
    layout: Layout, said: Mapping[str, GeneratorRule], families: str, unseen: Collection[str]
) -> dict[str, GeneratorRule]:
    """Return the rule of every generator."""
    names = list(layout.images)
    for name, where in [(name, families) for name in said] + [(name, "unseen") for name in unseen]:
        if name not in names:
            raise DataError(f"{where}: expected generators among {', '.join(names)}, got {name!r}")
    rules = {}
    unknown = []
    for name in names:
        generator = known_family(name)
        rule = said.get(name) or (GeneratorRule(generator) if generator else None)
        if rule is None:
            unknown.append(name)
        else:
            rules[name] = GeneratorRule(rule.generator, "unseen" if name in unseen else rule.role, rule.group)
    if unknown:
        entries = ", ".join(map(families_entry, unknown))
        raise DataError(
            f"families: expected the manipulation (none, EFS, FS, AM) and architecture (GAN, diffusion) of "
            f"{', '.join(unknown)}, got none; correct this and pass it as a YAML file: {{{entries}}}"
        )
    return rules


def _candidates(source: Path, rule: GeneratorRule, images: Sequence[FoundImage]) -> tuple[list[Candidate], str | None]:
    """Return the candidates of one generator, and what is worth a look at how they were grouped."""
    videos = video_folders([image.below for image in images]) if rule.group is None else set()
    candidates = []
    for image in images:
        also: tuple[str, ...] = ()
        if rule.group is not None:
            group = _matched(rule.group, image)
        elif image.below.parent in videos:
            group = image.below.parent.name.strip()
            also = swapped_videos(group)
        else:
            group = image.below.stem.strip()
        path = str(image.path)
        parsing = source / PARSING / image.path.with_suffix(".png")
        candidates.append(
            Candidate(
                source / path, path, rule.generator, rule.role, group, parsing if parsing.exists() else None, also
            )
        )
    if videos:
        return candidates, (
            f"images in {len(videos)} sub-folders such as {min(map(str, videos))} taken as frames of one video each; "
            "a group pattern in families groups otherwise"
        )
    if rule.group is not None:
        return candidates, None
    below = [image.below for image in images]
    return candidates, warn_of_numbers(below) or warn_of_series({path.stem for path in below})


def _matched(pattern: re.Pattern[str], image: FoundImage) -> str:
    match = pattern.search(str(image.below.with_suffix("")))
    group = (match.group(1 if pattern.groups else 0) or "").strip() if match else ""
    if not group:
        raise DataError(
            f"{printable(str(image.path))}: expected the group pattern {pattern.pattern!r} to find a name, got nothing"
        )
    return group
