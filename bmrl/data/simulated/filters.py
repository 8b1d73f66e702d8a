"""Small separable filters and resamplers on images ``(height, width, 3)`` or masks ``(height, width)``, float32."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bmrl.data.simulated.canvas import Array

__all__ = ["add_noise", "dct_matrix", "downsample", "resize", "separable", "soften", "tile"]


def add_noise(image: Array, deviation: float, rng: np.random.Generator) -> Array:
    """Add white Gaussian noise of this standard deviation, another value for each pixel and color."""
    return image + np.float32(deviation) * rng.standard_normal(image.shape, dtype=np.float32)


def separable(image: Array, taps: Sequence[float]) -> Array:
    """Filter rows and columns with an odd number of ``taps``; beyond the border the image is mirrored."""
    reach = len(taps) // 2
    for axis in (0, 1):
        pad = [(reach, reach) if a == axis else (0, 0) for a in range(image.ndim)]
        padded = np.pad(image, pad, mode="reflect")
        length = image.shape[axis]
        rows = [
            padded[start : start + length] if axis == 0 else padded[:, start : start + length]
            for start in range(len(taps))
        ]
        image = sum((tap * part for tap, part in zip(taps[1:], rows[1:], strict=True)), taps[0] * rows[0])
    return image


def soften(mask: Array, reach: int) -> Array:
    """Blur a mask by a triangle of ``2 * reach + 1`` pixels, so that its edge fades over about ``reach`` pixels."""
    weights = np.bartlett(2 * reach + 3)[1:-1]
    return separable(mask, [float(weight) for weight in weights / weights.sum()])


def downsample(image: Array, factor: int) -> Array:
    """Shrink by a whole ``factor``, which must divide the sides: the mean of each square."""
    height, width = image.shape[:2]
    squares = image.reshape(height // factor, factor, width // factor, factor, -1)
    return np.asarray(squares.mean((1, 3), dtype=np.float32))


def resize(image: Array, size: int, method: Image.Resampling) -> Array:
    """Resample a square image to ``size`` pixels per side (antialiased where it shrinks)."""
    planes = [np.asarray(Image.fromarray(plane).resize((size, size), method)) for plane in np.moveaxis(image, 2, 0)]
    return np.stack(planes, axis=2)


def tile(pattern: Array, size: int) -> Array:
    """Repeat a pattern ``(period, period)`` or ``(period, period, 3)`` over ``(size, size, 1 or 3)``."""
    index = np.arange(size) % pattern.shape[0]
    planes: Array = pattern.reshape(*pattern.shape[:2], -1)
    return np.asarray(planes[index[:, None], index[None]])


@functools.cache
def dct_matrix(size: int) -> Array:
    """Orthonormal DCT-II matrix ``(size, size)``."""
    k, n = np.mgrid[:size, :size]
    matrix = np.sqrt(2 / size) * np.cos(np.pi * (2 * n + 1) * k / (2 * size))
    matrix[0] /= np.sqrt(2)
    return np.asarray(matrix, np.float32)
