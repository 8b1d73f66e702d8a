"""Augmentation of a training batch that keeps images and parsing maps together."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bmrl.parsing import MIRRORED_CLASSES

__all__ = ["flip", "shift"]


def flip(images: Tensor, parsing: Tensor, *, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror a random half of the batch left to right; left and right facial parts change places in the map.

    Args:
        images: ``(batch, channels, height, width)``, any dtype.
        parsing: ``(batch, height, width)`` class indices 0..18, uint8.
        rng: on the CPU.

    Returns:
        New tensors of the same shapes and dtypes.
    """
    chosen = (torch.rand(len(images), generator=rng) < 0.5).to(images.device)
    swapped = torch.tensor(MIRRORED_CLASSES, dtype=parsing.dtype, device=parsing.device)[parsing.flip(-1).long()]
    return (
        torch.where(chosen[:, None, None, None], images.flip(-1), images),
        torch.where(chosen[:, None, None], swapped, parsing),
    )


def shift(images: Tensor, parsing: Tensor, *, pixels: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Move the batch by up to ``pixels`` in each direction, every image by the same offset; the border is mirrored.

    Pixels are moved, never interpolated, so that a generator's trace survives.

    Args:
        images: ``(batch, channels, height, width)`` uint8, sides above ``pixels``.
        parsing: ``(batch, height, width)`` class indices, uint8.
        pixels: >= 1.
        rng: on the CPU.

    Returns:
        New tensors of the same shapes and dtypes.
    """
    height, width = images.shape[-2:]
    down, right = torch.randint(0, 2 * pixels + 1, (2,), generator=rng).tolist()
    both = torch.cat((images, parsing[:, None]), dim=1).float()  # padding knows no uint8
    moved = F.pad(both, (pixels,) * 4, mode="reflect")[..., down : down + height, right : right + width]
    return moved[:, :-1].to(images.dtype), moved[:, -1].to(parsing.dtype)
