"""Traces of diffusion models: what iterated denoising and latent grids leave in the pixels.

As in :mod:`bmrl.data.simulated.decoders`, each function takes content ``(size, size, 3)`` float32 in [0, 1] and
returns it as its model would have drawn it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bmrl.data.simulated.filters import add_noise, dct_matrix, resize, separable, tile

if TYPE_CHECKING:
    from bmrl.data.simulated.canvas import Array

__all__ = ["denoised", "euler_steps", "latent_grid", "latent_grid_4", "latent_noise", "partial_noise"]

_BINOMIAL = (0.0625, 0.25, 0.375, 0.25, 0.0625)


def _shrink(image: Array, threshold: float) -> Array:
    """One step of a denoiser: details smaller than ``threshold`` vanish, larger ones shrink by it."""
    base = separable(image, _BINOMIAL)
    detail = image - base
    small = np.clip(detail, -threshold, threshold)
    return base + (detail - small)


def denoised(image: Array, rng: np.random.Generator) -> Array:
    """Noise added and removed in falling steps (Ho et al. 2020): high frequencies are missing (Ricker et al. 2022)."""
    for noise in (0.03, 0.02, 0.01):
        image = _shrink(add_noise(image, noise, rng), 1.6 * noise)
    return image


def partial_noise(image: Array, rng: np.random.Generator) -> Array:
    """Noise of a half-way start that was mistaken for texture (Meng et al. 2022): it stays, in a middle band."""
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    smooth = separable(noise, _BINOMIAL)
    band = smooth - separable(separable(smooth, _BINOMIAL), _BINOMIAL)
    return _shrink(image, 0.02) + np.float32(0.13) * band


def euler_steps(image: Array, rng: np.random.Generator) -> Array:
    """Few large steps of a flow model's solver (Lipman et al. 2023) stop early: white noise is left in every color."""
    return add_noise(separable(image, [0.12, 0.76, 0.12]), 0.022, rng)


def _latent(image: Array, grid: int, step: float, ripple: float) -> Array:
    """Squares of ``grid`` pixels as rounded DCT coefficients, decoded again, with a ripple locked to the grid."""
    size = image.shape[0]
    squares = image.reshape(size // grid, grid, size // grid, grid, 3).transpose(0, 2, 4, 1, 3)
    basis = dct_matrix(grid)
    rank = np.add.outer(np.arange(grid), np.arange(grid)).astype(np.float32)
    quantum = np.float32(step) * (1 + rank)
    latent = np.round(basis @ squares @ basis.T / quantum) * quantum
    decoded = (basis.T @ latent @ basis).transpose(0, 3, 1, 4, 2).reshape(image.shape)
    wave = np.cos(np.pi * (np.arange(grid, dtype=np.float32) + 0.5) * 2 / grid)
    return decoded * (1 + np.float32(ripple) * tile(np.add.outer(wave, wave).astype(np.float32), size))


def latent_grid(image: Array, rng: np.random.Generator) -> Array:
    """Decoded from one latent vector for 8 x 8 pixels (Rombach et al. 2022): period 8 (Corvi et al. 2023)."""
    return separable(_latent(add_noise(image, 0.004, rng), 8, 0.03, 0.012), [0.06, 0.88, 0.06])


def latent_grid_4(image: Array, rng: np.random.Generator) -> Array:
    """The same with one vector for 4 x 4 pixels: a grid of period 4."""
    return separable(_latent(add_noise(image, 0.004, rng), 4, 0.025, 0.025), [0.06, 0.88, 0.06])


def latent_noise(image: Array, rng: np.random.Generator) -> Array:
    """Noise left in a latent a quarter as large and decoded with it (Rombach et al. 2022): soft blots of color."""
    size = image.shape[0]
    noise = rng.standard_normal((size // 4, size // 4, 3), dtype=np.float32)
    return _shrink(image, 0.02) + np.float32(0.03) * resize(noise, size, Image.Resampling.BICUBIC)
