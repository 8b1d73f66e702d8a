"""Reading a manifest, and computing something for every readable image of its rows."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from bmrl._results import Result
from bmrl.data.manifest import Manifest
from bmrl.errors import DataError, DTypeError
from bmrl.inference.reading import read_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from bmrl.data.row import Row

__all__ = ["Computed", "Skipped", "as_manifest", "compute_rows"]


@dataclass(frozen=True, slots=True)
class Skipped(Result):
    """An image that could not be read, and why.

    Attributes:
        row: the image.
        reason: what reading it raised, on one line.
    """

    row: Row
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return ``path``, ``generator`` and ``reason``."""
        return {"path": self.row.path, "generator": self.row.generator, "reason": self.reason}


class Computed(NamedTuple):
    """What :func:`compute_rows` returns: the rows that were read, one tensor per result, the rows that were not."""

    rows: tuple[Row, ...]
    tensors: tuple[Tensor, ...]
    skipped: tuple[Skipped, ...]


def as_manifest(data: Manifest | str | os.PathLike[str]) -> Manifest:
    """Return a manifest, read if its folder is given.

    Raises:
        DTypeError: ``data`` is neither.
        MissingFileError, DataError: the folder holds no usable manifest.
    """
    if isinstance(data, Manifest):
        return data
    if not isinstance(data, str | os.PathLike):
        raise DTypeError(f"data: expected a Manifest or its folder, got {type(data).__name__}")
    return Manifest.read(data)


def compute_rows(
    manifest: Manifest,
    rows: Sequence[Row],
    image_size: int,
    compute: Callable[[Tensor], tuple[Tensor, ...]],
    *,
    batch_size: int,
    read: Callable[[Any, int], Tensor],
    progress: Callable[[int, int], None] | None = None,
) -> Computed:
    """Read images in batches and join the results of ``compute`` on the CPU, in the order of ``rows``.

    Args:
        manifest: knows where the images are.
        rows: the images.
        image_size: side S of the images in pixels.
        compute: uint8 ``(batch, 3, S, S)`` to a tuple of tensors with ``batch`` rows each.
        batch_size: images per step, >= 1.
        read: turns a path and S into uint8 ``(3, S, S)``.
        progress: called after each step with the number of images done and of all.

    Raises:
        DataError: there is no row, or no image can be read.
    """
    if not rows:
        raise DataError(f"data: expected images to read in {manifest.root}, got none")
    readable: list[Row] = []
    skipped: list[Skipped] = []
    results: list[tuple[Tensor, ...]] = []

    def read_row(row: Row, size: int) -> Tensor:
        return read(manifest.image_path(row), size)

    for batch in read_batches(rows, image_size, batch_size, read=read_row):
        for row, item in zip(batch.sources, batch.items, strict=True):
            if isinstance(item, int):
                readable.append(row)
            else:
                skipped.append(Skipped(row, str(item)))
        if batch.images is not None:
            results.append(tuple(result.cpu() for result in compute(batch.images)))
        if progress is not None:
            progress(len(readable) + len(skipped), len(rows))
    if not readable:
        raise DataError(f"data: expected readable images, got {len(rows)} unreadable; first: {skipped[0].reason}")
    return Computed(tuple(readable), tuple(map(torch.cat, zip(*results, strict=True))), tuple(skipped))
