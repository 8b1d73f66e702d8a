"""bmrl: attribute a face image to the generator that made it, or say that none it knows did.

An open implementation of BMRL (arXiv:2504.14129) as composable parts. Names load on first use, so that
``import bmrl`` costs nothing and ``import bmrl.losses`` loads PyTorch alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bmrl._version import __version__

__all__ = [
    "BMRL",
    "Attribution",
    "Attributor",
    "BMRLConfig",
    "BMRLOutput",
    "Generator",
    "__version__",
    "build_model",
    "data",
    "encoders",
    "evaluation",
    "export",
    "inference",
    "load_model",
    "losses",
    "models",
    "ops",
    "save_model",
    "training",
]

if TYPE_CHECKING:
    from bmrl import data, encoders, evaluation, export, inference, losses, models, ops, training
    from bmrl.generators import Generator
    from bmrl.inference import Attribution, Attributor
    from bmrl.models import BMRL, BMRLConfig, BMRLOutput, build_model, load_model, save_model

_HOMES = {
    "Attribution": "bmrl.inference",
    "Attributor": "bmrl.inference",
    "BMRL": "bmrl.models",
    "BMRLConfig": "bmrl.models",
    "BMRLOutput": "bmrl.models",
    "Generator": "bmrl.generators",
    "build_model": "bmrl.models",
    "load_model": "bmrl.models",
    "save_model": "bmrl.models",
}

_ROOMS = ("data", "encoders", "evaluation", "export", "inference", "losses", "models", "ops", "training")


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"bmrl.{name}")
    raise AttributeError(f"module 'bmrl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
