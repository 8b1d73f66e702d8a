"""Scaling to [0, 1], luma and its adjoint, and gray levels."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["gray_levels", "levels_of_luma", "luma", "luma_adjoint", "output_dtype", "unit_range"]

LUMA_WEIGHTS = (0.299, 0.587, 0.114)


def unit_range(images: Tensor) -> Tensor:
    """Return images in [0, 1] in at least float32: uint8 is divided by 255, floats are not rescaled."""
    if images.dtype == torch.uint8:
        return images.float().div_(255)
    return images.to(torch.promote_types(images.dtype, torch.float32))


def output_dtype(images: Tensor) -> torch.dtype:
    """Return the dtype of an operator's result: float32 for uint8 images, else the images' own."""
    return torch.float32 if images.dtype == torch.uint8 else images.dtype


def luma(images: Tensor) -> Tensor:
    """Luma of floating point images, ``(batch, 1, height, width)``."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    return (LUMA_WEIGHTS[0] * red).add_(green, alpha=LUMA_WEIGHTS[1]).add_(blue, alpha=LUMA_WEIGHTS[2])


def luma_adjoint(gradient: Tensor, channels: int) -> Tensor:
    """Gradient of the channels from that of their luma."""
    if channels == 1:
        return gradient
    return torch.cat([weight * gradient for weight in LUMA_WEIGHTS], dim=1)


def gray_levels(images: Tensor) -> Tensor:
    """Return gray levels 0..255 as whole numbers in a floating dtype, ``(batch, height, width)``.

    uint8 images are weighted in whole numbers, ``(299 R + 587 G + 114 B) // 1000``, so that every device agrees
    to the bit. Floats take ``floor(255 gray + 0.0005)``, which gives the same levels for all float32 and
    float64 images that were uint8 before; plain truncation would lose a level on many grays.
    """
    if images.dtype == torch.uint8:
        if images.shape[1] == 1:
            return images[:, 0].float()
        red, green, blue = images.unbind(dim=1)
        # Whole numbers below 2**24 are exact in float32, and rounding cannot carry 0.999 to 1.
        # As floats before they are weighted: compiled by PyTorch 2.11, ``add_`` multiplies whole bytes by ``alpha``.
        weighted = red.float().mul_(299).add_(green.float(), alpha=587).add_(blue.float(), alpha=114)
        return weighted.mul_(0.001).floor_()
    return levels_of_luma(luma(unit_range(images)))


def levels_of_luma(gray: Tensor) -> Tensor:
    """Gray levels ``(batch, height, width)`` of a luma ``(batch, 1, height, width)`` in [0, 1]."""
    return gray[:, 0].mul(255).add_(0.0005).floor_()
