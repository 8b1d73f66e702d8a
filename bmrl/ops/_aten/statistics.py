"""Counts of neighboring residuals, sizes of DCT coefficients, power of frequencies, over a whole image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "BLOCK",
    "NUM_ORBITS",
    "NUM_RINGS",
    "WINDOW",
    "block_statistics",
    "color_statistics",
    "cooccurrences",
    "dct_matrix",
    "fourier_matrices",
    "levels_and_chroma",
    "orbits",
    "ring_weights",
    "spectrum",
]

BLOCK = 8
"""Height and width of the blocks of JPEG."""
WINDOW = 32
"""Height and width of the windows of the spectrum."""
NUM_RINGS = 22
"""Rings of the spectrum, each 1 / WINDOW cycles per pixel wide, up to the corners at sqrt(0.5)."""
NUM_ORBITS = 39
"""Triples of values -2 .. 2, where those that a reversal or a change of signs joins count as one."""
SMALL = 9 / 16
"""A DCT coefficient below this many gray levels counts as none."""
FLOOR = 0.01
"""Added before a logarithm; far below what the rounding of gray levels leaves."""


def levels_and_chroma(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the luma Y, R - Y and B - Y in whole gray levels, each ``(batch, height, width)`` float32.

    Floats in [0, 1] are rounded to gray levels; what is not finite counts as 0.
    """
    levels = images.float()
    if images.dtype != torch.uint8:
        levels = torch.where(levels.abs() <= 2, levels * 255, torch.zeros_like(levels)).round()
    red, green, blue = levels.unbind(dim=1)
    # Of whole numbers, which float32 holds exactly, so that every device rounds the same value.
    luma = ((299 * red + 587 * green + 114 * blue + 500) * 0.001).floor()
    return luma, red - luma, blue - luma


def orbits() -> list[int]:
    """Return the number 0 .. 38 of each of the 125 triples of values -2 .. 2, in the order of their code in base 5."""
    values = range(-2, 3)
    numbers: dict[frozenset[tuple[int, int, int]], int] = {}
    found = []
    for a, b, c in ((a, b, c) for a in values for b in values for c in values):
        same = frozenset({(a, b, c), (c, b, a), (-a, -b, -c), (-c, -b, -a)})
        found.append(numbers.setdefault(same, len(numbers)))
    return found


def cooccurrences(luma: Tensor, red: Tensor, blue: Tensor, orbit_of: Tensor) -> Tensor:
    """Return how often three residuals side by side take which values: ``(batch, 8 * 39)``, square roots of shares.

    In order: first, second and third difference and 3 x 3 square of the luma; second difference and square of R - Y;
    the same of B - Y. Residuals are divided by the sum of their filter's positive weights, which is their step, rounded
    and clamped to -2 .. 2. Rows and columns count together.

    Args:
        luma: Y, see :func:`levels_and_chroma`.
        red: R - Y.
        blue: B - Y.
        orbit_of: ``(125,)``, see :func:`orbits`.
    """
    kinds = [
        *((luma, kind) for kind in (_first, _second, _third, _square)),
        *((plane, kind) for plane in (red, blue) for kind in (_second, _square)),
    ]
    return torch.cat([_shares(kind(plane), kind(plane.mT), orbit_of) for plane, kind in kinds], dim=1).sqrt()


def _first(plane: Tensor) -> Tensor:
    return plane[..., 1:] - plane[..., :-1]


def _second(plane: Tensor) -> Tensor:
    return _first(_first(plane)) / 2


def _third(plane: Tensor) -> Tensor:
    return _first(_first(_first(plane))) / 4


def _square(plane: Tensor) -> Tensor:
    along = _first(_first(plane)).mT
    return _first(_first(along)).mT / 8


def _shares(rows: Tensor, columns: Tensor, orbit_of: Tensor) -> Tensor:
    """Return the shares of the triples of residuals in ``rows`` and in ``columns``, ``(batch, 39)``."""
    codes = torch.cat([_codes(rows), _codes(columns)], dim=1)
    numbers = orbit_of.long()[codes.long()]
    counts = rows.new_zeros(rows.shape[0], NUM_ORBITS).scatter_add(1, numbers, torch.ones_like(codes))
    return counts / codes.shape[1]


def _codes(residuals: Tensor) -> Tensor:
    """Return the code in base 5 of each three residuals side by side, ``(batch, count)``."""
    values = residuals.round().clamp(-2, 2)
    return (values[..., :-2] * 25 + values[..., 1:-1] * 5 + values[..., 2:] + 62).flatten(1)


