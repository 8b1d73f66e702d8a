"""Which implementation an operator runs: Triton kernels for CUDA tensors, plain ATen for all others."""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from bmrl._transforms import is_transformed

__all__ = ["runs_kernels"]

_HAS_KERNELS = torch.version.hip is None and importlib.util.find_spec("triton") is not None
_KERNEL_DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)


def runs_kernels(images: Tensor) -> bool:
    """Whether the Triton kernels take these images: on an NVIDIA GPU, not float64, not traced or transformed."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined]
    suitable = images.is_cuda and images.dtype in _KERNEL_DTYPES and not tracing and _HAS_KERNELS
    # Custom operators lack the rules of transforms.
    return suitable and (torch.compiler.is_compiling() or not is_transformed())
