"""The operators as parallel loops in numba; numba is imported and the loops are compiled at the first call."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["richest_index", "sobel", "srm", "views"]


@functools.cache
def _kernels() -> tuple[Callable[..., None], ...]:
    from numba import njit, prange

    scale = np.float32(1 / 255)

    @njit(parallel=True, fastmath=True)
    def sobel(images, result):
        batch, _, height, width = images.shape
        for b in prange(batch):
            gray = np.empty((height + 2, width + 2), np.float32)
            for y in range(height):
                for x in range(width):
                    gray[y + 1, x + 1] = scale * (
                        np.float32(0.299) * images[b, 0, y, x]
                        + np.float32(0.587) * images[b, 1, y, x]
                        + np.float32(0.114) * images[b, 2, y, x]
                    )
            gray[0], gray[-1] = gray[2], gray[-3]
            gray[:, 0], gray[:, -1] = gray[:, 2], gray[:, -3]
            for y in range(height):
                up, at, down = gray[y], gray[y + 1], gray[y + 2]
                for x in range(width):
                    gx = up[x + 2] - up[x] + 2 * (at[x + 2] - at[x]) + down[x + 2] - down[x]
                    gy = down[x] + 2 * down[x + 1] + down[x + 2] - up[x] - 2 * up[x + 1] - up[x + 2]
                    result[b, 0, y, x] = np.sqrt(gx * gx + gy * gy)

    @njit(parallel=True, fastmath=True)
    def srm(images, corners, side, result):
        batch = images.shape[0]
        for b in prange(batch):
            total = np.zeros((side + 4, side + 4), np.float32)
            top, left = corners[b]
            for y in range(side):
                for x in range(side):
                    total[y + 2, x + 2] = scale * (
                        np.float32(images[b, 0, top + y, left + x])
                        + np.float32(images[b, 1, top + y, left + x])
                        + np.float32(images[b, 2, top + y, left + x])
                    )
            d1 = np.empty((side, side + 4), np.float32)
            d2 = np.empty((side, side + 4), np.float32)
            for y in range(side):
                for x in range(side + 4):
                    d1[y, x] = total[y + 1, x] - 2 * total[y + 2, x] + total[y + 3, x]
                    d2[y, x] = total[y, x] - 2 * total[y + 2, x] + total[y + 4, x]
            for y in range(side):
                row, a, c = total[y + 2], d1[y], d2[y]
                for x in range(side):
                    inner = a[x + 1] - 2 * a[x + 2] + a[x + 3]
                    kv = 2 * (c[x + 1] - 2 * c[x + 2] + c[x + 3]) - 6 * inner
                    kv += 2 * (a[x] - 2 * a[x + 2] + a[x + 4]) - (c[x] - 2 * c[x + 2] + c[x + 4])
                    h2 = row[x + 1] - 2 * row[x + 2] + row[x + 3]
                    result[b, 0, y, x] = min(max(inner * np.float32(-0.25), np.float32(-3)), np.float32(3))
                    result[b, 1, y, x] = min(max(kv * np.float32(1 / 12), np.float32(-3)), np.float32(3))
                    result[b, 2, y, x] = min(max(h2 * np.float32(0.5), np.float32(-3)), np.float32(3))

    @njit(parallel=True)
    def select(images, side, table, indices):
        batch, _, height, width = images.shape
        rows, columns = height // side, width // side
        for b in prange(batch):
            best, winner = 2**62, 0
            level = np.empty(side, np.int32)
            for patch in range(rows * columns):
                top, left = patch // columns * side, patch % columns * side
                total = 0
                for y in range(top, top + side):
                    for x in range(side):
                        level[x] = (
                            299 * np.int32(images[b, 0, y, left + x])
                            + 587 * np.int32(images[b, 1, y, left + x])
                            + 114 * np.int32(images[b, 2, y, left + x])
                        ) // 1000
                    for x in range(side - 1):
                        total += table[abs(level[x + 1] - level[x])]
                if total < best:
                    best, winner = total, patch
            indices[b] = winner

    return sobel, srm, select


def sobel(images: Tensor) -> tuple[Tensor]:
    """Sobel magnitude ``(batch, 1, height, width)``."""
    result = torch.empty(len(images), 1, *images.shape[-2:])
    _kernels()[0](images.numpy(), result.numpy())
    return (result,)


def srm(images: Tensor, side: int, corners: np.ndarray | None = None) -> tuple[Tensor]:
    """Residuals ``(batch, 3, side, side)`` of the patch at the corner (y, x) of each image; None means the top left."""
    result = torch.empty(len(images), 3, side, side)
    corners = np.zeros((len(images), 2), np.int64) if corners is None else corners
    _kernels()[1](images.numpy(), corners, side, result.numpy())
    return (result,)


def richest_index(images: Tensor, side: int) -> Tensor:
    """Index ``(batch,)`` of the richest patch."""
    table = np.rint(2**24 / (1 + np.arange(256) ** 2)).astype(np.int64)
    indices = torch.empty(len(images), dtype=torch.int64)
    _kernels()[2](images.numpy(), side, table, indices.numpy())
    return indices


def views(images: Tensor, side: int) -> tuple[Tensor, ...]:
    """Appearance, edge, and noise of the richest patch."""
    indices = richest_index(images, side).numpy()
    columns = images.shape[-1] // side
    corners = np.stack((indices // columns, indices % columns), axis=1) * side
    return images.float() / 255, *sobel(images), *srm(images, side, corners)
