"""Checks of tensors and numbers, shared by every public function: one wording, ``argument: expected X, got Y``."""

from __future__ import annotations

import numbers
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bmrl._values import described
from bmrl.errors import DeviceError, DTypeError, RangeError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Collection


def check_shape(name: str, tensor: Tensor, axes: str, **sizes: int | Collection[int]) -> None:
    """Check the number of axes, and the size of those named in ``sizes``.

    ``axes`` spells the axes out, e.g. ``"batch channels height width"``; a value in ``sizes`` is the one
    allowed size of that axis, or a collection of allowed sizes.
    """
    if not isinstance(tensor, Tensor):
        raise DTypeError(f"{name}: expected a torch.Tensor, got {type(tensor).__name__}")
    names = axes.split()
    if tensor.ndim != len(names):
        raise ShapeError(f"{name}: expected shape ({', '.join(names)}), got {tuple(tensor.shape)}")
    for axis, allowed in sizes.items():
        size = tensor.shape[names.index(axis)]
        if isinstance(allowed, int):
            if size != allowed:
                raise ShapeError(f"{name}: expected {axis} = {allowed}, got {size} (shape {tuple(tensor.shape)})")
        elif size not in allowed:
            options = " or ".join(str(option) for option in allowed)
            raise ShapeError(f"{name}: expected {axis} = {options}, got {size} (shape {tuple(tensor.shape)})")


def check_floating(name: str, tensor: Tensor) -> None:
    """Check that ``tensor`` holds real floating-point numbers."""
    if not tensor.is_floating_point():
        raise DTypeError(f"{name}: expected a floating-point dtype, got {tensor.dtype}")


def check_dtype(name: str, tensor: Tensor, *dtypes: torch.dtype) -> None:
    """Check that ``tensor`` has one of ``dtypes``."""
    if tensor.dtype not in dtypes:
        raise DTypeError(f"{name}: expected {' or '.join(map(str, dtypes))}, got {tensor.dtype}")


def check_images(name: str, images: Tensor, *, channels: int | Collection[int] = (1, 3)) -> None:
    """Check for a batch of images ``(batch, channels, height, width)``, uint8 or floating point."""
    check_shape(name, images, "batch channels height width", channels=channels)
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise DTypeError(f"{name}: expected torch.uint8 or a floating-point dtype, got {images.dtype}")


def check_same_device(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Check that two tensors share a device."""
    if tensor.device != other.device:
        raise DeviceError(f"{name}: expected the device of {other_name} {other.device}, got {tensor.device}")


def check_number(name: str, value: Any) -> None:
    """Check for one real number, finite or not; bool is not accepted."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real | torch.SymInt | torch.SymFloat):
        raise DTypeError(f"{name}: expected a number, got {described(value)}")


def check_integer(name: str, value: Any, *, least: int | None = None, most: int | None = None) -> None:
    """Check for an integer, not below ``least`` and not above ``most``; bool is not accepted."""
    wanted = (
        "an integer" + (f" >= {least}" if least is not None else "") + (f" and <= {most}" if most is not None else "")
    )
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt, numbers.Integral)):
        raise DTypeError(f"{name}: expected {wanted}, got {described(value)}")
    if (least is not None and value < least) or (most is not None and value > most):  # type: ignore[operator]
        raise RangeError(f"{name}: expected {wanted}, got {described(value)}")


def check_positive(name: str, value: float) -> None:
    """Check that a number is above zero (NaN is not)."""
    check_number(name, value)
    if not value > 0:
        raise RangeError(f"{name}: expected > 0, got {value}")


def check_not_negative(name: str, value: float) -> None:
    """Check that a number is zero or above (NaN is not)."""
    check_number(name, value)
    if not value >= 0:
        raise RangeError(f"{name}: expected >= 0, got {value}")


def check_share(name: str, value: float) -> None:
    """Check for a number from zero to below one (NaN is not)."""
    check_number(name, value)
    if not 0 <= value < 1:
        raise RangeError(f"{name}: expected >= 0 and < 1, got {value}")


def check_counts(name: str, values: Any) -> None:
    """Check for a list or tuple of integers of at least one."""
    if not isinstance(values, list | tuple):
        raise DTypeError(f"{name}: expected a list of integers, got {described(values)}")
    for index, value in enumerate(values):
        check_integer(f"{name}[{index}]", value, least=1)
