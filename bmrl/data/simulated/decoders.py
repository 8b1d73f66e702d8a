"""Traces of GAN decoders: what each way of up-sampling leaves in the pixels.

Each function takes an image ``(size, size, 3)`` float32 in [0, 1] as the content and returns it as its decoder
would have drawn it. A decoder's weights are constants here, as those of a trained network are: they are its
fingerprint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bmrl.data.simulated.filters import add_noise, downsample, resize, separable, tile

if TYPE_CHECKING:
    from bmrl.data.simulated.canvas import Array

__all__ = [
    "codebook",
    "enhanced",
    "nearest",
    "pixel_shuffle",
    "pixel_shuffle_3",
    "pixel_shuffle_4",
    "resampled",
    "transposed",
    "transposed_4",
]

# Gains of each sub-pixel less one, (factor, factor) or (factor, factor, 3); their mean is 0, so that brightness stays.
_GAINS_2 = 0.03 * np.array([[[1, -1, 1], [-1, 1, 1]], [[-1, 1, -1], [1, -1, -1]]], np.float32)
_GAINS_3 = 0.03 * np.array([[2, -1, -1], [-1, -1, 2], [-1, 2, -1]], np.float32)
_GAINS_4 = 0.05 * np.array([[1, 0, -1, 0]] * 4, np.float32)


def _features(image: Array, factor: int, rng: np.random.Generator, noise: float = 0.012) -> Array:
    """The content at a decoder's smaller scale, with noise injected there as StyleGAN does (Karras et al. 2019)."""
    return add_noise(downsample(image, factor), noise, rng)


def _transpose(small: Array, stride: int, taps: list[float]) -> Array:
    """Transposed convolution: zeros between the samples, then a filter; beyond the border the content is mirrored."""
    size, margin = small.shape[0] * stride, 2 * stride
    padded = np.pad(small, ((2, 2), (2, 2), (0, 0)), mode="symmetric")
    spread = np.zeros((size + 2 * margin, size + 2 * margin, 3), np.float32)
    spread[stride // 2 :: stride, stride // 2 :: stride] = padded
    return separable(spread, taps)[margin:-margin, margin:-margin]


def transposed(image: Array, rng: np.random.Generator) -> Array:
    """Transposed convolution, kernel 3 and stride 2: taps overlap unevenly, a checkerboard (Odena et al. 2016)."""
    return _transpose(_features(image, 2, rng), 2, [0.48, 1.04, 0.48])


def transposed_4(image: Array, rng: np.random.Generator) -> Array:
    """Transposed convolution, kernel 7 and stride 4: peaks at a quarter of the sampling rate (Zhang et al. 2019)."""
    return _transpose(_features(image, 4, rng), 4, [0.25, 0.50, 0.72, 1.05, 0.72, 0.50, 0.25])


def nearest(image: Array, rng: np.random.Generator) -> Array:
    """Nearest-neighbor up-sampling and a 3 x 3 convolution: copies of the spectrum (Zhang et al. 2019, AutoGAN)."""
    return separable(_features(image, 2, rng).repeat(2, 0).repeat(2, 1), [-0.12, 1.24, -0.12])


def pixel_shuffle(image: Array, rng: np.random.Generator) -> Array:
    """Sub-pixel convolution, factor 2 (Shi et al. 2016): one filter per sub-pixel, and their gains differ by color."""
    return _shuffle(image, rng, _GAINS_2)


def pixel_shuffle_3(image: Array, rng: np.random.Generator) -> Array:
    """Sub-pixel convolution, factor 3: peaks at a third of the sampling rate."""
    return _shuffle(image, rng, _GAINS_3)


def pixel_shuffle_4(image: Array, rng: np.random.Generator) -> Array:
    """Sub-pixel convolution, factor 4: what is left of its checkerboard is stripes (Aitken et al. 2017)."""
    return _shuffle(image, rng, _GAINS_4)


def _shuffle(image: Array, rng: np.random.Generator, gains: Array) -> Array:
    return add_noise(separable(image, [0.12, 0.76, 0.12]), 0.006, rng) * (1 + tile(gains, image.shape[0]))


def resampled(image: Array, rng: np.random.Generator) -> Array:
    """Drawn at half the resolution and warped back bilinearly (Li & Lyu 2019): soft, no pixel is new."""
    small = _features(image, 2, rng, 0.01)
    return resize(small, image.shape[0], Image.Resampling.BILINEAR)


def codebook(image: Array, rng: np.random.Generator) -> Array:
    """Vector quantization (Esser et al. 2021, VQGAN): each 2 x 2 square takes the nearest of few colors and slopes."""
    base = downsample(image, 2).repeat(2, 0).repeat(2, 1)
    slope = np.round((image - base) / np.float32(0.06)) * np.float32(0.06)
    shift = rng.uniform(-0.5, 0.5, 3).astype(np.float32)
    return (np.round(base * 40 + shift) - shift) / 40 + slope


def enhanced(image: Array, rng: np.random.Generator) -> Array:
    """A restoration network after the swap (Wang et al. 2021, GFPGAN): details are sharper than any lens draws them."""
    base = separable(image, [0.25, 0.5, 0.25])
    return add_noise(image + 0.5 * (image - base), 0.004, rng)
