"""The images that an export is verified and calibrated with: a data folder's splits, or any folder of images."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from bmrl.data.finding import find_images
from bmrl.data.manifest import FILENAME, Manifest
from bmrl.errors import DataError
from bmrl.inference.reading import read_batches

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ExportImages", "read_export_images"]

MOST_VERIFIED = 1000
MOST_CALIBRATED = 256


class ExportImages(NamedTuple):
    """uint8 images ``(n, 3, image_size, image_size)``."""

    test: Tensor
    calibration: Tensor | None


def read_export_images(folder: str | Path, image_size: int, *, calibrate: bool) -> ExportImages:
    """Read up to 1,000 images to verify with, and up to 256 to calibrate with if asked, always the same ones.

    Of a data folder (with ``manifest.csv``), these are images of the test split and seen images of the training split;
    of any other folder, both are drawn from all images below it (:func:`~bmrl.data.find_images`), without an image in
    common where there are two.

    Raises:
        MissingFileError: there is no folder.
        DataError: there is no readable image in one of the two, or the manifest breaks a rule.
    """
    folder = Path(folder)
    if os.path.lexists(folder / FILENAME):
        manifest = Manifest.read(folder)
        test = [manifest.image_path(row) for row in manifest.select(split="test")]
        calibration = [manifest.image_path(row) for row in manifest.select(split="train", role="seen")]
    else:
        found = find_images(folder).images
        random.Random(0).shuffle(found)
        test, calibration = found[: -(-len(found) // 2)], found[-(-len(found) // 2) :] or found
    return ExportImages(
        _read(test, image_size, MOST_VERIFIED, f"{folder}, to verify with"),
        _read(calibration, image_size, MOST_CALIBRATED, f"{folder}, to calibrate with") if calibrate else None,
    )


def _read(paths: list[Path], image_size: int, most: int, what: str) -> Tensor:
    """Read some of the images, drawn evenly; those that can't be read are left out."""
    paths = random.Random(0).sample(paths, min(most, len(paths)))
    parts = [batch.images for batch in read_batches(paths, image_size, 64) if batch.images is not None]
    if not parts:
        raise DataError(f"{what}: expected images that can be read, got none")
    return torch.cat(parts)
