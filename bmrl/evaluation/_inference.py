"""Running a model: where it comes from, and one batch through it."""

from __future__ import annotations

import os
from itertools import chain
from typing import TYPE_CHECKING

import torch

from bmrl.models import load_model

if TYPE_CHECKING:
    from torch import Tensor

    from bmrl.models import BMRL, BMRLOutput

__all__ = ["infer", "resolve_model"]


def resolve_model(model: BMRL | str | os.PathLike[str], device: str | torch.device | None) -> BMRL:
    """Return a model, loaded if a folder is given, on ``device``.

    With None a loaded model goes to the GPU if there is one, and a model that was passed stays where it is.
    """
    if isinstance(model, str | os.PathLike):
        model = load_model(model)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return model if device is None else model.to(device)


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
