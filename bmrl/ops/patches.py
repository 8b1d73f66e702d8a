"""The patch selector: the patch of an image with the richest texture."""

from __future__ import annotations

import numbers

import torch
from torch import Tensor, nn

from bmrl._checks import check_images
from bmrl._ranges import check_unit_range
from bmrl.errors import DTypeError, ShapeError
from bmrl.ops._aten.luma import gray_levels
from bmrl.ops._aten.patches import patch_at, patch_grid, patch_similarity, richest_index

__all__ = ["PatchHomogeneity", "RichestPatch", "all_patches", "patch_homogeneity", "richest_patch"]


def patch_homogeneity(images: Tensor, *, patch_size: int = 112) -> Tensor:
    r"""Return the homogeneity of the gray-level co-occurrence matrix of each non-overlapping patch.

    For the matrix at distance 1, angle 0, symmetric and normalized over 256 levels (Haralick et al., 1973),
    homogeneity :math:`\sum_{ij} P_{ij} / (1 + (i - j)^2)` equals the mean of :math:`1 / (1 + (a - b)^2)` over
    horizontally neighboring levels a, b, so that no matrix is built. 1 is a flat patch, small values are rich
    texture.

    Args:
        images: ``(batch, channels, height, width)``, 3 (RGB) or 1 channels, uint8 in 0..255 or floating point in
            [0, 1]; a float32 or float64 image that was uint8 before gives the same result. NaN propagates. Floats
            beyond -0.45..1.45, which resampling does not reach, are refused on the CPU, where checking values does not
            synchronize.
        patch_size: side of a patch in pixels, at least 2 and at most height and width; a remainder at the right
            or bottom is ignored.

    Returns:
        ``(batch, rows, columns)`` in (0, 1], rows = height // patch_size; float32, or float64 for float64 images.

    Raises:
        ShapeError: not four axes, not 1 or 3 channels, or the patch does not fit.
        DTypeError: images neither uint8 nor floating point, or ``patch_size`` not an integer.
        RangeError: floating point images beyond -0.45..1.45, such as normalized ones (on the CPU, uncompiled).

    Source: Haralick et al., "Textural Features for Image Classification", 1973; the patch selector of
    arXiv:2504.14129, section 3.3.

    Example:
        >>> import torch
        >>> patch_homogeneity(torch.zeros(1, 3, 4, 6), patch_size=2)
        tensor([[[1., 1., 1.],
                 [1., 1., 1.]]])
    """
    patch_size = check_patch("images", images, patch_size)
    check_unit_range("images", images)
    return patch_similarity(gray_levels(images), patch_size).mean(dim=(-2, -1))


def richest_patch(images: Tensor, *, patch_size: int = 112) -> tuple[Tensor, Tensor]:
    """Return the least homogeneous patch of each image, and which one it is.

    The homogeneity of each pair of pixels is rounded to steps of 2**-24, and these are added exactly: every device
    chooses the same patch of an image that is or was uint8.

    Args:
        images: as :func:`patch_homogeneity`.
        patch_size: as :func:`patch_homogeneity`.

    Returns:
        The patches ``(batch, channels, patch_size, patch_size)`` in the images' dtype, and their indices
        ``(batch,)`` int64, counted row by row from the top left; a tie goes to the lowest index.

    Raises:
        ShapeError: as :func:`patch_homogeneity`.
        DTypeError: as :func:`patch_homogeneity`.
        RangeError: as :func:`patch_homogeneity`.

    Source: the patch selector of arXiv:2504.14129, section 3.3.

    Example:
        >>> import torch
        >>> image = torch.zeros(1, 1, 2, 4)
        >>> image[..., 3] = 1.0
        >>> richest_patch(image, patch_size=2)[1]
        tensor([1])
    """
    patch_size = check_patch("images", images, patch_size)
    check_unit_range("images", images)
    indices = richest_index(gray_levels(images.detach()), patch_size)
    return patch_at(images, indices, patch_size), indices


