"""The three views of a face that the visual encoder sees."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from bmrl._checks import check_positive
from bmrl._ranges import check_unit_range
from bmrl.errors import DTypeError
from bmrl.ops._aten import view_extraction as aten
from bmrl.ops._dispatch import runs_kernels
from bmrl.ops.edges import check_sides
from bmrl.ops.patches import check_patch, check_patch_size

__all__ = ["ViewExtractor", "Views", "views"]


_RESULT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Views(NamedTuple):
    """What :func:`views` returns."""

    appearance: Tensor
    """The image itself, ``(batch, channels, height, width)`` in [0, 1]; the same memory if nothing changes."""
    edge: Tensor
    """Sobel magnitude, ``(batch, 1, height, width)``, 0 to about 4.5."""
    noise: Tensor
    """SRM residuals of the richest patch, ``(batch, 3, patch_size, patch_size)`` within ±truncation."""


def views(
    images: Tensor, *, patch_size: int = 112, truncation: float = 3.0, dtype: torch.dtype = torch.float32
) -> Views:
    """Return the appearance, edge and noise views of a batch of images.

    Args:
        images: ``(batch, channels, height, width)``, 3 (RGB) or 1 channels, uint8 in 0..255 or floating point in
            [0, 1]; height and width at least 2. NaN propagates. Floats beyond -0.45..1.45, which resampling does not
            reach, are refused on the CPU, where checking values does not synchronize.
        patch_size: side of the patch that the noise view shows, at most height and width.
        truncation: > 0, as in :func:`~bmrl.ops.srm`.
        dtype: of the three results; a floating point dtype.

    Returns:
        :class:`Views`: :func:`~bmrl.ops.sobel` of the image and :func:`~bmrl.ops.srm` of its
        :func:`~bmrl.ops.richest_patch`, together with the image itself.

    Raises:
        ShapeError: not four axes, not 1 or 3 channels, a side below 2, or the patch does not fit.
        DTypeError: images neither uint8 nor floating point, ``dtype`` not a floating-point one, ``patch_size`` not an
            integer, or ``truncation`` not a number.
        RangeError: ``truncation`` is not positive, or floating point images beyond -0.45..1.45, such as normalized
            ones or those that count to 255 (on the CPU, uncompiled).

    Source: arXiv:2504.14129, section 3.3.

    Example:
        >>> import torch
        >>> [tuple(view.shape) for view in views(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), patch_size=16)]
        [(2, 3, 32, 32), (2, 1, 32, 32), (2, 3, 16, 16)]
    """
    _check_result_dtype(dtype)
    patch_size = check_patch("images", images, patch_size)
    check_sides("images", images)
    check_positive("truncation", truncation)
    truncation = float(truncation)
    check_unit_range("images", images)
    if runs_kernels(images):
        from bmrl.ops import _operators

        # Images that are what the appearance view shows are not copied.
        copied = images.dtype != dtype
        appearance, edge, noise, _ = _operators.views_op(images, patch_size, truncation, dtype, copied)
        return Views(appearance if copied else images, edge, noise)
    return Views(*aten.views(images, patch_size, truncation, dtype)[:3])


def _check_result_dtype(dtype: torch.dtype) -> None:
    if not isinstance(dtype, torch.dtype) or dtype not in _RESULT_DTYPES:
        got = repr(dtype) if isinstance(dtype, torch.dtype | str) else type(dtype).__name__
        raise DTypeError(f"dtype: expected {' or '.join(map(str, _RESULT_DTYPES))}, got {got}")


class ViewExtractor(nn.Module):
    """Module form of :func:`views`, which documents shapes, ranges and errors; it has no parameters.

    Args:
        patch_size: side in pixels of the patch that the noise view shows, >= 2.
        truncation: > 0; residuals of the noise view are clamped to [-truncation, truncation].
        dtype: of the three results; a floating-point dtype.

    Raises:
        DTypeError: ``patch_size`` is not an integer, ``truncation`` not a number, or ``dtype`` not a floating-point
            one.
        ShapeError: ``patch_size`` is below 2.
        RangeError: ``truncation`` is not positive.

    Source: arXiv:2504.14129, section 3.3.

    Example:
        >>> import torch
        >>> extract = ViewExtractor(patch_size=16, dtype=torch.float16)
        >>> appearance, edge, noise = extract(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
        >>> edge.shape, noise.shape, noise.dtype
        (torch.Size([2, 1, 32, 32]), torch.Size([2, 3, 16, 16]), torch.float16)
    """

    def __init__(self, *, patch_size: int = 112, truncation: float = 3.0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        patch_size = check_patch_size(patch_size)
        check_positive("truncation", truncation)
        _check_result_dtype(dtype)
        self.patch_size = patch_size
        self.truncation = float(truncation)
        self.dtype = dtype

    def forward(self, images: Tensor) -> Views:
        """The :class:`Views` of images ``(batch, channels, height, width)``."""
        return views(images, patch_size=self.patch_size, truncation=self.truncation, dtype=self.dtype)

    def extra_repr(self) -> str:
        """The settings, as ``print`` shows them."""
        return f"patch_size={self.patch_size}, truncation={self.truncation}, dtype={self.dtype}"
