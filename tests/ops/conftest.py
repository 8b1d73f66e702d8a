"""Strategies and fixtures for image operators."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from torch import Tensor

# Registration brings in Triton, which is not everywhere.
collect_ignore = (
    []
    if importlib.util.find_spec("triton")
    else ["test_kernel_resources.py", "test_kernels.py", "test_kernels_on_gpu.py", "test_registration.py"]
)

LAYOUTS = {
    "contiguous": lambda images: images.contiguous(),
    "channels_last": lambda images: images.contiguous(memory_format=torch.channels_last),
    "transposed": lambda images: images.mT.contiguous().mT,
    "sliced": lambda images: torch.cat((images, images), dim=-1)[..., : images.shape[-1]],
    "batch_one": lambda images: images[:1],
    "empty": lambda images: images[:0],
}


@pytest.fixture(params=LAYOUTS)
def laid_out(request: pytest.FixtureRequest) -> Tensor:
    """uint8 images (up to 2, 3, 12, 10) in every memory layout."""
    rng = np.random.default_rng(0)
    return LAYOUTS[request.param](torch.from_numpy(rng.integers(0, 256, (2, 3, 12, 10), dtype=np.uint8)))
