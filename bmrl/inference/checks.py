"""Checks of probabilities, labels and scores, shared by the metrics and the attributor.

Each ``as_`` function returns the values as a float64 (labels: int64) tensor on the CPU, so that every comparison with
a threshold is made in the same precision.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from bmrl._checks import check_floating, check_number, check_shape
from bmrl.errors import DTypeError, RangeError, ShapeError
from bmrl.generators import Generator

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    Values: TypeAlias = Tensor | ArrayLike  # all that torch.as_tensor takes

SUM_TOLERANCE = {torch.float16: 1e-2, torch.bfloat16: 5e-2}  # of a row of probabilities; rounding alone stays below
DEFAULT_SUM_TOLERANCE = 1e-4


def as_probabilities(name: str, values: Values) -> Tensor:
    """Return ``(n, x)`` float64, n and x >= 1; raise unless every row is finite, >= 0 and sums to 1."""
    tensor = _as_tensor(name, values)
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
    """Return ``(n,)`` int64; raise unless there is one label per image, in 0 .. ``num_generators`` - 1."""
    tensor = _as_tensor(name, values)
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
    tensor = _as_tensor(name, values)
    check_shape(name, tensor, "images")
    check_floating(name, tensor)
    if not tensor.numel():
        raise ShapeError(f"{name}: expected at least one score, got none")
    tensor = tensor.to("cpu", torch.float64)
    _check_finite(name, tensor)
    return tensor


def check_rate(name: str, value: float) -> None:
    """Check that a number is in 0 .. 1 (NaN is not)."""
    check_number(name, value)
    if not 0 <= value <= 1:
        raise RangeError(f"{name}: expected 0 .. 1, got {value}")


def check_generators(generators: Sequence[Generator]) -> None:
    """Check for a sequence of :class:`~bmrl.generators.Generator`."""
    if not isinstance(generators, Sequence) or not all(isinstance(entry, Generator) for entry in generators):
        raise DTypeError(f"generators: expected a list of bmrl.Generator, got {type(generators).__name__}")


def check_thresholds(thresholds: Sequence[float]) -> tuple[float, ...]:
    """Return one or more thresholds, each in 0 .. 1."""
    if isinstance(thresholds, str | bytes) or not isinstance(thresholds, Iterable):
        raise DTypeError(f"thresholds: expected a list of numbers, got {type(thresholds).__name__}")
    checked = tuple(thresholds)
    if not checked:
        raise RangeError("thresholds: expected at least one, got none")
    for threshold in checked:
        check_rate("thresholds", threshold)
    return checked


def _as_tensor(name: str, values: Values) -> Tensor:
    try:
        return torch.as_tensor(values).detach()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise DTypeError(f"{name}: expected numbers in an array of one shape, got: {reason}") from error


def _check_finite(name: str, tensor: Tensor) -> None:
    finite = tensor.isfinite()
    if not finite.all():
        position = tuple((~finite).nonzero()[0].tolist())
        raise RangeError(f"{name}: expected finite numbers, got {tensor[position].item()} at {position}")
