"""The edge view: Sobel gradient magnitude."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bmrl._checks import check_images
from bmrl.errors import ShapeError
from bmrl.ops.luma import luma, output_dtype, unit_range

__all__ = ["Sobel", "sobel"]


def sobel(images: Tensor) -> Tensor:
    r"""Return the Sobel gradient magnitude of the greyscale image, :math:`\sqrt{g_x^2 + g_y^2}`.

    The kernels are ``[-1 0 1; -2 0 2; -1 0 1]`` and its transpose, not normalised; the border is mirrored
    without repeating the edge pixel (reflect-101, as OpenCV's default). The gradient of a flat pixel is 0.

    Args:
        images: ``(batch, channels, height, width)``, 3 (RGB) or 1 channels, uint8 in 0..255 or floating point in
            [0, 1]; height and width at least 2. NaN propagates.

    Returns:
        ``(batch, 1, height, width)``, 0 to about 4.5; float32 for uint8 images, else the images' dtype
        (computed in float32 at least).

    Raises:
        ShapeError: not four axes, not 1 or 3 channels, or a side below 2.
        DTypeError: neither uint8 nor floating point.

    Source: the edge view of arXiv:2504.14129, section 3.3.

    Example:
        >>> step = torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 3).expand(1, 3, 3, 4)
        >>> [round(value, 3) for value in sobel(step)[0, 0, 1].tolist()]
        [0.0, 4.0, 4.0, 0.0]
    """
    check_images("images", images)
    if min(images.shape[-2:]) < 2:
        raise ShapeError(f"images: expected height and width >= 2 (the border mirrors), got {tuple(images.shape)}")
    return _sobel(luma(unit_range(images))).to(output_dtype(images))


def _sobel(gray: Tensor) -> Tensor:
    """Gradient magnitude of ``(batch, 1, height, width)``, by separable shifted sums."""
    padded = F.pad(gray, (1, 1, 1, 1), mode="reflect")
    above, middle, below = padded[..., :-2, :], padded[..., 1:-1, :], padded[..., 2:, :]
    smoothed = above + 2 * middle + below
    difference = below - above
    gx = smoothed[..., 2:] - smoothed[..., :-2]
    gy = difference[..., :-2] + 2 * difference[..., 1:-1] + difference[..., 2:]
    # A norm, not a square root: its gradient at a flat pixel is 0, never NaN.
    return torch.linalg.vector_norm(torch.cat((gx, gy), dim=1), dim=1, keepdim=True)


class Sobel(nn.Module):
    """Module form of :func:`sobel`."""

    def forward(self, images: Tensor) -> Tensor:
        """See :func:`sobel`."""
        return sobel(images)
