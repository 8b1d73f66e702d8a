"""The edge view: Sobel gradient magnitude."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bmrl._checks import check_images
from bmrl.errors import ShapeError
from bmrl.ops._dispatch import runs_kernels
from bmrl.ops.luma import luma, luma_adjoint, output_dtype, unit_range

__all__ = ["Sobel", "sobel"]


def sobel(images: Tensor) -> Tensor:
    r"""Return the Sobel gradient magnitude of the grayscale image, :math:`\sqrt{g_x^2 + g_y^2}`.

    The kernels are ``[-1 0 1; -2 0 2; -1 0 1]`` and its transpose, not normalized; the border is mirrored
    without repeating the edge pixel (reflect-101, as OpenCV's default). The gradient of a flat pixel is 0.

    Args:
        images: ``(batch, channels, height, width)``, 3 (RGB) or 1 channels, uint8 in 0..255 or floating point in
            [0, 1]; height and width at least 2. NaN propagates. Other floats are taken at their scale: the result
            grows with their contrast and knows nothing of their brightness.

    Returns:
        ``(batch, 1, height, width)``, 0 to about 4.5 for images in [0, 1]; float32 for uint8 images, else the images'
        dtype (computed in float32 at least).

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
    check_sides("images", images)
    if runs_kernels(images):
        from bmrl.ops import _registration

        return _registration.sobel_op(images, output_dtype(images))
    return sobel_in_aten(images, output_dtype(images))


def check_sides(name: str, images: Tensor) -> None:
    """Check that the border can mirror."""
    if min(images.shape[-2:]) < 2:
        raise ShapeError(f"{name}: expected height and width >= 2 (the border mirrors), got {tuple(images.shape)}")


class Sobel(nn.Module):
    """Module form of :func:`sobel`."""

    def forward(self, images: Tensor) -> Tensor:
        """See :func:`sobel`."""
        return sobel(images)


def sobel_in_aten(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Sobel magnitude in ``dtype``, by ATen operators alone."""
    return sobel_of_luma(luma(unit_range(images))).to(dtype)


def sobel_of_luma(gray: Tensor) -> Tensor:
    """Sobel magnitude of a luma ``(batch, 1, height, width)``."""
    return _magnitude(*_parts(gray))


def _magnitude(gx: Tensor, gy: Tensor) -> Tensor:
    square = (gx * gx).addcmul_(gy, gy)
    # The gradient at a flat pixel is 0, where that of a plain root is not a number.
    flat = square == 0
    return square.masked_fill_(flat, 1).sqrt().masked_fill(flat, 0)


def _parts(gray: Tensor) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical gradient of ``(batch, 1, height, width)``, by separable shifted sums."""
    padded = F.pad(gray, (1, 1, 1, 1), mode="reflect")
    above, middle, below = padded[..., :-2, :], padded[..., 1:-1, :], padded[..., 2:, :]
    smoothed = above.add(middle, alpha=2).add_(below)
    difference = below - above
    gx = smoothed[..., 2:] - smoothed[..., :-2]
    gy = difference[..., :-2].add(difference[..., 1:-1], alpha=2).add_(difference[..., 2:])
    return gx, gy


def sobel_adjoint(gradient: Tensor, images: Tensor) -> Tensor:
    """Gradient of the images from that of their Sobel magnitude; differentiable itself."""
    gray = luma(unit_range(images))
    gx, gy = _parts(gray)
    magnitude = _magnitude(gx, gy)
    flow = gradient.to(gray.dtype) / torch.where(magnitude > 0, magnitude, torch.inf)
    across, along = flow * gx, flow * gy
    smoothed = F.pad(across, (2, 0)) - F.pad(across, (0, 2))
    difference = F.pad(along, (0, 2)) + 2 * F.pad(along, (1, 1)) + F.pad(along, (2, 0))
    padded = (
        F.pad(smoothed - difference, (0, 0, 0, 2))
        + 2 * F.pad(smoothed, (0, 0, 1, 1))
        + F.pad(smoothed + difference, (0, 0, 2, 0))
    )
    height, width = images.shape[-2:]
    # What fell on the mirrored border belongs to the second and the last but one row and column.
    rows = padded[..., 1:-1, :] + F.pad(padded[..., :1, :], (0, 0, 1, height - 2))
    rows = rows + F.pad(padded[..., -1:, :], (0, 0, height - 2, 1))
    folded = rows[..., 1:-1] + F.pad(rows[..., :1], (1, width - 2)) + F.pad(rows[..., -1:], (width - 2, 1))
    return luma_adjoint(folded, images.shape[1]).to(images.dtype)
