"""The patch selector: the patch of an image with the richest texture."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from bmrl._checks import check_images
from bmrl.errors import ShapeError
from bmrl.ops.luma import grey_levels

__all__ = ["PatchHomogeneity", "RichestPatch", "patch_homogeneity", "richest_patch"]


def patch_homogeneity(images: Tensor, *, patch_size: int = 112) -> Tensor:
    r"""Return the homogeneity of the grey-level co-occurrence matrix of each non-overlapping patch.

    For the matrix at distance 1, angle 0, symmetric and normalised over 256 levels (Haralick et al., 1973),
    homogeneity :math:`\sum_{ij} P_{ij} / (1 + (i - j)^2)` equals the mean of :math:`1 / (1 + (a - b)^2)` over
    horizontally neighbouring levels a, b, so that no matrix is built. 1 is a flat patch, small values are rich
    texture.

    Args:
        images: ``(batch, channels, height, width)``, 3 (RGB) or 1 channels, uint8 in 0..255 or floating point in
            [0, 1]; a float32 or float64 image that was uint8 before gives the same result. NaN propagates.
        patch_size: side of a patch in pixels, at least 2 and at most height and width; a remainder at the right
            or bottom is ignored.

    Returns:
        ``(batch, rows, columns)`` in (0, 1], rows = height // patch_size; float32, or float64 for float64 images.

    Raises:
        ShapeError: not four axes, not 1 or 3 channels, or the patch does not fit.
        DTypeError: neither uint8 nor floating point.

    Example:
        >>> import torch
        >>> patch_homogeneity(torch.zeros(1, 3, 4, 6), patch_size=2)
        tensor([[[1., 1., 1.],
                 [1., 1., 1.]]])
    """
    check_patch("images", images, patch_size)
    return _one_and_squared_differences(images, patch_size).reciprocal_().mean(dim=(-2, -1))


def richest_patch(images: Tensor, *, patch_size: int = 112) -> tuple[Tensor, Tensor]:
    """Return the least homogeneous patch of each image, and which one it is.

    Args:
        images: as :func:`patch_homogeneity`.
        patch_size: as :func:`patch_homogeneity`.

    Returns:
        The patches ``(batch, channels, patch_size, patch_size)`` in the images' dtype, and their indices
        ``(batch,)`` int64, counted row by row from the top left; a tie goes to the lowest index.

    Raises:
        ShapeError: as :func:`patch_homogeneity`.
        DTypeError: as :func:`patch_homogeneity`.

    Source: the patch selector of arXiv:2504.14129, section 3.3.

    Example:
        >>> import torch
        >>> image = torch.zeros(1, 1, 2, 4)
        >>> image[..., 3] = 1.0
        >>> richest_patch(image, patch_size=2)[1]
        tensor([1])
    """
    check_patch("images", images, patch_size)
    # Whole numbers, so that their sum is exact in any order: a tie is a tie on every device.
    similarity = _one_and_squared_differences(images, patch_size).double().reciprocal_().mul_(2**32).round_()
    indices = similarity.sum(dim=(-2, -1)).flatten(1).argmin(dim=1)
    patches = patches_of(images, patch_size)
    chosen = indices[:, None, None, None, None].expand(-1, 1, *patches.shape[2:])
    return patches.gather(1, chosen)[:, 0], indices


def _one_and_squared_differences(images: Tensor, patch_size: int) -> Tensor:
    """1 + d**2 of horizontally neighbouring grey levels, ``(batch, rows, columns, p, p - 1)``."""
    levels = rearrange(
        _cropped(grey_levels(images), patch_size), "b (r p) (q s) -> b r q p s", p=patch_size, s=patch_size
    )
    differences = levels[..., 1:] - levels[..., :-1]
    if images.is_floating_point():
        differences = differences.clamp(-4095, 4095)  # far beyond an image's range; infinities count as this
    return differences.square_().add_(1)


def check_patch(name: str, images: Tensor, patch_size: int) -> None:
    check_images(name, images)
    if patch_size < 2:
        raise ShapeError(f"patch_size: expected >= 2 (levels are compared with a neighbour), got {patch_size}")
    if patch_size > min(images.shape[-2:]):
        raise ShapeError(f"patch_size: expected at most height and width of {tuple(images.shape)}, got {patch_size}")


def patches_of(images: Tensor, patch_size: int) -> Tensor:
    """Non-overlapping patches ``(batch, patches, channels, patch_size, patch_size)``, row by row."""
    return rearrange(_cropped(images, patch_size), "b c (r p) (q s) -> b (r q) c p s", p=patch_size, s=patch_size)


def _cropped(images: Tensor, patch_size: int) -> Tensor:
    """Drop the rows and columns that no patch covers."""
    height, width = images.shape[-2:]
    return images[..., : height - height % patch_size, : width - width % patch_size]


class PatchHomogeneity(nn.Module):
    """Module form of :func:`patch_homogeneity`."""

    def __init__(self, *, patch_size: int = 112) -> None:
        super().__init__()
        self.patch_size = patch_size

    def forward(self, images: Tensor) -> Tensor:
        """See :func:`patch_homogeneity`."""
        return patch_homogeneity(images, patch_size=self.patch_size)

    def extra_repr(self) -> str:
        """The settings, as ``print`` shows them."""
        return f"patch_size={self.patch_size}"


class RichestPatch(nn.Module):
    """Module form of :func:`richest_patch`."""

    def __init__(self, *, patch_size: int = 112) -> None:
        super().__init__()
        self.patch_size = patch_size

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See :func:`richest_patch`."""
        return richest_patch(images, patch_size=self.patch_size)

    def extra_repr(self) -> str:
        """The settings, as ``print`` shows them."""
        return f"patch_size={self.patch_size}"
