"""The batches of all processes as one: what ``gather=True`` does.

Before tensors are exchanged, the processes exchange descriptions of them. All processes find the same mismatch and
raise the same error, so that none waits for a process that has already failed.
"""

from __future__ import annotations

import inspect
import numbers
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bmrl._values import check_switch
from bmrl.errors import BMRLError, ConfigError, DeviceError, DTypeError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch.distributed import ProcessGroup

__all__ = ["GroupReference", "check_gather", "gather_for", "gather_rows"]


def check_gather(gather: bool, group: ProcessGroup | None) -> None:
    """Check the arguments ``gather`` and ``group`` of a loss."""
    check_switch("gather", gather)
    if group is None:
        return
    if not (dist.is_available() and isinstance(group, dist.ProcessGroup)):
        got = repr(group) if isinstance(group, int | str) else type(group).__name__
        raise DTypeError(f"group: expected a ProcessGroup that this process belongs to, or None, got {got}")
    if not gather:
        raise ConfigError("group: expected None without gather=True, got a ProcessGroup")


class GroupReference:
    """A process group as a module keeps it: shared by the module's copies, because it can't be copied."""

    def __init__(self, group: ProcessGroup | None) -> None:
        self.group = group

    def __deepcopy__(self, memo: dict[int, Any]) -> GroupReference:
        return self


def gather_rows(rows: Mapping[str, Any], *, group: ProcessGroup | None, same: Mapping[str, object]) -> list[Any]:
    """Concatenate tensors over all processes of a group, in the order of their ranks.

    Each process then computes the loss of the whole batch. In the backward pass it takes the part of the gradient
    that belongs to its own rows, times the number of processes, which cancels in the mean over processes.

    The number of rows may differ between processes, and be 0.

    Args:
        rows: tensors by the name that errors give them, all with the same number of rows; None where there is none.
        group: the processes; None means all.
        same: what else must be equal in all processes, by name: plain values, or tensors of one dtype and shape.

    Returns:
        The tensors in their order; the same objects if there is only one process.

    Raises:
        ShapeError, DTypeError, DeviceError, ConfigError: in *all* processes, with one message: the tensors of a process
            do not match each other or those of another process, or ``same`` differs.
    """
    if not _has_peers(group):
        return list(rows.values())
    descriptions: list[_Description] = [_describe(rows, same)] * dist.get_world_size(group)
    dist.all_gather_object(descriptions, descriptions[0], group=group)
    _check_agreement(descriptions, dist.get_process_group_ranks(group))
    lengths = [description.num_rows for description in descriptions]
    return [None if tensor is None else _GatherRows.apply(tensor, lengths, group) for tensor in rows.values()]


def gather_for(module: nn.Module, reference: GroupReference, **rows: Any) -> list[Any]:
    """:func:`gather_rows` for the module of a loss, whose parameters are set to those of the first process.

    Each process computes their whole gradient, so that they stay equal afterwards, averaged or not.
    """
    group = reference.group
    result: list[Any] = gather_rows(rows, group=group, same={"loss": type(module).__name__, **dict(_settings(module))})
    if _has_peers(group):
        with torch.no_grad():
            for parameter in module.parameters():
                dist.broadcast(parameter.data, group=group, group_src=0)
    return result


def _settings(module: nn.Module) -> Iterable[tuple[str, object]]:
    """Parameters, and what the constructors of a loss and of its parts were given, by name."""
    yield from module.named_parameters()
    for path, part in module.named_modules():
        for name in inspect.signature(type(part).__init__).parameters:
            if name in vars(part):
                yield f"{path}.{name}".removeprefix("."), vars(part)[name]


def _has_peers(group: ProcessGroup | None) -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size(group) > 1


class _Rows(NamedTuple):
    """What the processes compare of a tensor before they exchange it."""

    dtype: str
    shape: tuple[int | str, ...]
    device: str

    def __str__(self) -> str:
        return f"{self.dtype} ({', '.join(map(str, self.shape))}) on {self.device}"


class _Description(NamedTuple):
    """What one process is about to exchange, or the error that it found in it."""

    problem: BMRLError | None
    num_rows: int
    rows: dict[str, _Rows | None]
    same: dict[str, str | _Rows]


