"""One image of a manifest: its columns and the values that they may hold."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["COLUMNS", "REQUIRED", "ROLES", "SPLITS", "Row", "collections_by_generator"]

ROLES = ("seen", "unseen")
"""Whether a model may be trained on a generator's images, or is only tested on them."""

SPLITS = ("train", "val", "test")
"""What an image is used for."""


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a manifest; the rules are checked by :class:`Manifest`, which sees all rows.

    Attributes:
        path: the image, relative to the manifest's folder, with ``/`` between the parts.
        generator: the label to attribute: the name of what made the image.
        manipulation: ``none`` (a photograph), ``EFS`` (entire face synthesis), ``FS`` (face swap), ``AM``
            (attribute manipulation) or ``FR`` (face reenactment); see :data:`bmrl.generators.MANIPULATIONS`.
        architecture: ``none`` (a photograph) or one of :data:`bmrl.generators.ARCHITECTURES`.
        role: ``seen`` (may be trained on) or ``unseen`` (tested only).
        split: ``train``, ``val`` or ``test``.
        group: images that share a person, a source picture or a video share this name; the seen images of
            one group are all in one split.
        source: where the file comes from, such as a data set, a camera or a repository; empty if that is not known.
            What stands before an ``@`` names the collection, what follows says more, such as a version and a file.
    """

    path: str
    generator: str
    manipulation: str
    architecture: str
    role: str
    split: str
    group: str
    source: str = ""

    @property
    def collection(self) -> str:
        """The collection that the source names: what stands before its first ``@``."""
        return self.source.partition("@")[0]


COLUMNS = tuple(field.name for field in fields(Row))
"""The columns of a manifest, in the order in which they are written."""

REQUIRED = COLUMNS[:-1]
"""Those that a file must have: where its images come from may be unknown."""


def collections_by_generator(rows: Iterable[Row]) -> dict[str, tuple[str, ...]]:
    """Return the collections that the images of each generator come from, sorted; the unknown one is not among them."""
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row.generator, set()).add(row.collection)
    return {generator: tuple(sorted(collections - {""})) for generator, collections in sorted(found.items())}
