"""Running a model: where it comes from, where it runs, and one batch through it."""

from __future__ import annotations

import copy
import os
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import nn

from bmrl._devices import as_device
from bmrl.errors import DTypeError, VerificationError
from bmrl.models import load_model

if TYPE_CHECKING:
    from torch import Tensor

    from bmrl.models import BMRL, BMRLOutput

__all__ = ["infer", "resolve_model"]

HALF_PRECISION_TOLERANCE = 0.1
"""Largest difference of a probability: bfloat16 changes that of a sharp head by about half as much."""


def resolve_model(model: BMRL | str | os.PathLike[str], device: str | torch.device | None = None) -> BMRL:
    """Return a model, loaded if a folder is given, on ``device``.

    Args:
        model: a model or its folder.
        device: where to put it, as PyTorch names devices. ``"auto"``: a model that is passed stays where it is, a
            loaded one goes to the accelerator if there is one. None: a model that is passed stays where it is, a
            loaded one stays on the CPU.

    Raises:
        DTypeError: ``model`` is neither a model of bmrl nor a path.
        MissingFileError, ModelFolderError: the folder holds no usable model.
        DeviceError: there is no such device.
        VerificationError: the model is in half precision, in which this processor computes something else.

    Example:
        >>> import bmrl
        >>> model = bmrl.build_model(bmrl.models.presets.tiny(num_generators=3))
        >>> resolve_model(model, "auto") is model
        True
    """
    stays = device is None or (isinstance(device, str) and device == "auto")
    place = None if device is None else as_device(device)
    if isinstance(model, str | os.PathLike):
        model = load_model(model)
    elif not isinstance(model, nn.Module) or not hasattr(model, "config"):
        raise DTypeError(f"model: expected a model of bmrl or its folder, got {type(model).__name__}")
    elif stays:
        place = None
    model = model if place is None else model.to(place)
    _check_half_precision(model)
    return model


def _check_half_precision(model: BMRL) -> None:
    """Compare a model in half precision on a CPU with itself in float32; older processors lack the instructions.

    Raises:
        VerificationError: their probabilities for a pattern differ by more than rounding makes them.
    """
    tensor = next(model.parameters(), None)
    if tensor is None or tensor.device.type != "cpu" or tensor.dtype not in (torch.bfloat16, torch.float16):
        return
    size = model.config.image_size
    image = torch.arange(3 * size * size).remainder(251).to(torch.uint8).reshape(1, 3, size, size)
    expected = infer(copy.deepcopy(model).float(), image).probabilities
    difference = (infer(model, image).probabilities.float() - expected).abs().max().item()
    if not difference <= HALF_PRECISION_TOLERANCE:  # nor is NaN
        raise VerificationError(
            f"model: expected an answer in {tensor.dtype} within {HALF_PRECISION_TOLERANCE:g} of that in float32, "
            f"got a difference of {difference:g} on this processor; use float32"
        )


def infer(model: BMRL, images: Tensor) -> BMRLOutput:
    """Run one batch without gradients and in evaluation mode; every module's mode is put back afterwards.

    Args:
        model: on any device.
        images: uint8 ``(batch, 3, S, S)``, S the model's image size, on any device.

    Returns:
        The model's output, on the model's device; its tensors have ``batch`` rows.
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
