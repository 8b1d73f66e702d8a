"""Which implementation an operator runs: Triton kernels for CUDA tensors, plain ATen for all others."""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

__all__ = ["is_transformed", "runs_kernels"]

_HAS_KERNELS = torch.version.hip is None and importlib.util.find_spec("triton") is not None
_KERNEL_DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)


def runs_kernels(images: Tensor) -> bool:
    """Whether the Triton kernels take these images: on an NVIDIA GPU, not float64, not traced or transformed."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined]
    suitable = images.is_cuda and images.dtype in _KERNEL_DTYPES and not tracing and _HAS_KERNELS
    return suitable and (torch.compiler.is_compiling() or not is_transformed())


def is_transformed() -> bool:
    """Whether a transform of ``torch.func`` or forward-mode differentiation runs; custom operators lack their rules."""
    levels = torch.autograd.forward_ad._current_level
    return levels >= 0 or torch._C._functorch.peek_interpreter_stack() is not None
