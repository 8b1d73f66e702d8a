"""Argument checks shared by every public function: one wording, ``argument: expected X, got Y``."""

from __future__ import annotations

import numbers
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

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


def check_path(name: str, value: Any) -> Path:
    """Return a path of text as a Path; whether it exists is not checked.

    Raises:
        DTypeError: it is not a path, or a path of bytes.
        RangeError: it is empty, or holds a null character.
    """
    if not isinstance(value, str | os.PathLike) or isinstance(os.fspath(value), bytes):
        raise DTypeError(f"{name}: expected a path, got {described(value)}")
    if not os.fspath(value) or "\0" in os.fspath(value):
        raise RangeError(f"{name}: expected a path, got {described(os.fspath(value))}")
    return Path(value)


def check_switch(name: str, value: Any) -> None:
    """Check for True or False; any other value, such as "false" or a module, would count as True."""
    if not isinstance(value, bool):
        raise DTypeError(f"{name}: expected True or False, got {described(value)}")


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


def described(value: Any) -> str:
    """Return the repr of a plain value, or the type's name of any other."""
    plain = value is None or isinstance(value, bool | int | float | complex | str | bytes)
    try:
        text = repr(value) if plain else type(value).__name__
    except ValueError:  # Python writes no integer of more than 4,300 digits
        text = "an integer of thousands of digits"
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_choice(name: str, value: Any, choices: Collection[Any]) -> None:
    """Check that ``value`` is one of ``choices``, and of the same type: True is not 1."""
    if not any(
        isinstance(value, type(choice)) and not isinstance(value, bool) and value == choice for choice in choices
    ):
        raise RangeError(f"{name}: expected {' or '.join(repr(choice) for choice in choices)}, got {described(value)}")


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
