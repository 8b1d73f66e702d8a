"""Statistics of the faint traces that a generator, or a camera, leaves all over an image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from bmrl._checks import check_images
from bmrl._precision import no_autocast
from bmrl._ranges import check_unit_range
from bmrl.errors import ShapeError
from bmrl.ops._aten import statistics as aten

__all__ = ["LEAST_SIZE", "NUM_STATISTICS", "STATISTICS", "ResidualStatistics", "residual_statistics"]

STATISTICS: dict[str, slice] = {
    "cooccurrences": slice(0, 312),
    "block_dct": slice(312, 438),
    "spectrum": slice(438, 460),
    "color": slice(460, 465),
}
"""Where the four kinds of numbers are in a row of statistics."""
NUM_STATISTICS = 465
"""Numbers per image."""
LEAST_SIZE = aten.WINDOW
"""The smallest height and width of an image in pixels."""

_SCALE = 2.0**24
"""Of the constants that are kept as whole numbers, which no conversion to another precision rounds."""


class _Constants(NamedTuple):
    """The matrices of the transforms, and the number of each triple of residuals, all as whole numbers."""

    orbit_of: Tensor
    dct: Tensor
    cosine: Tensor
    sine: Tensor
    rings: Tensor


def residual_statistics(images: Tensor) -> Tensor:
    r"""Return 465 statistics of each image, of its finest structure and not of what it shows.

    Computed in whole gray levels from the luma Y (BT.601, rounded) and the color differences R - Y and B - Y, over the
    whole image, in the order of :data:`STATISTICS`:

    * *co-occurrences* (8 x 39): how often three neighboring residuals, along rows and along columns, take which values;
      square roots of shares. The residuals are first, second and third differences and the 3 x 3 square filter
      (second difference of rows and columns) of Y, and second difference and square of R - Y and of B - Y, divided by
      1, 2, 4 and 8, rounded (half to even) and truncated to -2 .. 2. Of the 125 triples, those that a reversal or a
      change of all signs joins count as one.
    * *block DCT* (2 x 63): for each frequency of the orthonormal DCT of 8 x 8 blocks of Y, as in JPEG, but the constant
      one: log of the mean magnitude + 0.01; then, for each, the share of magnitudes below 9 / 16.
    * *spectrum* (22): log of the mean power + 0.01 of Y in 22 rings of frequencies, 1 / 32 cycles per pixel wide, over
      windows of 32 x 32 pixels side by side (Hann, without their mean).
    * *color* (5): log of the deviation + 0.01 of the square's residual of R - Y and of B - Y; its correlations
      between Y and R - Y, Y and B - Y, and R - Y and B - Y.

    Args:
        images: ``(batch, 3, height, width)`` RGB, uint8 in 0..255 or floating point in [0, 1], at least 32 x 32. Floats
            are rounded to gray levels: give float32, or the gray levels are lost. No gradient flows to the images.

    Returns:
        ``(batch, 465)`` float32 on the device of ``images``; a row is NaN where its image is not finite.

    Raises:
        ShapeError: not four axes, not 3 channels, or smaller than 32 x 32.
        DTypeError: neither uint8 nor floating point.
        RangeError: floating point images beyond -0.45..1.45, such as normalized ones (on the CPU, uncompiled).

    Sources: the residuals and their co-occurrences follow Fridrich and Kodovsky, "Rich Models for Steganalysis of
    Digital Images", 2012; differences of color follow Goljan, Fridrich and Cogranne, "Rich Model for Steganalysis of
    Color Images", 2014; frequencies as traces of generators, Frank et al., "Leveraging Frequency Analysis for Deep Fake
    Image Recognition", 2020, and Durall et al., "Watch Your Up-Convolution", 2020.

    Example:
        >>> residual_statistics(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).shape
        torch.Size([2, 465])
    """
    check_images("images", images, channels=3)
    return _statistics(images, _Constants(*(each.to(images.device) for each in _constants())))


class ResidualStatistics(nn.Module):
    """Module form of :func:`residual_statistics`, which documents shapes, ranges and errors; it has no parameters.

    Example:
        >>> ResidualStatistics()(torch.rand(2, 3, 32, 48)).shape
        torch.Size([2, 465])
    """

    orbit_of: Tensor
    dct: Tensor
    cosine: Tensor
    sine: Tensor
    rings: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, value in _constants()._asdict().items():
            self.register_buffer(name, value)

    def forward(self, images: Tensor) -> Tensor:
        """The statistics ``(batch, 465)`` of images ``(batch, 3, height, width)``."""
        return _statistics(images, _Constants(self.orbit_of, self.dct, self.cosine, self.sine, self.rings))


def _constants() -> _Constants:
    """Return the constants on the CPU."""
    cosine, sine = aten.fourier_matrices()
    matrices = (aten.dct_matrix(), cosine, sine, aten.ring_weights())
    orbit_of = torch.tensor(aten.orbits(), device="cpu", dtype=torch.int8)
    return _Constants(orbit_of, *(matrix.double().mul(_SCALE).round().int() for matrix in matrices))


def _statistics(images: Tensor, constants: _Constants) -> Tensor:
    check_images("images", images, channels=3)
    height, width = images.shape[2:]
    if min(height, width) < LEAST_SIZE:
        raise ShapeError(f"images: expected at least {LEAST_SIZE} x {LEAST_SIZE} pixels, got {height} x {width}")
    check_unit_range("images", images)
    with no_autocast(images):
        return _computed(images.detach(), constants)


def _computed(images: Tensor, constants: _Constants) -> Tensor:
    dct, cosine, sine, rings = (matrix.float() / _SCALE for matrix in constants[1:])
    luma, red, blue = aten.levels_and_chroma(images)
    parts = (
        aten.cooccurrences(luma, red, blue, constants.orbit_of),
        aten.block_statistics(luma, dct),
        aten.spectrum(luma, cosine, sine, rings),
        aten.color_statistics(luma, red, blue),
    )
    result = torch.cat(parts, dim=1)
    if images.dtype == torch.uint8:
        return result
    undefined = ~images.isfinite().flatten(1).all(dim=1, keepdim=True)
    return torch.where(undefined, torch.nan, result)