def dct_matrix() -> Tensor:
    """Return the orthonormal DCT-II of 8 values, ``(8, 8)`` float32: a row per frequency."""
    place = torch.arange(BLOCK, device="cpu", dtype=torch.float64)
    matrix = torch.cos(math.pi / BLOCK * (place + 0.5) * place[:, None]) * math.sqrt(2 / BLOCK)
    matrix[0] = math.sqrt(1 / BLOCK)
    return matrix.float()


def block_statistics(luma: Tensor, dct: Tensor) -> Tensor:
    """Return the DCT coefficients of 8 x 8 blocks in two numbers each but the first, ``(batch, 126)``.

    For each of 63 frequencies the natural logarithm of the mean magnitude + 0.01; then, for each, the share of
    coefficients below 9 / 16 gray levels. Blocks begin at the upper left; what is left over is dropped.
    """
    sizes = (dct @ _without_mean(_blocks(luma, BLOCK)) @ dct.mT).abs().flatten(2)[:, :, 1:]
    return torch.cat([(sizes.mean(dim=1) + FLOOR).log(), (sizes < SMALL).float().mean(dim=1)], dim=1)


def _blocks(plane: Tensor, size: int) -> Tensor:
    """Return blocks side by side, ``(batch, count, size, size)``, of ``(batch, height, width)``."""
    rows, columns = plane.shape[1] // size, plane.shape[2] // size
    cropped = plane[:, : rows * size, : columns * size]
    parts = cropped.reshape(plane.shape[0], rows, size, columns, size)
    return parts.transpose(2, 3).reshape(plane.shape[0], rows * columns, size, size)


def _without_mean(blocks: Tensor) -> Tensor:
    """Subtract what no frequency but the constant one holds, and what would be rounded along with them."""
    return blocks - blocks.mean(dim=(2, 3), keepdim=True)


def fourier_matrices() -> tuple[Tensor, Tensor]:
    """Return cosine and sine of the Fourier transform of 32 values under a Hann window, ``(32, 32)`` float32 each."""
    place = torch.arange(WINDOW, device="cpu", dtype=torch.float64)
    window = torch.sin(math.pi * (place + 0.5) / WINDOW).square()
    angle = 2 * math.pi / WINDOW * place * place[:, None]
    scale = window / math.sqrt(window.square().sum().item())
    return (angle.cos() * scale).float(), (angle.sin() * scale).float()


def ring_weights() -> Tensor:
    """Return the share of each of 32 x 32 frequencies in each ring, ``(1024, 22)`` float32; the mean is left out."""
    line = torch.arange(WINDOW, device="cpu", dtype=torch.float64)
    line = torch.minimum(line, WINDOW - line)
    ring = (line.square() + line[:, None].square()).sqrt().round().long().flatten()
    weights = torch.nn.functional.one_hot(ring, NUM_RINGS + 2)[:, 1 : NUM_RINGS + 1].double()
    return (weights / weights.sum(dim=0)).float()


def spectrum(luma: Tensor, cosine: Tensor, sine: Tensor, rings: Tensor) -> Tensor:
    """Return the natural logarithm of the mean power + 0.01 in each ring of the spectrum, ``(batch, 22)``.

    Averaged over windows of 32 x 32 pixels side by side, from the upper left, each without its mean.
    """
    windows = _without_mean(_blocks(luma, WINDOW))
    by_cosine, by_sine = cosine @ windows, sine @ windows
    real = by_cosine @ cosine.mT - by_sine @ sine.mT
    imaginary = by_sine @ cosine.mT + by_cosine @ sine.mT
    power = (real.square() + imaginary.square()).mean(dim=1)
    return (power.flatten(1) @ rings + FLOOR).log()


def color_statistics(luma: Tensor, red: Tensor, blue: Tensor) -> Tensor:
    """Return five numbers of the residuals of color, ``(batch, 5)``.

    Of the 3 x 3 square of Y, R - Y and B - Y in gray levels: the natural logarithm of the deviation + 0.01 of the last
    two, and the correlations of Y with R - Y, of Y with B - Y, and of R - Y with B - Y; 0 where one is constant.
    """
    residuals = torch.stack([_square(plane).flatten(1) for plane in (luma, red, blue)], dim=1)
    residuals = residuals - residuals.mean(dim=2, keepdim=True)
    covariance = residuals @ residuals.mT / residuals.shape[2]
    deviation = covariance.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
    correlation = covariance / (deviation[:, :, None] * deviation[:, None, :]).clamp(min=1e-6)
    pairs = torch.stack([correlation[:, 0, 1], correlation[:, 0, 2], correlation[:, 1, 2]], dim=1)
    return torch.cat([(deviation[:, 1:] + FLOOR).log(), pairs], dim=1)
