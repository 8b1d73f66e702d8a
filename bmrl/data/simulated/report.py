"""What was drawn of the simulated data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bmrl._results import Result
from bmrl.data.manifest import FILENAME

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SimulationReport"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulationReport(Result):
    """What :func:`~bmrl.data.simulated.dataset.simulate` drew.

    Attributes:
        folder: the data folder, which ``Manifest.read`` takes.
        seed: of all that is random.
        image_size: the side of the images in pixels.
        images: the number of images, by generator and split.
    """

    folder: Path
    seed: int
    image_size: int
    images: dict[str, dict[str, int]]

    @property
    def manifest(self) -> Path:
        """The path of the manifest."""
        return self.folder / FILENAME

    @property
    def num_images(self) -> int:
        """The number of images of all generators."""
        return sum(sum(splits.values()) for splits in self.images.values())
