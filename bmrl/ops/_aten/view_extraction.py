"""The three views from one pass over the images, and their adjoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bmrl.ops._aten.edges import sobel_adjoint, sobel_of_luma
from bmrl.ops._aten.luma import levels_of_luma, luma, unit_range
from bmrl.ops._aten.noise import srm, srm_adjoint
from bmrl.ops._aten.patches import patch_at, patch_at_adjoint, richest_index

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["views", "views_adjoint"]


def views(
    images: Tensor, patch_size: int, truncation: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The views in ``dtype`` and the index of the richest patch, by ATen operators only."""
    # In unit range first, so that half-precision results are rounded once, at the end.
    scaled = unit_range(images)
    gray = luma(scaled)
    indices = richest_index(levels_of_luma(gray.detach()), patch_size)
    noise = srm(patch_at(scaled, indices, patch_size), truncation, dtype)
    return scaled.to(dtype), sobel_of_luma(gray).to(dtype), noise, indices


def views_adjoint(
    appearance_gradient: Tensor | None,
    edge_gradient: Tensor,
    noise_gradient: Tensor,
    images: Tensor,
    indices: Tensor,
    patch_size: int,
    truncation: float,
) -> Tensor:
    """Gradient of the images from those of their views; differentiable itself."""
    scaled = unit_range(images)
    noise = srm_adjoint(noise_gradient, patch_at(scaled, indices, patch_size), truncation)
    result = sobel_adjoint(edge_gradient, scaled) + patch_at_adjoint(noise, indices, images.shape)
    if appearance_gradient is not None:
        result = result + appearance_gradient
    return result.to(images.dtype)