def _describe(rows: Mapping[str, Any], same: Mapping[str, object]) -> _Description:
    known = {name: _in_words(value) for name, value in same.items()}
    first_name, first = next(((name, tensor) for name, tensor in rows.items() if tensor is not None), ("rows", None))
    for name, tensor in rows.items():
        problem: BMRLError | None = None
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            problem = DTypeError(f"{name}: expected a torch.Tensor, got {type(tensor).__name__}")
        elif tensor.ndim == 0:
            problem = ShapeError(f"{name}: expected rows, got a tensor of shape ()")
        elif isinstance(first, Tensor) and first.ndim and len(tensor) != len(first):
            expected, got = tuple(first.shape), tuple(tensor.shape)
            problem = ShapeError(f"{name}: expected as many rows as {first_name} {expected}, got {got}")
        elif isinstance(first, Tensor) and tensor.device != first.device:
            problem = DeviceError(f"{name}: expected the device of {first_name} {first.device}, got {tensor.device}")
        if problem is not None:
            return _Description(problem, 0, {}, known)
    found = {
        name: None if tensor is None else _Rows(str(tensor.dtype), ("rows", *tensor.shape[1:]), tensor.device.type)
        for name, tensor in rows.items()
    }
    return _Description(None, 0 if first is None else len(first), found, known)


def _in_words(value: object) -> str | _Rows:
    """A setting as text that is equal in all processes where the setting is."""
    if isinstance(value, Tensor):
        return _Rows(str(value.dtype), tuple(value.shape), value.device.type)
    if value is None or isinstance(value, bool | str):
        return repr(value)
    if isinstance(value, numbers.Real):
        return repr(float(value))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_in_words(one)}" for key, one in value.items()) + "}"
    return type(value).__name__


def _check_agreement(descriptions: list[_Description], ranks: list[int]) -> None:
    """Raise the same error in all processes, unless their descriptions match."""
    for rank, description in zip(ranks, descriptions, strict=True):
        if (problem := description.problem) is not None:
            raise type(problem)(f"{problem} in process {rank}")
    for parts in ([one.same for one in descriptions], [one.rows for one in descriptions]):
        for name in dict.fromkeys(name for part in parts for name in part):
            values = [part.get(name, "nothing") for part in parts]
            if len(set(values)) > 1:
                said = _by_process(values, ranks)
                raise _error_of(values)(f"{name}: expected the same in all processes, got {said}")


def _error_of(values: list[Any]) -> type[BMRLError]:
    """The class of error for the difference between these descriptions."""
    tensors = [value for value in values if isinstance(value, _Rows)]
    if not tensors:
        return ConfigError
    if len(tensors) < len(values) or len({one.dtype for one in tensors}) > 1:
        return DTypeError
    return ShapeError if len({one.shape for one in tensors}) > 1 else DeviceError


def _by_process(values: list[Any], ranks: list[int]) -> str:
    """What the processes have, as in ``None in process 1, torch.float32 (rows, 5) on cpu in processes 0, 2``."""
    said = []
    for value in dict.fromkeys(values):
        where = [str(rank) for rank, other in zip(ranks, values, strict=True) if other == value]
        said.append(f"{value} in process{'es' if len(where) > 1 else ''} {', '.join(where)}")
    return ", ".join(said)


def _all_gather(tensor: Tensor, group: ProcessGroup | None) -> list[Tensor]:
    """The tensors of all processes, of one shape; as bytes, because not every backend knows every dtype."""
    flat = tensor.contiguous().view(-1).view(torch.uint8)
    found = [torch.empty_like(flat) for _ in range(dist.get_world_size(group))]
    dist.all_gather(found, flat, group=group)
    return [one.view(tensor.dtype).view(tensor.shape) for one in found]


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(rows: Tensor, lengths: list[int], group: ProcessGroup | None) -> Tensor:
        padded = rows.new_zeros(max(lengths), *rows.shape[1:])
        padded[: len(rows)] = rows
        found = _all_gather(padded, group)
        return torch.cat([one[:length] for one, length in zip(found, lengths, strict=True)])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, list[int], ProcessGroup | None], output: Tensor) -> None:
        _, lengths, group = inputs
        rank = dist.get_rank(group)
        ctx.processes = len(lengths)
        ctx.own = slice(sum(lengths[:rank]), sum(lengths[: rank + 1]))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient[ctx.own] * ctx.processes, None, None
