"""Launches of the kernels, as an operator. Tensors are on one CUDA device, or anywhere under Triton's interpreter."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bmrl._kernels import on_its_device
from bmrl.losses._triton.pairs import COLUMNS, WARPS, pair_weights_kernel, weighted_differences_kernel

__all__ = ["pairs_op", "sum_of_pairs"]

_SCRATCH = 2**22
"""Weights held at once, 16 MiB of them, unless 128 rows have more."""
_PROGRAMS = 256
"""Programs that keep a GPU busy: two for each multiprocessor of a large one."""
_HEIGHT, _UNROLL = 8, 4
_SMALL_HEIGHT, _SMALL_UNROLL = 2, 16
"""Points per thread and steps per iteration; where large tiles are too few, small ones with more loads in flight."""


# An operator that the compiler does not look into: there is nothing to fuse, and the number of launches may then depend
# on the batch.
@torch.library.custom_op("bmrl::dfacc_pairs", mutates_args=())
def pairs_op(y: Tensor, labels: Tensor, related: Tensor, margin: float, with_gradient: bool) -> tuple[Tensor, Tensor]:
    """See :func:`sum_of_pairs`."""
    return sum_of_pairs(y, labels, related, margin, with_gradient)


@pairs_op.register_fake
def _(y: Tensor, labels: Tensor, related: Tensor, margin: float, with_gradient: bool) -> tuple[Tensor, Tensor]:
    return y.new_empty(()), y.new_empty(y.shape if with_gradient else (0,))


@on_its_device
def sum_of_pairs(
    y: Tensor, labels: Tensor, related: Tensor, margin: float, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    """Sum of L_uv over the pairs u < v, and its gradient (no elements unless asked for), in memory linear in the batch.

    Args:
        y: ``(batch, dim)`` float32.
        labels: ``(batch,)`` int64.
        related: ``(num_generators, num_generators)`` bool.
        margin: m.
        with_gradient: whether the gradient is asked for.
    """
    batch, dim = y.shape
    if y.numel() == 0:
        return y.new_zeros(()), y.new_zeros(y.shape if with_gradient else (0,))
    labels, related = labels.contiguous(), related.contiguous().view(torch.uint8)
    padded = _up_to_multiple(batch, COLUMNS.value)
    rows = min(padded, max(_SCRATCH // padded // COLUMNS.value, 1) * COLUMNS.value)
    tiles = padded // (WARPS.value * _HEIGHT) * (rows // COLUMNS.value)
    height, unroll = (_HEIGHT, _UNROLL) if tiles >= _PROGRAMS // 2 else (_SMALL_HEIGHT, _SMALL_UNROLL)
    steps = _up_to_multiple(dim, unroll)
    transposed = y.new_zeros((steps + 1, padded))
    transposed[:dim, :batch] = y.mT
    points = F.pad(y, (0, -dim % COLUMNS.value, 0, padded - batch)) if with_gradient else y
    gradient = y.new_empty(y.shape if with_gradient else (0,))
    total = y.new_zeros((), dtype=torch.float64)
    for first in range(0, batch, rows):
        count = min(rows, padded - first)
        grid = (padded // (WARPS.value * height), count // COLUMNS.value)
        partials = y.new_empty(grid)
        weights = y.new_empty((padded, count) if with_gradient else (0,))
        pair_weights_kernel[grid](
            transposed,
            labels,
            related,
            weights,
            partials,
            margin,
            batch,
            steps,
            padded,
            first,
            count,
            related.shape[0],
            PER_THREAD=height,
            UNROLL=unroll,
            GRADIENT=with_gradient,
            num_warps=WARPS.value,
        )
        total += partials.sum(dtype=torch.float64)
        if with_gradient:
            gradient[first : first + count] = _weighted_differences(points, weights, batch, first)[
                : batch - first, :dim
            ]
    return total.to(y.dtype), gradient


def _weighted_differences(points: Tensor, weights: Tensor, batch: int, first: int) -> Tensor:
    """Gradient ``(count, padded dim)`` of the rows from ``first`` on."""
    count, width = weights.shape[1], points.shape[1]
    tiles = (count // (WARPS.value * _HEIGHT), width // COLUMNS.value)
    # Where there are few tiles, several programs sum a share of the points each.
    shares = min(-(-_PROGRAMS // (tiles[0] * tiles[1])), -(-batch // 32))
    share = _up_to_multiple(-(-batch // shares), 16)
    parts = points.new_empty((shares, count, width))
    weighted_differences_kernel[(*tiles, shares)](
        points,
        weights,
        parts,
        _up_to_multiple(batch, _UNROLL),
        share,
        width,
        first,
        count,
        PER_THREAD=_HEIGHT,
        UNROLL=_UNROLL,
        num_warps=WARPS.value,
    )
    return parts.sum(0)


def _up_to_multiple(number: int, of: int) -> int:
    return -(-number // of) * of
