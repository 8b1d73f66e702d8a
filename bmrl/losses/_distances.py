"""Euclidean distances from differences, exact for near-duplicates, and as fast as PyTorch has them.

The matrix-product form, the choice of ``torch.cdist`` above 25 rows, loses near-duplicates to rounding. On a CPU
``torch.pdist`` is vectorized and takes a fraction of ``torch.cdist``'s time per pair.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["EXACT", "distances_between", "distances_to_own", "distances_within"]

EXACT = "donot_use_mm_for_euclid_dist"
"""``compute_mode`` of ``torch.cdist``: distances from differences."""


def distances_to_own(points: Tensor, centers: Tensor, labels: Tensor) -> Tensor:
    """Distance ``(n,)`` of each of ``(n, dim)`` points to the center that its label chooses, differentiable.

    Between coincident points both derivatives are 0. Nothing of the size of ``points`` is kept for the backward pass.
    """
    result: Tensor = _DistancesToOwn.apply(points, centers, labels)
    return result


def distances_within(points: Tensor) -> Tensor:
    """Distances of the pairs u < v of ``(n, dim)`` points, row by row: ``(n * (n - 1) / 2,)``, differentiable.

    Their places are those of ``torch.triu_indices(n, n, 1)``. Between coincident points both derivatives are 0.
    """
    result: Tensor = _DistancesWithin.apply(points)
    return result


def distances_between(points: Tensor, others: Tensor) -> Tensor:
    """Distances ``(n, m)`` of ``(n, dim)`` and ``(m, dim)`` points, not differentiable."""
    if points.device.type != "cpu":
        return torch.cdist(points, others, compute_mode=EXACT)
    num_points, num_others = len(points), len(others)
    # Twice the pairs that are asked for, and still a third of the time.
    within = torch.pdist(torch.cat([points, others]))
    row = torch.arange(num_points, device=points.device)
    length = num_points + num_others
    first = row * length - row * (row + 1) // 2 + (num_points - 1 - row)  # where row u meets the first of the others
    return within[first[:, None] + torch.arange(num_others, device=points.device)]


class _DistancesWithin(torch.autograd.Function):
    """``torch.pdist`` with a second derivative, that of ``torch.cdist``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(points: Tensor) -> Tensor:
        return torch.pdist(points)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        points, distances = ctx.saved_tensors
        points = points.contiguous()  # PyTorch's backward takes no other, its forward any
        if not torch.is_grad_enabled():
            return torch.ops.aten._pdist_backward(gradient, points, 2.0, distances)
        rows, columns = torch.triu_indices(len(points), len(points), 1, device=points.device)
        square = gradient.new_zeros(len(points), len(points)).index_put((rows, columns), gradient)
        all_distances = torch.cdist(points, points, compute_mode=EXACT)
        return torch.ops.aten._cdist_backward(square + square.mT, points, points, 2.0, all_distances)


class _DistancesToOwn(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(points: Tensor, centers: Tensor, labels: Tensor) -> Tensor:
        return torch.linalg.vector_norm(points - centers[labels], dim=1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        points, centers, labels, distances = ctx.saved_tensors
        apart = distances > 0
        slopes = torch.where(apart, gradient / torch.where(apart, distances, 1.0), 0.0)
        to_points = (points - centers[labels]) * slopes[:, None]
        return to_points, torch.zeros_like(centers).index_add(0, labels, -to_points), None
