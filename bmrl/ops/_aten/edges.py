"""Sobel gradient magnitude, and its adjoint."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bmrl.ops._aten.luma import luma, luma_adjoint, unit_range

__all__ = ["sobel", "sobel_adjoint", "sobel_of_luma"]


def sobel(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Sobel magnitude in ``dtype``, by ATen operators only."""
    return sobel_of_luma(luma(unit_range(images))).to(dtype)


def sobel_of_luma(gray: Tensor) -> Tensor:
    """Sobel magnitude of a luma ``(batch, 1, height, width)``."""
    return _magnitude(*_parts(gray))


def _magnitude(gx: Tensor, gy: Tensor) -> Tensor:
    square = (gx * gx).addcmul_(gy, gy)
    # The gradient at a flat pixel is 0, where that of a plain root is not a number.
    flat = square == 0
    return square.masked_fill_(flat, 1).sqrt().masked_fill(flat, 0)


def _parts(gray: Tensor) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical gradient of ``(batch, 1, height, width)``, by separable shifted sums."""
    padded = F.pad(gray, (1, 1, 1, 1), mode="reflect")
    above, middle, below = padded[..., :-2, :], padded[..., 1:-1, :], padded[..., 2:, :]
    smoothed = above.add(middle, alpha=2).add_(below)
    difference = below - above
    gx = smoothed[..., 2:] - smoothed[..., :-2]
    gy = difference[..., :-2].add(difference[..., 1:-1], alpha=2).add_(difference[..., 2:])
    return gx, gy


def sobel_adjoint(gradient: Tensor, images: Tensor) -> Tensor:
    """Gradient of the images from that of their Sobel magnitude; differentiable itself."""
    gray = luma(unit_range(images))
    gx, gy = _parts(gray)
    magnitude = _magnitude(gx, gy)
    flow = gradient.to(gray.dtype) / torch.where(magnitude > 0, magnitude, torch.inf)
    across, along = flow * gx, flow * gy
    smoothed = F.pad(across, (2, 0)) - F.pad(across, (0, 2))
    difference = F.pad(along, (0, 2)) + 2 * F.pad(along, (1, 1)) + F.pad(along, (2, 0))
    padded = (
        F.pad(smoothed - difference, (0, 0, 0, 2))
        + 2 * F.pad(smoothed, (0, 0, 1, 1))
        + F.pad(smoothed + difference, (0, 0, 2, 0))
    )
    height, width = images.shape[-2:]
    # What fell on the mirrored border belongs to the second and the last but one row and column.
    rows = padded[..., 1:-1, :] + F.pad(padded[..., :1, :], (0, 0, 1, height - 2))
    rows = rows + F.pad(padded[..., -1:, :], (0, 0, height - 2, 1))
    folded = rows[..., 1:-1] + F.pad(rows[..., :1], (1, width - 2)) + F.pad(rows[..., -1:], (width - 2, 1))
    return luma_adjoint(folded, images.shape[1]).to(images.dtype)
