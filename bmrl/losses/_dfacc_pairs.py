"""The sum of the DFACC loss over all pairs of a batch: dense, a square of pairs at a time, or by Triton kernels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bmrl._kernels import runs_kernels
from bmrl.losses._chunks import check_no_vmap, chunks, only_once, rows_per_chunk
from bmrl.losses._distances import distances_between, distances_within

__all__ = ["sum_over_pairs"]

_LARGE_CHUNK = 512
"""Rows of a chunk where the user chose nothing: its square of pairs takes 1 MiB in float32, and as many scratch."""


def sum_over_pairs(y: Tensor, labels: Tensor, related: Tensor, margin: float, chunk_rows: int | None) -> Tensor:
    """Sum of L_uv (eq. 6-7) over the pairs u < v of two generators, differentiable by ``y``.

    Args:
        y: ``(batch, dim)``, float32 or float64.
        labels: ``(batch,)`` int64.
        related: ``(num_generators, num_generators)`` bool: whether two centers are closer than the margin.
        margin: m.
        chunk_rows: rows of a chunk; None leaves the choice of the form to the device and the batch.
    """
    batch = y.shape[0]
    in_kernels = chunk_rows is None and runs_kernels(y, (torch.float32,))
    rows = rows_per_chunk(chunk_rows, batch, of_large=_LARGE_CHUNK)
    # Compiled code has no second derivative anyway, and one operator for all batch sizes is compiled but once.
    if in_kernels or rows < batch or torch.compiler.is_compiling():
        check_no_vmap()
        with_gradient = torch.is_grad_enabled() and y.requires_grad
        total: Tensor = _PairsOnce.apply(y, labels, related, margin, None if in_kernels else rows, with_gradient)[0]
        return total
    first, second = labels[torch.triu_indices(batch, batch, 1, device=labels.device)]
    return _pair_terms(distances_within(y), first, second, related, margin).sum()


def _pair_terms(distances: Tensor, first: Tensor, second: Tensor, related: Tensor, margin: float) -> Tensor:
    """L_uv of pairs with these distances and these labels; 0 for pairs of one generator."""
    values = torch.where(related[first, second], F.relu(distances - margin), -distances)
    return torch.where(first != second, values, 0.0)


def _pair_slopes(distances: Tensor, first: Tensor, second: Tensor, related: Tensor, margin: float) -> Tensor:
    """The derivatives of :func:`_pair_terms` by the distances."""
    values = torch.where(related[first, second], (distances > margin).to(distances.dtype), -1.0)
    return torch.where(first != second, values, 0.0)


class _PairsOnce(torch.autograd.Function):
    """Sum of L_uv over the pairs u < v, and its gradient: in chunks of rows, or in Triton kernels.

    Value and gradient are made together, so that distances are computed once and never kept.
    """

    @staticmethod
    def forward(
        y: Tensor, labels: Tensor, related: Tensor, margin: float, chunk_rows: int | None, with_gradient: bool
    ) -> tuple[Tensor, Tensor]:
        if chunk_rows is None:
            from bmrl.losses._triton.launch import pairs_op

            return pairs_op(y, labels, related, margin, with_gradient)
        in_chunks = _pairs_in_chunks_op if torch.compiler.is_compiling() else _pairs_in_chunks
        return in_chunks(y, labels, related, margin, chunk_rows, with_gradient)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(inputs[0], output[1])

    @staticmethod
    def backward(ctx: Any, slope: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        check_no_vmap()
        y, gradient = ctx.saved_tensors
        return only_once(slope * gradient, slope, y), None, None, None, None, None


def _pairs_in_chunks(
    y: Tensor, labels: Tensor, related: Tensor, margin: float, chunk_rows: int, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    """Sum of L_uv over the pairs u < v, and its gradient, a square of pairs at a time."""
    y = y.contiguous()  # PyTorch's backward passes of distances take no other
    total = y.new_zeros(())
    gradient = torch.zeros_like(y) if with_gradient else y.new_empty((0,))
    squares = list(chunks(y.shape[0], chunk_rows))
    for place, chunk in enumerate(squares):
        rows = y[chunk]
        distances = torch.pdist(rows)
        one, other = labels[chunk][torch.triu_indices(len(rows), len(rows), 1, device=labels.device)]
        total += _pair_terms(distances, one, other, related, margin).sum()
        if with_gradient:
            slopes = _pair_slopes(distances, one, other, related, margin)
            gradient[chunk] += torch.ops.aten._pdist_backward(slopes, rows, 2.0, distances)
        for later in squares[place + 1 :]:
            others = y[later]
            distances = distances_between(rows, others)
            one, other = labels[chunk, None], labels[None, later]
            total += _pair_terms(distances, one, other, related, margin).sum()
            if with_gradient:
                slopes = _pair_slopes(distances, one, other, related, margin)
                backward = torch.ops.aten._cdist_backward
                gradient[chunk] += backward(slopes, rows, others, 2.0, distances)
                gradient[later] += backward(slopes.mT.contiguous(), others, rows, 2.0, distances.mT.contiguous())
    return total, gradient


@torch.library.custom_op("bmrl::dfacc_pairs_in_chunks", mutates_args=())
def _pairs_in_chunks_op(
    y: Tensor, labels: Tensor, related: Tensor, margin: float, chunk_rows: int, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    # The number of chunks depends on the batch: looked into, each batch size would be recompiled.
    return _pairs_in_chunks(y, labels, related, margin, chunk_rows, with_gradient)


@_pairs_in_chunks_op.register_fake
def _(
    y: Tensor, labels: Tensor, related: Tensor, margin: float, chunk_rows: int, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    return y.new_empty(()), y.new_empty(y.shape if with_gradient else (0,))
