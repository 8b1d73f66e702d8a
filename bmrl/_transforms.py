"""Whether tensors stand for values, or for something that a transform makes of them."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["has_values", "is_transformed"]


def is_transformed() -> bool:
    """Whether a transform of ``torch.func`` or forward-mode differentiation runs."""
    levels = torch.autograd.forward_ad._current_level
    return levels >= 0 or torch._C._functorch.peek_interpreter_stack() is not None


def has_values(tensor: Tensor) -> bool:
    """Whether reading the values is possible and cheap: on the CPU, neither traced nor transformed nor fake.

    Reading a GPU's tensor would synchronize in every step.
    """
    return tensor.device.type == "cpu" and not (torch.compiler.is_compiling() or _is_traced(tensor) or is_transformed())


def _is_traced(tensor: Tensor) -> bool:
    """Whether ``torch.jit.trace``, ``make_fx`` or a fake tensor stands for what will be computed later, if at all."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined]
    modes = torch._C._TorchDispatchModeKey
    within = any(torch._C._get_dispatch_mode(mode) is not None for mode in (modes.FAKE, modes.PROXY))
    return tracing or within or isinstance(tensor, torch._subclasses.FakeTensor)
