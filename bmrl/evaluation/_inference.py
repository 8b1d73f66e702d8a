"""Running a model: where it comes from, and one batch through it."""

from __future__ import annotations

import os
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import nn

from bmrl.errors import DeviceError, DTypeError
from bmrl.models import load_model

if TYPE_CHECKING:
    from torch import Tensor

    from bmrl.models import BMRL, BMRLOutput

__all__ = ["as_device", "infer", "resolve_model"]


def resolve_model(model: BMRL | str | os.PathLike[str], device: str | torch.device | None) -> BMRL:
    """Return a model, loaded if a folder is given, on ``device``.

    With None a loaded model goes to the GPU if there is one, and a model that was passed stays where it is.

    Raises:
        DTypeError: ``model`` is neither a model of bmrl nor a path.
        DeviceError: ``device`` is no device, or not there.
    """
    place = as_device(device)
    if isinstance(model, str | os.PathLike):
        model = load_model(model)
        place = place or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    elif not isinstance(model, nn.Module) or not hasattr(model, "config"):
        raise DTypeError(f"model: expected a model of bmrl or its folder, got {type(model).__name__}")
    return model if place is None else model.to(place)


def as_device(device: str | torch.device | None) -> torch.device | None:
    """Return a device that can be computed on; None for None.

    Raises:
        DeviceError: PyTorch knows no such device, or it is not there.
    """
    if device is None:
        return None
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        raise DeviceError(f"device: expected a device of PyTorch that is there, got {device!r}") from error
    if place.type == "meta":
        raise DeviceError("device: expected a device that computes, got 'meta'")
    return place


def infer(model: BMRL, images: Tensor) -> BMRLOutput:
    """Run one batch without gradients and in evaluation mode; every module's mode is put back afterwards.

    Args:
        model: on any device.
        images: uint8 ``(batch, 3, S, S)``, S the model's image size, on any device.
    """
    tensor = next(chain(model.parameters(), model.buffers()), images)
    training = [module for module in model.modules() if module.training]
    try:
        model.eval()
        with torch.inference_mode():
            output: BMRLOutput = model(images.to(tensor.device))
        return output
    finally:
        for module in training:
            module.training = True
