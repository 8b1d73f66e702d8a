"""Similarity of neighboring gray levels, the patch with the lowest similarity, and the adjoint of cropping it."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

__all__ = ["patch_at", "patch_at_adjoint", "patch_similarity", "richest_index"]


def richest_index(levels: Tensor, patch_size: int) -> Tensor:
    """Index ``(batch,)`` of the least homogeneous patch of gray levels ``(batch, height, width)``."""
    # Whole numbers, so that their sum is exact in any order: a tie is a tie on every device.
    similarity = patch_similarity(levels, patch_size).mul_(2**24).round_()
    return _sum_whole_numbers(similarity).flatten(1).argmin(dim=1)


def patch_similarity(levels: Tensor, patch_size: int) -> Tensor:
    """1 / (1 + d**2) of horizontal neighbors d levels apart, ``(batch, rows, columns, p, p - 1)``."""
    patches = rearrange(_cropped(levels, patch_size), "b (r p) (q s) -> b r q p s", p=patch_size, s=patch_size)
    differences = patches[..., 1:] - patches[..., :-1]
    return differences.square_().add_(1).reciprocal_()


def _sum_whole_numbers(values: Tensor) -> Tensor:
    """Exact sum over the last two axes, in float64, of whole numbers from 0 to 2**24; ``values`` is overwritten."""
    if values.shape[-1] > 2**12:
        return values.sum(dim=(-2, -1), dtype=torch.float64)
    # Much faster: the halves of up to 2**12 numbers add up to no more than 2**24, below which float32 is exact.
    high = values.mul(2**-12).floor_()
    low = values.sub_(high, alpha=2**12)
    high_sum, low_sum = (part.sum(dim=-1).sum(dim=-1, dtype=torch.float64) for part in (high, low))
    return high_sum.mul_(2**12).add_(low_sum)


def patch_grid(images: Tensor, patch_size: int) -> Tensor:
    """Non-overlapping patches ``(batch, rows, columns, channels, patch_size, patch_size)``, a view of the images."""
    cropped = _cropped(images, patch_size)
    return rearrange(cropped, "b c (r p) (q s) -> b r q c p s", p=patch_size, s=patch_size)


def patch_at(images: Tensor, indices: Tensor, patch_size: int) -> Tensor:
    """The patch of each image that ``indices`` ``(batch,)`` names, row by row."""
    patches = patch_grid(images, patch_size)
    return patches[_places(indices, patches.shape[2])]


def patch_at_adjoint(gradient: Tensor, indices: Tensor, shape: torch.Size) -> Tensor:
    """Gradient of images of ``shape`` from that of their patches ``(batch, channels, patch_size, patch_size)``."""
    result = gradient.new_zeros(shape)
    patches = patch_grid(result, gradient.shape[-1])
    patches[_places(indices, patches.shape[2])] = gradient
    return result


def _places(indices: Tensor, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """Image, row and column of each chosen patch."""
    each = torch.arange(indices.shape[0], device=indices.device)
    return each, indices // columns, indices % columns


def _cropped(images: Tensor, patch_size: int) -> Tensor:
    """Drop the rows and columns that no patch covers."""
    height, width = images.shape[-2:]
    return images[..., : height - height % patch_size, : width - width % patch_size]
