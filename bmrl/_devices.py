"""Devices as PyTorch names them, and ``"auto"``."""

from __future__ import annotations

import torch

from bmrl._text import shown
from bmrl.errors import DeviceError

__all__ = ["as_device"]


def as_device(device: str | torch.device) -> torch.device:
    """Return a device that can be computed on.

    Args:
        device: as ``torch.device`` takes it, such as ``"cpu"``, ``"cuda"`` or ``"cuda:1"``; ``"auto"`` is the
            accelerator if there is one, and else the CPU.

    Raises:
        DeviceError: PyTorch knows no such device, it is not there, or it does not compute.
    """
    if isinstance(device, str) and device == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except Exception as error:  # which differs among the kinds of devices
        raise DeviceError(
            f"device: expected auto or a device of PyTorch that is there, got {device!r}: {shown(error)}"
        ) from error
    if place.type == "meta":
        raise DeviceError("device: expected a device that computes, got 'meta'")
    return place
