"""A picture and its parsing map painted together, from smooth shapes given by signed distances."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bmrl.parsing import PARSING_CLASSES

__all__ = ["Array", "Canvas", "coverage", "ellipse", "smooth_noise", "smoothstep"]

Array = NDArray[np.floating[Any]]
"""Image planes and masks: float32 throughout (NumPy's type stubs widen products with Python numbers)."""


class Canvas:
    """An image ``(size, size, 3)`` float32 in [0, 1] and its parsing map ``(size, size)`` uint8 in 0..18.

    What is painted covers what was there, in the picture with antialiased edges and in the map wherever it
    covers more than half a pixel: so the map is exact, not estimated.
    """

    def __init__(self, size: int) -> None:
        self.image: Array = np.zeros((size, size, 3), np.float32)
        self.parsing: NDArray[np.uint8] = np.zeros((size, size), np.uint8)

    def window(self, rows: slice, columns: slice) -> Canvas:
        """Return a canvas that shares the pixels of this one inside ``rows`` and ``columns``."""
        part = Canvas(0)
        part.image, part.parsing = self.image[rows, columns], self.parsing[rows, columns]
        return part

    def paint(self, cover: Array, color: Array, label: str | None = None) -> None:
        """Blend ``color`` over the image.

        Args:
            cover: ``(size, size)`` in [0, 1], the share of each pixel that the shape covers.
            color: RGB in [0, 1], ``(3,)`` or ``(size, size, 3)``.
            label: a name of :data:`bmrl.parsing.PARSING_CLASSES`; None leaves the parsing map as it is.
        """
        self.image += cover[..., None] * (color - self.image)
        if label is not None:
            self.mark(cover > 0.5, label)

    def mark(self, where: NDArray[np.bool_], label: str) -> None:
        """Enter the class ``label`` in the parsing map ``where`` it holds; the picture stays as it is."""
        self.parsing[where] = PARSING_CLASSES.index(label)

    def shade(self, factor: Array) -> None:
        """Multiply the image by ``factor`` ``(size, size)``: light above 1, shadow below."""
        self.image *= factor[..., None]


def coverage(distance: Array, pixel: float) -> Array:
    """Share of each pixel inside a shape, in [0, 1], from its signed distance (negative inside) and a pixel's side."""
    cover: Array = np.clip(0.5 - distance / pixel, 0.0, 1.0)
    return cover


def ellipse(x: Array, y: Array, width: float, height: float) -> Array:
    """Signed distance, to first order, from an axis-parallel ellipse at 0 with these half axes."""
    norm = np.sqrt((x / width) ** 2 + (y / height) ** 2) + 1e-6
    slope = np.sqrt((x / width**2) ** 2 + (y / height**2) ** 2) + 1e-6
    return norm * (norm - 1.0) / slope


def smoothstep(low: float, high: float, x: Array) -> Array:
    """0 below ``low``, 1 above ``high``, a cubic between; with ``low > high`` it falls instead."""
    t: Array = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> Array:
    """Band-limited noise ``(size, size)``, about unit variance: ``cells`` random values per side, bicubic between."""
    grid = rng.standard_normal((cells, cells), dtype=np.float32)
    return np.asarray(Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC)) * np.float32(1.2)
