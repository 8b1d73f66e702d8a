"""What a training runs on: one process, one device, and the precision that the device multiplies fastest."""

from __future__ import annotations

import os
from typing import Any

import torch

from bmrl._checks import check_integer
from bmrl._devices import as_device
from bmrl.errors import ConfigError, DeviceError

__all__ = ["check_single_process", "lightning_device", "resolve_precision", "resolve_workers", "training_device"]

MOST_WORKERS = 256
"""More processes than that are a mistake."""

TRAINABLE = ("cpu", "cuda", "mps")
"""Kinds of devices that Lightning trains on one of."""


def check_single_process() -> None:
    """Check that this process is not one of several that were started to train together.

    Raises:
        ConfigError: it is one of several, which would all train the whole and write into one folder.
    """
    text = os.environ.get("WORLD_SIZE", "")
    world_size = int(text) if text.strip().isdecimal() else 1
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        world_size = max(world_size, torch.distributed.get_world_size())
    if world_size > 1:
        raise ConfigError(
            f"WORLD_SIZE: expected one process, got {world_size} (as torchrun starts them); training uses one device: "
            "start it once, without torchrun, or unset WORLD_SIZE"
        )


def resolve_workers(workers: int | None) -> int:
    """Return how many processes read and change training images ahead of the steps.

    Args:
        workers: >= 0; None: half of this process's CPU cores less one, at most 8. With two cores that is none: both
            compute.

    Raises:
        RangeError, DTypeError: it is something else.
    """
    if workers is None:
        return min(max(len(os.sched_getaffinity(0)) // 2 - 1, 0), 8)
    check_integer("workers", workers, least=0, most=MOST_WORKERS)
    return workers


def training_device(device: str | torch.device) -> torch.device:
    """Return the device to train on.

    Args:
        device: ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``, as ``torch.device`` takes it; ``"auto"`` is the
            accelerator if there is one that can be trained on, and else the CPU.

    Raises:
        DeviceError: PyTorch knows no such device, it is not there, or it can't be trained on.
    """
    place = as_device(device)
    if place.type in TRAINABLE:
        return place
    if device == "auto":
        return torch.device("cpu")
    raise DeviceError(f"device: expected one to train on (auto, {', '.join(TRAINABLE)}), got {str(device)!r}")


def lightning_device(device: torch.device) -> dict[str, Any]:
    """Return the arguments of Lightning's Trainer that mean this device.

    Example:
        >>> lightning_device(torch.device("cuda:1"))
        {'accelerator': 'cuda', 'devices': [1]}
        >>> lightning_device(torch.device("cpu"))
        {'accelerator': 'cpu', 'devices': 1}
    """
    numbered = device.type == "cuda" and device.index is not None
    return {"accelerator": device.type, "devices": [device.index] if numbered else 1}


def resolve_precision(precision: str, device: torch.device) -> Any:
    """Return Lightning's word for a precision; for ``"auto"``, bfloat16 where the device multiplies it in hardware.

    Args:
        precision: of a :class:`~bmrl.training.TrainingConfig`.
        device: as :func:`training_device` returns it.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        has_bf16 = torch.cuda.get_device_capability(device) >= (8, 0)
    elif device.type == "cpu":
        has_bf16 = bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())
    else:
        has_bf16 = False
    return "bf16-mixed" if has_bf16 else "32-true"
