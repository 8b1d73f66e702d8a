"""The batches of all processes as one: what ``gather=True`` does."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bmrl._checks import check_same_device
from bmrl.errors import DTypeError, ShapeError


def gather_rows(**rows: Tensor) -> list[Tensor]:
    """Concatenate tensors over all processes, in the order of their ranks.

    Each process then computes the loss of the whole batch. In the backward pass it takes the part of the gradient
    that belongs to its own rows, times the number of processes, which the mean over processes takes back.

    The number of rows may differ between processes, and be 0. To learn it, each call makes a GPU wait once.

    Args:
        rows: tensors by the name that errors give them; all with the same number of rows.

    Returns:
        The tensors in their order; the same ones where there is but one process.

    Raises:
        ShapeError: their numbers of rows differ here, or their other sizes differ between the processes.
        DTypeError, DeviceError: one of them is no tensor, or is on another device than the first.
    """
    if not _has_peers():
        return list(rows.values())
    first_name, first = next(iter(rows.items()))
    for name, tensor in rows.items():
        if not isinstance(tensor, Tensor):
            raise DTypeError(f"{name}: expected a torch.Tensor, got {type(tensor).__name__}")
        if tensor.ndim == 0 or len(tensor) != len(first):
            raise ShapeError(
                f"{name}: expected as many rows as {first_name} {tuple(first.shape)}, got {tuple(tensor.shape)}"
            )
        check_same_device(name, tensor, first_name, first)
    here = [len(first), *(math.prod(tensor.shape[1:]) for tensor in rows.values())]
    everywhere = [list(map(int, sizes)) for sizes in _all_gather(torch.tensor(here, device=first.device))]
    for place, (name, tensor) in enumerate(rows.items(), start=1):
        for rank, sizes in enumerate(everywhere):
            if sizes[place] != here[place]:
                raise ShapeError(
                    f"{name}: expected rows of {sizes[place]} elements as in process {rank}, got {here[place]} "
                    f"(shape {tuple(tensor.shape)})"
                )
    lengths = [sizes[0] for sizes in everywhere]
    return [_GatherRows.apply(tensor, lengths) for tensor in rows.values()]


def synchronise(module: nn.Module) -> None:
    """Give the parameters of a loss the values that they have in the first process.

    Each process computes their whole gradient, so that they stay equal afterwards, averaged or not.
    """
    if _has_peers():
        with torch.no_grad():
            for parameter in module.parameters():
                dist.broadcast(parameter.data, src=0)


def _has_peers() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _all_gather(tensor: Tensor) -> list[Tensor]:
    """The tensors of all processes, of one shape; as bytes, because not every backend knows every dtype."""
    flat = tensor.contiguous().view(-1).view(torch.uint8)
    found = [torch.empty_like(flat) for _ in range(dist.get_world_size())]
    dist.all_gather(found, flat)
    return [one.view(tensor.dtype).view(tensor.shape) for one in found]


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(rows: Tensor, lengths: list[int]) -> Tensor:
        padded = rows.new_zeros(max(lengths), *rows.shape[1:])
        padded[: len(rows)] = rows
        found = _all_gather(padded)
        return torch.cat([one[:length] for one, length in zip(found, lengths, strict=True)])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, list[int]], output: Tensor) -> None:
        lengths = inputs[1]
        rank = dist.get_rank()
        ctx.processes = len(lengths)
        ctx.own = slice(sum(lengths[:rank]), sum(lengths[: rank + 1]))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient[ctx.own] * ctx.processes, None
