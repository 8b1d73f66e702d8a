"""Brightness of a color image: the grayscale image and its integer gray levels."""

from __future__ import annotations

from torch import Tensor, nn

from bmrl._checks import check_images
from bmrl.ops._aten.luma import luma, output_dtype, unit_range

__all__ = ["Grayscale", "grayscale"]


def grayscale(images: Tensor) -> Tensor:
    r"""Return the luma of RGB images, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601).

    Args:
        images: ``(batch, 3, height, width)`` RGB, uint8 in 0..255 or floating point in [0, 1]; images of one
            channel are returned in [0, 1] unchanged. Floats in another range are not rescaled.

    Returns:
        ``(batch, 1, height, width)``, in [0, 1] where the images are; float32 for uint8 images, else the images' dtype.

    Raises:
        ShapeError: not four axes, or not 1 or 3 channels.
        DTypeError: neither uint8 nor floating point.

    Source: Recommendation ITU-R BT.601.

    Example:
        >>> import torch
        >>> grayscale(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).item()
        1.0
    """
    check_images("images", images)
    return luma(unit_range(images)).to(output_dtype(images))


class Grayscale(nn.Module):
    """Module form of :func:`grayscale`, which documents shapes, ranges and errors; it has no parameters.

    Example:
        >>> import torch
        >>> Grayscale()(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 1, 8, 8])
    """

    def forward(self, images: Tensor) -> Tensor:
        """The luma ``(batch, 1, height, width)`` of images ``(batch, channels, height, width)``."""
        return grayscale(images)