def all_patches(images: Tensor, *, patch_size: int = 112) -> Tensor:
    """Return all non-overlapping patches, row by row from the upper left: a copy.

    Args:
        images: ``(batch, channels, height, width)``, 3 (RGB) or 1 channels, uint8 or floating point.
        patch_size: side p of a patch in pixels, at least 2 and at most height and width; a remainder at the right or
            bottom is left out.

    Returns:
        ``(batch, patches, channels, p, p)`` in the images' dtype.

    Raises:
        ShapeError, DTypeError: as :func:`patch_homogeneity`.

    Example:
        >>> import torch
        >>> all_patches(torch.zeros(2, 3, 5, 6), patch_size=2).shape
        torch.Size([2, 6, 3, 2, 2])
    """
    return patch_grid(images, check_patch("images", images, patch_size)).flatten(1, 2)


def check_patch_size(patch_size: int) -> int:
    """Check for a whole number of at least two pixels, and return it as one of Python."""
    if isinstance(patch_size, bool) or not isinstance(patch_size, int | torch.SymInt | numbers.Integral):
        raise DTypeError(f"patch_size: expected an int, got {type(patch_size).__name__}")
    if patch_size < 2:
        raise ShapeError(f"patch_size: expected >= 2 (levels are compared with a neighbor), got {patch_size}")
    return int(patch_size)


def check_patch(name: str, images: Tensor, patch_size: int) -> int:
    """Check images and the patch that is to be cut from them; return its size as an int of Python."""
    check_images(name, images)
    patch_size = check_patch_size(patch_size)
    if patch_size > min(images.shape[-2:]):
        raise ShapeError(f"patch_size: expected at most height and width of {tuple(images.shape)}, got {patch_size}")
    return patch_size


class PatchHomogeneity(nn.Module):
    """Module form of :func:`patch_homogeneity`, which documents shapes, ranges and errors; it has no parameters.

    Args:
        patch_size: side of a patch in pixels, >= 2; images must be at least as high and wide.

    Raises:
        DTypeError: ``patch_size`` is not an integer.
        ShapeError: ``patch_size`` is below 2.

    Source: the patch selector of arXiv:2504.14129, section 3.3.

    Example:
        >>> import torch
        >>> PatchHomogeneity(patch_size=4)(torch.rand(2, 3, 8, 12)).shape
        torch.Size([2, 2, 3])
    """

    def __init__(self, *, patch_size: int = 112) -> None:
        super().__init__()
        self.patch_size = check_patch_size(patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """The homogeneity ``(batch, rows, columns)`` of the patches of images ``(batch, channels, height, width)``."""
        return patch_homogeneity(images, patch_size=self.patch_size)

    def extra_repr(self) -> str:
        """The settings, as ``print`` shows them."""
        return f"patch_size={self.patch_size}"


class RichestPatch(nn.Module):
    """Module form of :func:`richest_patch`, which documents shapes, ranges and errors; it has no parameters.

    Args:
        patch_size: side of a patch in pixels, >= 2; images must be at least as high and wide.

    Raises:
        DTypeError: ``patch_size`` is not an integer.
        ShapeError: ``patch_size`` is below 2.

    Source: the patch selector of arXiv:2504.14129, section 3.3.

    Example:
        >>> import torch
        >>> patches, indices = RichestPatch(patch_size=4)(torch.rand(2, 3, 8, 12))
        >>> patches.shape, indices.shape
        (torch.Size([2, 3, 4, 4]), torch.Size([2]))
    """

    def __init__(self, *, patch_size: int = 112) -> None:
        super().__init__()
        self.patch_size = check_patch_size(patch_size)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The patches ``(batch, channels, patch_size, patch_size)`` and their indices ``(batch,)``."""
        return richest_patch(images, patch_size=self.patch_size)

    def extra_repr(self) -> str:
        """The settings, as ``print`` shows them."""
        return f"patch_size={self.patch_size}"
