"""An image that an importer found, and the examination that decides whether it is taken."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from bmrl._image_bytes import file_bytes
from bmrl.data._parsing_map import decoded_parsing_map, lower_lip_share
from bmrl.data._reading import reason
from bmrl.data.rules import is_inside
from bmrl.errors import BMRLError
from bmrl.images import MAX_BYTES, decoded

if TYPE_CHECKING:
    from pathlib import Path

    from bmrl.generators import Generator

__all__ = ["Candidate", "Finding", "examine"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image that an importer found.

    Attributes:
        file: where it is.
        path: where it will be, relative to the new folder, with ``/`` between the parts.
        generator: what made it.
        role: ``seen`` or ``unseen``.
        group: the person, source picture or video that it shows.
        parsing: where its parsing map is, if it has one.
        also: further groups that are one with its group, such as the two videos that a face swap was made of.
        split_with: groups that must be in the same split, though they are separate groups.
    """

    file: Path
    path: str
    generator: Generator
    role: str
    group: str
    parsing: Path | None = None
    also: tuple[str, ...] = ()
    split_with: tuple[str, ...] = ()


class Finding(NamedTuple):
    """What reading one candidate showed: the hash of its bytes, and what is wrong with it and with its map.

    ``lower_lip`` is the share of the map that is said to be the lower lip, None without a usable map.
    """

    digest: bytes
    problem: str | None
    parsing_problem: str | None
    lower_lip: float | None = None


def examine(candidate: Candidate) -> Finding:
    """Decode a candidate and its map, and return what can't be used of them and why."""
    name = candidate.path
    if not is_inside(name):
        return Finding(b"", "expected a name in UTF-8, without backslashes and drives, got another", None)
    try:
        with file_bytes(candidate.file, MAX_BYTES, name) as data:
            digest = hashlib.sha256(data).digest()
            with decoded(data, name=name) as image:
                size = image.size
    except BMRLError as error:
        return Finding(b"", reason(error, name), None)
    del image  # the map may take the memory now
    if candidate.parsing is not None:
        try:
            with decoded_parsing_map(candidate.parsing, size) as parsing:
                return Finding(digest, None, None, lower_lip_share(parsing))
        except BMRLError as error:
            return Finding(digest, None, reason(error, candidate.parsing.name))
    return Finding(digest, None, None)
