"""The edge view: Sobel gradient magnitude."""

from __future__ import annotations

from torch import Tensor, nn

from bmrl._checks import check_images
from bmrl.errors import ShapeError
from bmrl.ops._aten import edges as aten
from bmrl.ops._aten.luma import output_dtype
from bmrl.ops._dispatch import runs_kernels

__all__ = ["Sobel", "sobel"]


def sobel(images: Tensor) -> Tensor:
    r"""Return the Sobel gradient magnitude of the grayscale image, :math:`\sqrt{g_x^2 + g_y^2}`.

    The kernels are ``[-1 0 1; -2 0 2; -1 0 1]`` and its transpose, not normalized; the border is mirrored
    without repeating the edge pixel (reflect-101, as OpenCV's default). The gradient of a flat pixel is 0.

    Args:
        images: ``(batch, channels, height, width)``, 3 (RGB) or 1 channels, uint8 in 0..255 or floating point in
            [0, 1]; height and width at least 2. NaN propagates. Floats in another range are not rescaled: the result
            grows with their contrast and does not depend on their brightness.

    Returns:
        ``(batch, 1, height, width)``, 0 to about 4.5 for images in [0, 1]; float32 for uint8 images, else the images'
        dtype (computed in float32 at least).

    Raises:
        ShapeError: not four axes, not 1 or 3 channels, or a side below 2.
        DTypeError: neither uint8 nor floating point.

    Source: the edge view of arXiv:2504.14129, section 3.3.

    Example:
        >>> import torch
        >>> step = torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 3).expand(1, 3, 3, 4)
        >>> [round(value, 3) for value in sobel(step)[0, 0, 1].tolist()]
        [0.0, 4.0, 4.0, 0.0]
    """
    check_images("images", images)
    check_sides("images", images)
    if runs_kernels(images):
        from bmrl.ops import _operators

        return _operators.sobel_op(images, output_dtype(images))
    return aten.sobel(images, output_dtype(images))


def check_sides(name: str, images: Tensor) -> None:
    """Check that the border can mirror."""
    if min(images.shape[-2:]) < 2:
        raise ShapeError(f"{name}: expected height and width >= 2 (the border mirrors), got {tuple(images.shape)}")


class Sobel(nn.Module):
    """Module form of :func:`sobel`, which documents shapes, ranges and errors; it has no parameters.

    Example:
        >>> import torch
        >>> Sobel()(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 1, 8, 8])
    """

    def forward(self, images: Tensor) -> Tensor:
        """The gradient magnitude ``(batch, 1, height, width)`` of images ``(batch, channels, height, width)``."""
        return sobel(images)
