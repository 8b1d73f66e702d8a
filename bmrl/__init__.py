"""bmrl: attribute a face image to the generator that made it, or say that none it knows did.

An open implementation of BMRL (arXiv:2504.14129) as composable parts. What each command does is a function here, by
the command's name (``bmrl import`` is :func:`import_faces`, ``bmrl export`` :func:`export_model`). Names load on first
use, so that ``import bmrl`` costs nothing and ``import bmrl.losses`` loads only PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bmrl._version import __version__

if TYPE_CHECKING:
    from bmrl import data, encoders, errors, evaluation, export, inference, losses, models, ops, training
    from bmrl.cli.demo import demo
    from bmrl.data import import_faces, simulate
    from bmrl.evaluation import compare, evaluate
    from bmrl.export import export_model, serve, write_triton_repository
    from bmrl.generators import Generator
    from bmrl.inference import Attribution, Attributor, attribute, calibrate, enroll
    from bmrl.models import BMRL, BMRLConfig, BMRLOutput, View, build_model, load_model, presets, save_model
    from bmrl.training import train

__all__ = [
    "BMRL",
    "Attribution",
    "Attributor",
    "BMRLConfig",
    "BMRLOutput",
    "Generator",
    "View",
    "__version__",
    "attribute",
    "build_model",
    "calibrate",
    "compare",
    "data",
    "demo",
    "encoders",
    "enroll",
    "errors",
    "evaluate",
    "evaluation",
    "export",
    "export_model",
    "import_faces",
    "inference",
    "load_model",
    "losses",
    "models",
    "ops",
    "presets",
    "save_model",
    "serve",
    "simulate",
    "train",
    "training",
    "write_triton_repository",
]

_HOMES = {
    "Attribution": "inference",
    "Attributor": "inference",
    "BMRL": "models",
    "BMRLConfig": "models",
    "BMRLOutput": "models",
    "Generator": "generators",
    "View": "models",
    "attribute": "inference",
    "build_model": "models",
    "calibrate": "inference",
    "compare": "evaluation",
    "demo": "cli.demo",
    "enroll": "inference",
    "evaluate": "evaluation",
    "export_model": "export",
    "import_faces": "data",
    "load_model": "models",
    "presets": "models",
    "save_model": "models",
    "serve": "export",
    "simulate": "data",
    "train": "training",
    "write_triton_repository": "export",
}
"""For each name, the module below this one that holds it; the others of ``__all__`` are modules."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from bmrl._lazy import lazy_names  # not above: it loads more modules

        return lazy_names(__name__, _HOMES)(name)
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
