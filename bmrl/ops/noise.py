"""The noise view: residuals of three high-pass filters of the steganalysis rich model (SRM)."""

from __future__ import annotations

from torch import Tensor, nn

from bmrl._checks import check_images, check_positive
from bmrl._ranges import check_contrast
from bmrl.ops._aten import noise as aten
from bmrl.ops._aten.luma import output_dtype
from bmrl.ops._dispatch import runs_kernels

__all__ = ["SRM", "srm"]


def srm(images: Tensor, *, truncation: float = 3.0) -> Tensor:
    r"""Return three SRM residuals of the channel sum, zero-padded by 2 and clamped to ±truncation.

    The 5 x 5 kernels are KB (3 x 3 second-order square, / 4), KV (5 x 5 square, / 12) and H2 (horizontal second
    difference, / 2). With the row operators D1 = [1 -2 1] and D2 = [1 0 -2 0 1] and s the channel sum they factor
    into shifted sums: KB = -D1(x) D1(y) s / 4, H2 = D1(x) s / 2 and
    KV = (D1(x)(2A - 6B) + D2(x)(2B - A)) / 12 with A = D2(y) s and B = D1(y) s.

    Args:
        images: ``(batch, channels, height, width)``, 3 (RGB) or 1 channels, uint8 in 0..255 or floating point in
            [0, 1]. NaN propagates. A brightness added to all pixels does not change residuals away from the border,
            but the truncation assumes the contrast of [0, 1]: floats that span more than 1.9 (1 plus the overshoot of
            resampling) are refused on the CPU, where checking values does not synchronize.
        truncation: > 0; residuals are clamped to [-truncation, truncation], infinity clamps nothing. Residuals of
            images in [0, 1] rarely leave ±1, so that the default clamps nothing; the 3 gray levels of classical
            steganalysis are 3 / 255.

    Returns:
        ``(batch, 3, height, width)`` with KB, KV and H2 as channels; float32 for uint8 images, else the images'
        dtype (computed in float32 at least).

    Raises:
        ShapeError: not four axes, or not 1 or 3 channels.
        DTypeError: images neither uint8 nor floating point, or ``truncation`` not a number.
        RangeError: ``truncation`` is not positive, or floating point images span more than 1.9, such as normalized
            ones or those that count to 255 (on the CPU, uncompiled).

    Source: Fridrich and Kodovsky, "Rich Models for Steganalysis of Digital Images", 2012; the noise view of
    arXiv:2504.14129, section 3.3.

    Example:
        >>> import torch
        >>> srm(torch.full((1, 3, 9, 9), 0.5))[0, :, 4, 4].abs().max().item()  # flat areas leave no residual
        0.0
    """
    check_images("images", images)
    check_positive("truncation", truncation)
    check_contrast("images", images)
    truncation = float(truncation)
    if runs_kernels(images):
        from bmrl.ops import _operators

        return _operators.srm_op(images, truncation, output_dtype(images))
    return aten.srm(images, truncation, output_dtype(images))


class SRM(nn.Module):
    """Module form of :func:`srm`, which documents shapes, ranges and errors; it has no parameters.

    Args:
        truncation: > 0; residuals are clamped to [-truncation, truncation].

    Raises:
        DTypeError: ``truncation`` is not a number.
        RangeError: ``truncation`` is not positive.

    Example:
        >>> import torch
        >>> SRM(truncation=3 / 255)(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 3, 8, 8])
    """

    def __init__(self, *, truncation: float = 3.0) -> None:
        super().__init__()
        check_positive("truncation", truncation)
        self.truncation = float(truncation)

    def forward(self, images: Tensor) -> Tensor:
        """The residuals ``(batch, 3, height, width)`` of images ``(batch, channels, height, width)``."""
        return srm(images, truncation=self.truncation)

    def extra_repr(self) -> str:
        """The settings, as ``print`` shows them."""
        return f"truncation={self.truncation}"
