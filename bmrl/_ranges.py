"""Whether the values of images can lie in [0, 1], checked where it is cheap (:func:`~bmrl._transforms.has_values`)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bmrl._transforms import has_values
from bmrl.errors import RangeError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["check_contrast", "check_unit_range"]

_OVERSHOOT = 0.45
"""How far a value may lie beyond [0, 1].

No bicubic resampling overshoots further on any image: the absolute weights of the sharpest in use (a = -0.75)
sum to at most 1.375 along an axis, and (1.375 ** 2 - 1) / 2 = .445. Dark pixels of what was normalized by a mean and a
deviation, or only shifted to [-0.5, 0.5], lie further out, and so do images in 0..255.
"""


def check_unit_range(name: str, images: Tensor) -> None:
    """Check that floating point images lie in [0, 1], except for the overshoot of resampling; NaN passes."""
    low, high = _extremes(images)
    if low < -_OVERSHOOT or high > 1 + _OVERSHOOT:
        raise RangeError(f"{name}: expected floating point values in [0, 1], got {low:.4g}..{high:.4g}")


def check_contrast(name: str, images: Tensor) -> None:
    """Check that floating point images span no more than those in [0, 1] do, at any brightness; NaN passes."""
    low, high = _extremes(images)
    if high - low > 1 + 2 * _OVERSHOOT:
        raise RangeError(f"{name}: expected floating point values that span at most 1, got {low:.4g}..{high:.4g}")


def _extremes(images: Tensor) -> tuple[float, float]:
    """The smallest and the largest value, or zeros where there are none or they are not checked."""
    if not images.is_floating_point() or not has_values(images) or images.numel() == 0:
        return 0.0, 0.0
    low, high = (float(extreme) for extreme in images.detach().aminmax())
    # NaN hides the others.
    return _extremes(images[~images.isnan()]) if math.isnan(low) else (low, high)
