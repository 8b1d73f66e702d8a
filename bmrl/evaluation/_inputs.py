"""Checks of probabilities, labels and scores, shared by the metrics and the attributor.

Each returns the values as a float64 (labels: int64) tensor on the CPU, so that every comparison with a threshold
is made in the same precision wherever it is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from bmrl._checks import check_floating, check_shape
from bmrl.errors import DTypeError, RangeError, ShapeError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    Values: TypeAlias = Tensor | ArrayLike  # whatever torch.as_tensor takes

SUM_TOLERANCE = {torch.float16: 1e-2, torch.bfloat16: 5e-2}  # of a row of probabilities; rounding alone stays below
DEFAULT_SUM_TOLERANCE = 1e-4


def as_probabilities(name: str, values: Values) -> Tensor:
    """Return ``(n, x)`` float64, n and x >= 1; raise unless every row is finite, >= 0 and sums to 1."""
    tensor = torch.as_tensor(values).detach()
    check_shape(name, tensor, "images generators")
    check_floating(name, tensor)
    if not tensor.numel():
        raise ShapeError(f"{name}: expected at least one image and one generator, got {tuple(tensor.shape)}")
    tolerance = SUM_TOLERANCE.get(tensor.dtype, DEFAULT_SUM_TOLERANCE)
    tensor = tensor.to("cpu", torch.float64)
    _check_finite(name, tensor)
    sums = tensor.sum(dim=1)
    wrong = ((tensor < 0).any(dim=1) | ((sums - 1).abs() > tolerance)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise RangeError(
            f"{name}: expected rows of probabilities >= 0 that sum to 1, "
            f"got row {row} with minimum {tensor[row].min():.6g} and sum {sums[row]:.6g}"
        )
    return tensor


def as_labels(name: str, values: Values, num_images: int, num_generators: int) -> Tensor:
    """Return ``(n,)`` int64; raise unless there is one label in 0 .. ``num_generators`` - 1 an image."""
    tensor = torch.as_tensor(values)
    check_shape(name, tensor, "images", images=num_images)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise DTypeError(f"{name}: expected integers, got {tensor.dtype}")
    tensor = tensor.to("cpu", torch.int64)
    wrong = ((tensor < 0) | (tensor >= num_generators)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise RangeError(f"{name}: expected labels in 0 .. {num_generators - 1}, got {int(tensor[row])} at {row}")
    return tensor


def as_scores(name: str, values: Values) -> Tensor:
    """Return ``(n,)`` float64, n >= 1; raise unless every score is finite."""
    tensor = torch.as_tensor(values).detach()
    check_shape(name, tensor, "images")
    check_floating(name, tensor)
    if not tensor.numel():
        raise ShapeError(f"{name}: expected at least one score, got none")
    tensor = tensor.to("cpu", torch.float64)
    _check_finite(name, tensor)
    return tensor


def check_rate(name: str, value: float) -> None:
    """Check that a number is in 0 .. 1 (NaN is not)."""
    if not 0 <= value <= 1:
        raise RangeError(f"{name}: expected 0 .. 1, got {value}")


def _check_finite(name: str, tensor: Tensor) -> None:
    finite = tensor.isfinite()
    if not finite.all():
        position = tuple((~finite).nonzero()[0].tolist())
        raise RangeError(f"{name}: expected finite numbers, got {tensor[position].item()} at {position}")
