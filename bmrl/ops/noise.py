"""The noise view: residuals of three high-pass filters of the steganalysis rich model (SRM)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bmrl._checks import check_images, check_positive
from bmrl._ranges import check_contrast
from bmrl.ops._dispatch import runs_kernels
from bmrl.ops.luma import output_dtype, unit_range

__all__ = ["SRM", "srm"]


def srm(images: Tensor, *, truncation: float = 3.0) -> Tensor:
    r"""Return three SRM residuals of the channel sum, zero-padded by 2 and clamped to ±truncation.

    The 5 x 5 kernels are KB (3 x 3 second-order square, / 4), KV (5 x 5 square, / 12) and H2 (horizontal second
    difference, / 2). With the row operators D1 = [1 -2 1] and D2 = [1 0 -2 0 1] and s the channel sum they factor
    into shifted sums: KB = -D1(x) D1(y) s / 4, H2 = D1(x) s / 2 and
    KV = (D1(x)(2A - 6B) + D2(x)(2B - A)) / 12 with A = D2(y) s and B = D1(y) s.

    Args:
        images: ``(batch, channels, height, width)``, 3 (RGB) or 1 channels, uint8 in 0..255 or floating point in
            [0, 1]. NaN propagates. A brightness that is added to all pixels leaves residuals away from the border as
            they are, but the truncation presumes the contrast of [0, 1]: floats that span more than 1.9 (1 and what
            resampling overshoots) are refused on the CPU, where values can be looked at.
        truncation: > 0; residuals are clamped to [-truncation, truncation], infinity clamps nothing. Residuals of
            images in [0, 1] rarely leave ±1, so that the default clamps nothing; the 3 gray levels of classical
            steganalysis are 3 / 255.

    Returns:
        ``(batch, 3, height, width)`` with KB, KV and H2 as channels; float32 for uint8 images, else the images'
        dtype (computed in float32 at least).

    Raises:
        ShapeError: not four axes, or not 1 or 3 channels.
        DTypeError: images neither uint8 nor floating point, or ``truncation`` no number.
        RangeError: ``truncation`` is not positive, or floating point images span more than 1.9, such as normalized
            ones or those that count to 255 (on the CPU, uncompiled).

    Source: Fridrich and Kodovsky, 2012; the noise view of arXiv:2504.14129, section 3.3.

    Example:
        >>> srm(torch.full((1, 3, 9, 9), 0.5))[0, :, 4, 4].abs().max().item()  # flat areas leave no residual
        0.0
    """
    check_images("images", images)
    check_positive("truncation", truncation)
    check_contrast("images", images)
    truncation = float(truncation)
    if runs_kernels(images):
        from bmrl.ops import _registration

        return _registration.srm_op(images, truncation, output_dtype(images))
    return srm_in_aten(images, truncation, output_dtype(images))


class SRM(nn.Module):
    """Module form of :func:`srm`."""

    def __init__(self, *, truncation: float = 3.0) -> None:
        super().__init__()
        check_positive("truncation", truncation)
        self.truncation = float(truncation)

    def forward(self, images: Tensor) -> Tensor:
        """See :func:`srm`."""
        return srm(images, truncation=self.truncation)

    def extra_repr(self) -> str:
        """The settings, as ``print`` shows them."""
        return f"truncation={self.truncation}"


def _channel_sum(images: Tensor) -> Tensor:
    scaled = unit_range(images)
    if images.shape[1] == 1:
        return scaled
    red, green, blue = scaled.split(1, dim=1)
    return (red + green).add_(blue)


def srm_in_aten(images: Tensor, truncation: float, dtype: torch.dtype) -> Tensor:
    """Clamped residuals in ``dtype``, by ATen operators alone."""
    return torch.cat(_residuals(_channel_sum(images)), dim=1).clamp(-truncation, truncation).to(dtype)


def _residuals(total: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """KB, KV and H2 of the channel sum ``(batch, 1, height, width)``."""
    rows, d1y, d2y = _down(total)
    kb = _d1x(d1y).div_(-4)
    kv = _d1x((2 * d2y).sub_(d1y, alpha=6)).add_(_d2x((2 * d1y).sub_(d2y))).div_(12)
    h2 = _d1x(rows).div_(2)
    return kb, kv, h2


def _down(total: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The zero-padded rows themselves, and D1 and D2 along the columns."""
    padded = F.pad(total, (2, 2, 2, 2))
    rows = padded[..., 2:-2, :]
    d1y = padded[..., 1:-3, :].sub(rows, alpha=2).add_(padded[..., 3:-1, :])
    d2y = padded[..., :-4, :].sub(rows, alpha=2).add_(padded[..., 4:, :])
    return rows, d1y, d2y


def _d1x(rows: Tensor) -> Tensor:
    return rows[..., 1:-3].sub(rows[..., 2:-2], alpha=2).add_(rows[..., 3:-1])


def _d2x(rows: Tensor) -> Tensor:
    return rows[..., :-4].sub(rows[..., 2:-2], alpha=2).add_(rows[..., 4:])


def srm_adjoint(gradient: Tensor, images: Tensor, truncation: float) -> Tensor:
    """Gradient of the images from that of their residuals; differentiable itself."""
    residuals = torch.cat(_residuals(_channel_sum(images)), dim=1)
    flows = torch.where(residuals.abs() <= truncation, gradient.to(residuals.dtype), 0)
    # Each filter is symmetric and so its own adjoint.
    kb, kv, h2 = flows.split(1, dim=1)
    total = _residuals(kb)[0] + _residuals(kv)[1] + _residuals(h2)[2]
    return total.expand(images.shape).to(images.dtype, copy=True)
