"""When a loss over all pairs of a batch takes them a chunk of rows at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

DENSE_BATCH = 1024
"""Largest batch whose pairs are all held at once, unless ``chunk_rows`` says otherwise."""


def rows_per_chunk(chunk_rows: int | None, batch: int, *, of_large: int) -> int:
    """How many rows of the ``(batch, batch)`` matrix of pairs are held at once; ``batch`` means all of them.

    Args:
        chunk_rows: what the user chose, or None.
        batch: rows of the batch.
        of_large: rows where the user chose nothing and the batch is larger than :data:`DENSE_BATCH`.
    """
    if chunk_rows is not None:
        return min(int(chunk_rows), batch)
    return batch if batch <= DENSE_BATCH else max(of_large, 1)


def chunks(batch: int, size: int) -> Iterator[slice]:
    """Slices of ``size`` rows that cover the batch; the last may be shorter."""
    for start in range(0, batch, size):
        yield slice(start, min(start + size, batch))


def only_once(gradient: Tensor, *inputs: Tensor) -> Tensor:
    """Return ``gradient`` such that an attempt to differentiate it again by ``inputs`` raises.

    The chunked forms compute their gradients outside of autograd, which would take them for constants. Compiled
    code refuses by itself.
    """
    if torch.compiler.is_compiling():
        return gradient
    result: Tensor = _OnlyOnce.apply(gradient, *inputs)
    return result


def check_no_vmap() -> None:
    """Check that no ``vmap`` runs: the chunked forms have no rule for it. ``jacrev`` makes one of the backward pass."""
    if torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is None:
        return
    if any(
        level.key() == torch._C._functorch.TransformType.Vmap for level in torch._C._functorch.get_interpreter_stack()
    ):
        raise RuntimeError("chunk_rows: expected at least the batch under torch.vmap, chunks have no rule for it")


class _OnlyOnce(torch.autograd.Function):
    @staticmethod
    def forward(gradient: Tensor, *inputs: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        raise RuntimeError("chunk_rows: expected at least the batch for a second derivative, chunks have none")
