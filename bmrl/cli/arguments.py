"""What the arguments of the command line stand for."""

from __future__ import annotations

import argparse
import os
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from bmrl._text import printable
from bmrl.cli.answers import Unanswered
from bmrl.errors import BMRLError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn

__all__ = ["CommandParser", "Inputs", "Parser", "device", "images_of", "path"]

MOST_REMARKS = 20


class Parser(argparse.ArgumentParser):
    """Writes its errors on one printable line."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the error, and exit with 2."""
        super().error(printable(message))


class CommandParser(Parser):
    """Takes options anywhere among the other arguments."""

    _intermixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse what a command got; the method of argparse that does so calls this one in turn."""
        if self._intermixing:
            return super().parse_known_args(args, namespace)
        self._intermixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixing = False


def path(text: str) -> str:
    """Return a path; an empty one, as of a variable that is not set, would mean the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, got ''")
    return text


def device(text: str) -> str:
    """Return a device in PyTorch's words, or ``auto``."""
    if not re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:\d{1,3})?", text):
        raise argparse.ArgumentTypeError(f"expected auto, cpu, cuda or cuda:N, got {text!r}")
    return text


class Inputs(NamedTuple):
    """The images that arguments name.

    Attributes:
        items: in the order of the arguments, a path to read, or what can't be read at all and why.
        remarks: what was left out, a line each.
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
