"""A simulated camera: what turns a rendered scene into a *photograph* with a camera's trace."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bmrl.data.simulated.filters import separable

if TYPE_CHECKING:
    from bmrl.data.simulated.canvas import Array

__all__ = ["photograph", "to_bytes"]

_QUALITIES = (0, 0, 94, 97)
_GREEN = np.array([[1, 0], [0, 1]], np.float32)
_RED = np.array([[0, 1], [0, 0]], np.float32)
_BLUE = np.array([[0, 0], [1, 0]], np.float32)


def to_bytes(image: Array) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Round an image in [0, 1] to uint8."""
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def photograph(image: Array, rng: np.random.Generator) -> Array:
    """Lens blur, Bayer mosaic, shot and read noise, bilinear demosaicing; mild JPEG or none.

    Demosaicing correlates neighboring pixels with period 2 (Popescu & Farid 2005; Cao & Kot 2009); the noise has
    variance gain * light + read^2 (Foi et al. 2008).
    """
    blur = rng.uniform(0.10, 0.16)
    gain, read = rng.uniform(2e-4, 5e-4), rng.uniform(0.004, 0.008)
    scene = separable(image, [blur, 1 - 2 * blur, blur])
    size = image.shape[0]
    planes = []
    for channel, pattern in enumerate((_RED, _GREEN, _BLUE)):
        noise = np.sqrt(gain * scene[..., channel] + read**2) * rng.standard_normal((size, size), dtype=np.float32)
        sites = np.tile(pattern, (size // 2, size // 2))
        planes.append(_demosaic((scene[..., channel] + noise) * sites, sites))
    photo = np.stack(planes, axis=2)
    quality = int(rng.choice(_QUALITIES))
    if quality:
        file = io.BytesIO()
        Image.fromarray(to_bytes(photo)).save(file, "JPEG", quality=quality, subsampling=0)
        return np.asarray(Image.open(file), np.float32) / np.float32(255)
    return np.clip(photo, 0, 1)


def _demosaic(samples: Array, sites: Array) -> Array:
    """Bilinear interpolation of one color: measured sites are kept, the others average their measured neighbors."""
    weights = [0.5, 1.0, 0.5]
    filled = separable(samples, weights) / separable(sites, weights)
    return np.where(sites > 0, samples, filled)
