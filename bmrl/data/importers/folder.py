"""Import images from a folder that holds a folder for each generator."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from bmrl._checks import check_integer
from bmrl._text import printable
from bmrl._values import check_path, check_switch
from bmrl.data.importers.assembly import assemble
from bmrl.data.importers.candidates import Candidate
from bmrl.data.importers.destination import check_destination
from bmrl.data.importers.families import GeneratorRule, families_entry, read_families, rule_of
from bmrl.data.importers.frames import swapped_videos, video_folders, warn_of_numbers, warn_of_series
from bmrl.data.importers.layout import read_layout, similar_names
from bmrl.data.importers.splits import check_shares
from bmrl.data.manifest import PARSING
from bmrl.errors import DataError, DTypeError
from bmrl.generators import ARCHITECTURES, MANIPULATIONS
from bmrl.images import SUFFIXES

if TYPE_CHECKING:
    import os
    import re
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from bmrl.data.importers.layout import FoundImage, Layout
    from bmrl.data.importers.report import ImportReport

__all__ = ["import_faces"]


def import_faces(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    families: str | os.PathLike[str] | None = None,
    unseen: Collection[str] = (),
    seed: int = 0,
    val: float = 0.1,
    test: float = 0.2,
    symlink: bool = False,
) -> ImportReport:
    """Make a data set in ``out`` of the images in ``source/<generator>/``, and report what was taken and what was not.

    Every folder of ``source`` is a generator, named so, and searched with its sub-folders for images (by their names;
    hidden files are passed over, linked folders are followed once). A parsing map is taken from
    ``source/parsing/<path of the image>.png`` where there is one. ``source`` is never changed.

    The families of a generator come from the YAML file ``families``
    (:func:`~bmrl.data.importers.families.read_families`), else from its name: folders named "real" in their first or
    last word are photographs, and the generators of the paper, of DF40 and of FaceForensics++ are known. Such a
    sub-folder of a generator's folder, as in ``MidJourney/{fake,real}``, holds photographs too: class ``real``. Several
    folders become one class where ``families`` gives them the same ``generator``. Where the folders of ``source`` are
    splits (``train``, ``val``, ``test``), the generators are in those; new splits are drawn.

    Numbered images in a sub-folder that is named as a video, or has the same numbers as others, are frames of one
    video and one group (:mod:`bmrl.data.importers.frames`). Other images whose file names agree but for the suffix are
    one group, across generators' folders, since fakes are often named after the picture that they were made of; in
    several folders of one generator they are separate groups in one split. A pattern in ``families`` groups otherwise.

    Args:
        source: the folder to import.
        out: a new or empty folder; in the end it holds ``manifest.csv``, ``import_report.json``, the images and,
            in ``parsing``, the maps.
        families: YAML file on the generators.
        unseen: names of generators to be tested only, regardless of ``families``.
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
        DTypeError, RangeError: an argument is of another type or out of range.

    Example:
        >>> import pathlib, tempfile
        >>> from PIL import Image
        >>> home = pathlib.Path(tempfile.mkdtemp())
        >>> for generator, color in (("FOMM", "red"), ("real_ffhq", "green")):
        ...     (home / "faces" / generator).mkdir(parents=True)
        ...     Image.new("RGB", (8, 8), color).save(home / "faces" / generator / "a.png")
        >>> report = import_faces(home / "faces", home / "data", unseen=["FOMM"], val=0, test=0)
        >>> report.images
        {'FOMM': {'train': 0, 'val': 0, 'test': 1}, 'real_ffhq': {'train': 1, 'val': 0, 'test': 0}}
    """
    source, out = check_path("source", source), check_path("out", out)
    families = None if families is None else check_path("families", families)
    check_shares(val, test)
    check_switch("symlink", symlink)
    check_integer("seed", seed)
    if isinstance(unseen, str):
        raise DTypeError(f"unseen: expected a list of generators, got the text {unseen!r}")
    said = {} if families is None else read_families(families)
    layout = read_layout(source, said)
    check_destination(source, out)
    rules = _rules(layout, said, "families" if families is None else printable(str(families)), unseen)
    found: dict[str, list[Candidate]] = {}
    warnings = list(layout.warnings)
    for folder, images in layout.images.items():
        found[folder], warning = _candidates(source, rules[folder], images)
        warnings += [f"{folder}: {warning}"] if warning else []
        warnings += [] if images else [f"{folder}: no images in its folder"]
    candidates = _told_apart(found, rules)
    if not candidates:
        raise DataError(
            f"{source}: expected images ({' '.join(sorted(SUFFIXES))}) in the generators' folders, got none"
        )
    warnings += [
        f"{', '.join(names)}: names that are nearly the same, taken as {len(names)} classes; the key generator in "
        "families makes them one"
        for names in similar_names({rule.generator.name for rule in rules.values()})
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
    """Return the rule of every folder."""
    folders = list(layout.images)
    for folder in said:
        if folder not in folders:
            raise DataError(f"{families}: expected folders among {', '.join(folders)}, got {folder!r}")
    found = {folder: rule_of(folder, said) for folder in folders}
    rules = {folder: rule for folder, rule in found.items() if rule is not None}
    unknown = [folder for folder in folders if folder not in rules]
    if unknown:
        entries = ", ".join(map(families_entry, unknown))
        raise DataError(
            f"families: expected the manipulation ({', '.join(MANIPULATIONS)}) and architecture "
            f"({', '.join(ARCHITECTURES)}) of {', '.join(unknown)}, got none; correct this and pass it as a YAML file: "
            f"{{{entries}}}"
        )
    names = list(dict.fromkeys(rule.generator.name for rule in rules.values()))
    for name in unseen:
        if name not in names:
            raise DataError(f"unseen: expected generators among {', '.join(names)}, got {name!r}")
    return {
        folder: replace(rule, role="unseen") if rule.generator.name in unseen else rule
        for folder, rule in rules.items()
    }


def _candidates(source: Path, rule: GeneratorRule, images: Sequence[FoundImage]) -> tuple[list[Candidate], str | None]:
    """Return the candidates of one folder, and a warning if their grouping needs attention."""
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


def _told_apart(found: Mapping[str, Sequence[Candidate]], rules: Mapping[str, GeneratorRule]) -> list[Candidate]:
    """Return all candidates, with separate groups where several folders of one generator have the same names.

    Such pictures share nothing but a name. They are still in one split, since an image of another generator that has
    this name too may be made of either. What a pattern says is a group stays one.
    """
    homes: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for folder, candidates in found.items():
        for each in candidates:
            homes[each.generator.name, each.group].add(folder)
    return [
        replace(each, group=f"{folder}/{each.group}", split_with=(each.group,))
        if rules[folder].group is None and len(homes[each.generator.name, each.group]) > 1
        else each
        for folder, candidates in found.items()
        for each in candidates
    ]


def _matched(pattern: re.Pattern[str], image: FoundImage) -> str:
    match = pattern.search(str(image.below.with_suffix("")))
    group = (match.group(1 if pattern.groups else 0) or "").strip() if match else ""
    if not group:
        raise DataError(
            f"{printable(str(image.path))}: expected the group pattern {pattern.pattern!r} to find a name, got nothing"
        )
    return group
