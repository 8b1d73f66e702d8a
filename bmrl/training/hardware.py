"""What a training runs on: one process, one device, and the precision that it multiplies fastest."""

from __future__ import annotations

import os
from typing import Any

import torch

from bmrl._checks import check_choice
from bmrl.errors import ConfigError

__all__ = ["check_device", "check_single_process", "resolve_precision"]


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


def check_device(device: str) -> None:
    """Check that Lightning's accelerator of this name is there.

    Raises:
        RangeError: a name that is not known.
        ConfigError: it is not there.
    """
    check_choice("device", device, ("auto", "cpu", "gpu"))
    if device == "gpu" and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        raise ConfigError("device: expected a GPU that PyTorch can use, got none; train with cpu or auto")


def resolve_precision(precision: str, device: str) -> Any:
    """Resolve ``"auto"`` for the hardware at hand."""
    if precision != "auto":
        return precision
    if device != "cpu" and torch.cuda.is_available():
        has_bf16 = torch.cuda.get_device_capability() >= (8, 0)
    else:
        has_bf16 = bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())
    return "bf16-mixed" if has_bf16 else "32-true"
