from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="session")
def tolerance() -> Callable[..., dict[str, float]]:
    """``tolerance(dtype, scale)``: what a loss computed in ``dtype`` may differ by from exact arithmetic."""

    def tolerance(dtype: torch.dtype, scale: float = 1.0) -> dict[str, float]:
        eps = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
        return {"rtol": 64 * eps, "atol": 64 * eps * scale}

    return tolerance


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
