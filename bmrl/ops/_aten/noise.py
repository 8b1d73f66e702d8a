"""Residuals of three SRM filters, and their adjoint."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bmrl.ops._aten.luma import unit_range

__all__ = ["srm", "srm_adjoint"]


def _channel_sum(images: Tensor) -> Tensor:
    scaled = unit_range(images)
    if images.shape[1] == 1:
        return scaled
    red, green, blue = scaled.split(1, dim=1)
    return (red + green).add_(blue)


def srm(images: Tensor, truncation: float, dtype: torch.dtype) -> Tensor:
    """Clamped residuals in ``dtype``, by ATen operators only."""
    return torch.cat(_residuals(_channel_sum(images)), dim=1).clamp(-truncation, truncation).to(dtype)


def _residuals(total: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """KB, KV and H2 of the channel sum ``(batch, 1, height, width)``."""
    rows, d1y, d2y = _down(total)
    kb = _d1x(d1y).div_(-4)
    kv = _d1x((2 * d2y).sub_(d1y, alpha=6)).add_(_d2x((2 * d1y).sub_(d2y))).div_(12)
    h2 = _d1x(rows).div_(2)
    return kb, kv, h2


def _down(total: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The zero-padded rows themselves, and D1 and D2 along the columns."""
    padded = F.pad(total, (2, 2, 2, 2))
    rows = padded[..., 2:-2, :]
    d1y = padded[..., 1:-3, :].sub(rows, alpha=2).add_(padded[..., 3:-1, :])
    d2y = padded[..., :-4, :].sub(rows, alpha=2).add_(padded[..., 4:, :])
    return rows, d1y, d2y


def _d1x(rows: Tensor) -> Tensor:
    return rows[..., 1:-3].sub(rows[..., 2:-2], alpha=2).add_(rows[..., 3:-1])


def _d2x(rows: Tensor) -> Tensor:
    return rows[..., :-4].sub(rows[..., 2:-2], alpha=2).add_(rows[..., 4:])


def srm_adjoint(gradient: Tensor, images: Tensor, truncation: float) -> Tensor:
    """Gradient of the images from that of their residuals; differentiable itself."""
    residuals = torch.cat(_residuals(_channel_sum(images)), dim=1)
    flows = torch.where(residuals.abs() <= truncation, gradient.to(residuals.dtype), 0)
    # Each filter is symmetric and so its own adjoint.
    kb, kv, h2 = flows.split(1, dim=1)
    total = _residuals(kb)[0] + _residuals(kv)[1] + _residuals(h2)[2]
    return total.expand(images.shape).to(images.dtype, copy=True)
