"""Tell from their names which images are frames of a video, so that no video is in both train and test."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import PurePosixPath

__all__ = ["swapped_videos", "video_folders", "warn_of_numbers", "warn_of_series"]

_FRAME = re.compile(r"(frame|img|image|f)?[ ._-]*[0-9]+", re.IGNORECASE)
_VIDEO = re.compile(r"(vid|video|clip|seq|sequence|scene)[ ._-]*[0-9]+|[0-9]+_[0-9]+|id[0-9]+_.+", re.IGNORECASE)
_SERIES = re.compile(r"(.*[^0-9 ._-])[ ._-]+[0-9]+")
_SWAP = re.compile(r"([0-9]+)_([0-9]+)")


def video_folders(paths: Collection[PurePosixPath]) -> set[PurePosixPath]:
    """Return the folders whose images are numbered as the frames of one video are.

    That is, every name in the folder is a number, and the folder is named as videos are (``vid0``, ``000_003``,
    ``frames/<any>``), or the same numbers are found in many such folders.

    Args:
        paths: the images of one generator, relative to its folder.

    Example:
        >>> from pathlib import PurePosixPath
        >>> sorted(map(str, video_folders([PurePosixPath("vid0/0001.png"), PurePosixPath("a/b.png")])))
        ['vid0']
    """
    stems: defaultdict[PurePosixPath, set[str]] = defaultdict(set)
    for path in paths:
        stems[path.parent].add(path.stem)
    numbered = {folder: names for folder, names in stems.items() if folder.name and all(map(_FRAME.fullmatch, names))}
    times = Counter(name for names in numbered.values() for name in names)
    # A few folders with many images of the same numbers are rather settings of one generator.
    many = len(numbered) > sum(map(len, numbered.values())) / max(1, len(numbered))
    return {
        folder
        for folder, names in numbered.items()
        if _VIDEO.fullmatch(folder.name)
        or folder.parent.name == "frames"
        or (many and any(times[name] > 1 for name in names))
    }


def swapped_videos(video: str) -> tuple[str, ...]:
    """Return the two videos that a face swap named ``<target>_<source>`` was made of; none of another name."""
    match = _SWAP.fullmatch(video)
    return match.groups() if match else ()


def warn_of_numbers(paths: Collection[PurePosixPath]) -> str | None:
    """Return what to ask about the same numbers in several folders, which may be one picture or many videos."""
    folders: defaultdict[str, set[PurePosixPath]] = defaultdict(set)
    for path in paths:
        if _FRAME.fullmatch(path.stem):
            folders[path.stem].add(path.parent)
    repeated = {stem: found for stem, found in folders.items() if len(found) > 1}
    if not repeated:
        return None
    stem, found = min(repeated.items())
    first, second, *_ = sorted(map(str, found))
    return (
        f"images of one number in several sub-folders, such as {stem} in {first} and {second}, taken as made of one "
        "picture; if the sub-folders are videos, families needs the group pattern '^(.+)/'"
    )


def warn_of_series(names: Collection[str]) -> str | None:
    """Return what to ask about names such as ``anna_1``, ``anna_2``, ``bob_1``: each is a separate group."""
    series: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        if match := _SERIES.fullmatch(name):
            series[match[1]].append(name)
    repeated = [found for found in series.values() if len(found) > 1]
    if len(repeated) < 2:
        return None
    first, second, *_ = repeated[0]
    return (
        f"names such as {first} and {second} are separate groups; if they show one person or video, families "
        f"needs a group pattern"
    )
