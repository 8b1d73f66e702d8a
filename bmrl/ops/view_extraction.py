"""The three views of a face that the visual encoder sees."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from bmrl._checks import check_dtype, check_positive
from bmrl.ops.edges import sobel
from bmrl.ops.luma import unit_range
from bmrl.ops.noise import srm
from bmrl.ops.patches import richest_patch

__all__ = ["ViewExtractor", "Views", "views"]


class Views(NamedTuple):
    """What :func:`views` returns."""

    appearance: Tensor
    """The image itself, ``(batch, channels, height, width)`` in [0, 1]."""
    edge: Tensor
    """Sobel magnitude, ``(batch, 1, height, width)``, 0 to about 4.5."""
    noise: Tensor
    """SRM residuals of the richest patch, ``(batch, 3, patch_size, patch_size)`` within ±truncation."""


def views(
    images: Tensor, *, patch_size: int = 112, truncation: float = 3.0, dtype: torch.dtype = torch.float32
) -> Views:
    """Return appearance, edge and noise of a batch of images.

    Args:
        images: ``(batch, channels, height, width)``, 3 (RGB) or 1 channels, uint8 in 0..255 or floating point in
            [0, 1]; height and width at least 2. NaN propagates.
        patch_size: side of the patch that the noise view shows, at most height and width.
        truncation: > 0, as in :func:`~bmrl.ops.srm`.
        dtype: of the three results; a floating point dtype.

    Returns:
        :class:`Views`: :func:`~bmrl.ops.sobel` of the image and :func:`~bmrl.ops.srm` of its
        :func:`~bmrl.ops.richest_patch` beside the image.

    Raises:
        ShapeError: not four axes, not 1 or 3 channels, a side below 2, or the patch does not fit.
        DTypeError: images neither uint8 nor floating point, or ``dtype`` not a floating one.
        RangeError: ``truncation`` is not positive.

    Source: arXiv:2504.14129, section 3.3.

    Example:
        >>> [tuple(view.shape) for view in views(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), patch_size=16)]
        [(2, 3, 32, 32), (2, 1, 32, 32), (2, 3, 16, 16)]
    """
    check_dtype("dtype", torch.empty(0, dtype=dtype), torch.float16, torch.bfloat16, torch.float32, torch.float64)
    patches, _ = richest_patch(images, patch_size=patch_size)
    # In unit range first, so that half-precision results are rounded once, at the end.
    scaled = unit_range(images)
    return Views(scaled.to(dtype), sobel(scaled).to(dtype), srm(unit_range(patches), truncation=truncation).to(dtype))


class ViewExtractor(nn.Module):
    """Module form of :func:`views`."""

    def __init__(self, *, patch_size: int = 112, truncation: float = 3.0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        check_positive("truncation", truncation)
        self.patch_size = patch_size
        self.truncation = truncation
        self.dtype = dtype

    def forward(self, images: Tensor) -> Views:
        """See :func:`views`."""
        return views(images, patch_size=self.patch_size, truncation=self.truncation, dtype=self.dtype)

    def extra_repr(self) -> str:
        """The settings, as ``print`` shows them."""
        return f"patch_size={self.patch_size}, truncation={self.truncation}, dtype={self.dtype}"
