"""In which precision losses and statistics are computed: float32 at least, under autocast too."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["compute_dtype", "no_autocast"]


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """The dtype that holds all of these tensors, float32 at least."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def no_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """No autocast on the device of ``tensor``; ``"meta"`` knows none, and nothing is recorded where there is none."""
    # torch.amp.is_autocast_available would say so, but PyTorch 2.11 can't compile that.
    device = tensor.device.type
    known = device != "meta" and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if known else nullcontext()
