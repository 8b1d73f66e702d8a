"""The images that the arguments of a command name: files, and folders of images."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from bmrl.cli.answers import Unanswered
from bmrl.errors import BMRLError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Inputs", "images_of"]

MOST_REMARKS = 20


class Inputs(NamedTuple):
    """The images that arguments name.

    Attributes:
        items: in the order of the arguments, a path to read, or what can't be read at all and why.
        remarks: what was left out, one line each.
    """

    items: list[str | Unanswered]
    remarks: list[str]


def images_of(paths: Iterable[str]) -> Inputs:
    """Return files as they are, and for a folder the images below it."""
    from bmrl.data.finding import find_images

    items: list[str | Unanswered] = []
    skipped: list[str] = []
    unsupported: Counter[str] = Counter()
    for given in paths:
        if not os.path.isdir(given):
            items.append(given or Unanswered("", "path: expected an image or a folder of images, got ''"))
            continue
        try:
            found = find_images(given)
        except (BMRLError, OSError) as error:
            items.append(Unanswered(given, str(error)))
            continue
        items += map(str, found.images)
        unsupported.update(found.unsupported)
        closed = 0
        for place, reason in found.skipped:
            if place.is_dir() and not os.access(place, os.R_OK | os.X_OK):
                items.append(Unanswered(str(place), f"{place}: {reason}"))
                closed += 1
            else:
                skipped.append(f"skipped {place}: {reason}")
        if not found.images and not closed:
            others = f" but {_counts(found.unsupported)}" if found.unsupported else ""
            items.append(Unanswered(given, f"{given}: expected images in this folder, got none{others}"))
    remarks = skipped[:MOST_REMARKS]
    if len(skipped) > MOST_REMARKS:
        remarks.append(f"skipped {len(skipped) - MOST_REMARKS} more")
    if unsupported:
        remarks.append(f"skipped {_counts(unsupported)}: expected JPEG, PNG, WebP, BMP, TIFF or GIF")
    return Inputs(items, remarks)


def _counts(suffixes: dict[str, int]) -> str:
    return ", ".join(f"{count} {suffix}" for suffix, count in sorted(suffixes.items()))
