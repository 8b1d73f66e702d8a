"""The contrastive loss a chunk of rows at a time, in memory linear in the batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bmrl._precision import no_autocast
from bmrl.losses._chunks import check_no_vmap, chunks, only_once
from bmrl.losses._contrastive_pairs import Pairs

__all__ = ["CrossEntropiesOnce"]


class CrossEntropiesOnce(torch.autograd.Function):
    """Both cross-entropies of each row, added, in memory linear in the batch.

    The forward pass keeps the log-sum-exp of every row and column. The backward pass makes the logits again, a chunk
    of rows at a time, and from them the gradient: the softmaxes by rows and by columns less the targets.
    """

    @staticmethod
    def forward(
        queries: Tensor,
        keys: Tensor,
        labels: Tensor | None,
        gate: Tensor | None,
        mask: Tensor | None,
        chunk_rows: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        in_chunks = _cross_entropies_op if torch.compiler.is_compiling() else _cross_entropies
        return in_chunks(queries, keys, labels, gate, mask, chunk_rows)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        *tensors, ctx.chunk_rows = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*tensors, *output[1:])

    @staticmethod
    def backward(ctx: Any, slopes: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        check_no_vmap()
        queries, keys, labels, gate, mask, by_row, by_column = ctx.saved_tensors
        in_chunks = _cross_entropies_backward_op if torch.compiler.is_compiling() else _cross_entropies_backward
        with_gate = gate is not None and ctx.needs_input_grad[3]
        to_queries, to_keys, to_gate = in_chunks(
            slopes, queries, keys, labels, gate, mask, by_row, by_column, ctx.chunk_rows, with_gate
        )
        by = (slopes, queries, keys) if gate is None else (slopes, queries, keys, gate)
        once_to_gate = only_once(to_gate, *by) if with_gate else None
        return only_once(to_queries, *by), only_once(to_keys, *by), None, once_to_gate, None, None


def _cross_entropies(
    queries: Tensor, keys: Tensor, labels: Tensor | None, gate: Tensor | None, mask: Tensor | None, chunk_rows: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Both cross-entropies of each row, added, and the log-sum-exps of rows and columns: three times ``(batch,)``."""
    pairs, batch = Pairs(labels, gate, mask), queries.shape[0]
    row_positive, row_max, row_sum = (queries.new_empty(batch) for _ in range(3))
    column_positive, column_sum = (queries.new_zeros(batch) for _ in range(2))
    column_max = queries.new_full((batch,), -torch.inf)
    for rows in chunks(batch, chunk_rows):
        logits = pairs.logits(queries[rows] @ keys.mT, rows)
        target = pairs.targets(rows, logits)
        if labels is None:
            row_positive[rows] = column_positive[rows] = logits.gather(1, target[:, None]).squeeze(1)
        else:
            positives = logits * target
            row_positive[rows] = positives.sum(1)
            column_positive = column_positive + positives.sum(0)  # targets are symmetric
        row_max[rows] = logits.amax(1)
        row_sum[rows] = (logits - row_max[rows, None]).exp_().sum(1)
        new_max = torch.maximum(column_max, logits.amax(0))
        column_sum = column_sum * (column_max - new_max).exp() + (logits - new_max).exp_().sum(0)
        column_max = new_max
    # Differences first: a log-sum-exp minus its positive would lose a small loss to rounding.
    both_ways = (row_max - row_positive) + (column_max - column_positive) + row_sum.log() + column_sum.log()
    return both_ways, row_max + row_sum.log(), column_max + column_sum.log()


def _cross_entropies_backward(
    slopes: Tensor,
    queries: Tensor,
    keys: Tensor,
    labels: Tensor | None,
    gate: Tensor | None,
    mask: Tensor | None,
    by_row: Tensor,
    by_column: Tensor,
    chunk_rows: int,
    with_gate: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and gate (no elements unless asked for) from those of :func:`_cross_entropies`."""
    pairs = Pairs(labels, gate, mask)
    to_queries, to_keys = torch.empty_like(queries), torch.zeros_like(keys)
    to_gate = queries.new_empty((0,)) if gate is None or not with_gate else torch.empty_like(gate)
    with no_autocast(queries):
        for rows in chunks(queries.shape[0], chunk_rows):
            similarities = queries[rows] @ keys.mT
            logits = pairs.logits(similarities, rows)
            gradient = (logits - by_row[rows, None]).exp_().mul_(slopes[rows, None])
            gradient.addcmul_((logits - by_column).exp_(), slopes)
            target = pairs.targets(rows, logits)
            if labels is None:
                gradient.scatter_add_(1, target[:, None], -2 * slopes[rows, None])
            else:
                gradient.addcmul_(slopes[rows, None] + slopes, target, value=-1)  # targets are symmetric
            if gate is not None:
                opening = gate[rows].to(queries.dtype).sigmoid()
                if with_gate:
                    to_gate[rows] = gradient * similarities * opening * (1 - opening)
                gradient.mul_(opening)
            to_queries[rows] = gradient @ keys
            to_keys.addmm_(gradient.mT, queries[rows])
    return to_queries, to_keys, to_gate


# Operators that the compiler does not look into: the number of chunks depends on the batch, and each batch size would
# be recompiled.
_cross_entropies_op = torch.library.custom_op("bmrl::contrastive_in_chunks", _cross_entropies, mutates_args=())
_cross_entropies_backward_op = torch.library.custom_op(
    "bmrl::contrastive_in_chunks_backward", _cross_entropies_backward, mutates_args=()
)


@_cross_entropies_op.register_fake
def _(queries: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    batch = queries.shape[0]
    return queries.new_empty(batch), queries.new_empty(batch), queries.new_empty(batch)


@_cross_entropies_backward_op.register_fake
def _(
    slopes: Tensor, queries: Tensor, keys: Tensor, labels: Tensor | None, gate: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    to_gate = torch.empty_like(gate) if gate is not None and rest[-1] else queries.new_empty((0,))
    return torch.empty_like(queries), torch.empty_like(keys), to_gate
