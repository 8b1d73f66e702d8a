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
    """Whether looking at the values is possible and nearly free: on the CPU, neither traced nor transformed.

    A look at a GPU's tensor would make every step wait for the GPU.
    """
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling() and not is_transformed()
