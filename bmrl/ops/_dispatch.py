"""Which implementation an operator runs: Triton kernels for CUDA tensors, plain ATen for all others."""

from __future__ import annotations

import torch
from torch import Tensor

from bmrl import _kernels

__all__ = ["runs_kernels"]

_KERNEL_DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)


def runs_kernels(images: Tensor) -> bool:
    """Whether the Triton kernels take these images: on an NVIDIA GPU, not float64, not traced or transformed."""
    return _kernels.runs_kernels(images, _KERNEL_DTYPES)
