"""Which tensors Triton kernels take, and where they are launched; Triton itself is not imported here."""

from __future__ import annotations

import functools
import importlib.util
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from bmrl._transforms import is_transformed

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["on_its_device", "runs_kernels"]

_HAS_KERNELS = torch.version.hip is None and importlib.util.find_spec("triton") is not None
_Rest = ParamSpec("_Rest")
_Result = TypeVar("_Result")


def runs_kernels(tensor: Tensor, dtypes: tuple[torch.dtype, ...]) -> bool:
    """Whether Triton kernels for ``dtypes`` take this tensor: on an NVIDIA GPU, not traced or transformed."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined]
    suitable = tensor.is_cuda and tensor.dtype in dtypes and not tracing and _HAS_KERNELS
    # Custom operators lack the rules of transforms.
    return suitable and (torch.compiler.is_compiling() or not is_transformed())


def on_its_device(
    function: Callable[Concatenate[Tensor, _Rest], _Result],
) -> Callable[Concatenate[Tensor, _Rest], _Result]:
    """Launch on the device of the first argument; Triton itself takes the current one."""

    @functools.wraps(function)
    def launch(first: Tensor, /, *args: _Rest.args, **kwargs: _Rest.kwargs) -> _Result:
        with torch.cuda.device_of(first):
            return function(first, *args, **kwargs)

    return launch
