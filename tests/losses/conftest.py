from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

# It imports the kernels, and with them Triton, which is not everywhere.
collect_ignore = [] if importlib.util.find_spec("triton") else ["test_kernels.py"]


@pytest.fixture(scope="session")
def tolerance() -> Callable[..., dict[str, float]]:
    """``tolerance(dtype, scale)``: what a loss computed in ``dtype`` may differ by from exact arithmetic."""

    def tolerance(dtype: torch.dtype, scale: float = 1.0) -> dict[str, float]:
        eps = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
        return {"rtol": 64 * eps, "atol": 64 * eps * scale}

    return tolerance


@pytest.fixture(scope="session")
def differentiates_twice() -> bool:
    """Whether this PyTorch knows the second derivatives of distances (2.11 does not, 2.14 does)."""
    points = torch.eye(2, requires_grad=True)
    (gradient,) = torch.autograd.grad(torch.cdist(points, points).sum(), points, create_graph=True)
    try:
        gradient.sum().backward()
    except NotImplementedError:
        return False
    return True


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
