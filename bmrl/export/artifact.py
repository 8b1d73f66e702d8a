"""What is known of an exported file, within it and in ``artifact.json`` beside it.

``artifact.json`` holds an entry for each exported file of its folder, by file name: its SHA-256, classes, thresholds,
input contract, source, versions, and how it was verified. Nothing of ours loads a file without its entry, or with
another content.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import safetensors.torch
import torch

from bmrl import __version__
from bmrl._files import locked, new_file
from bmrl.errors import MissingExtraError, MissingFileError, ModelFolderError
from bmrl.export import _runtime

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from bmrl.models import BMRL

__all__ = ["MAX_BATCH", "Artifact", "load_artifact", "read_artifact"]

MAX_BATCH = 64
"""Most images that an exported graph takes at once."""


class Artifact(NamedTuple):
    """An exported file, opened."""

    run: Callable[[Tensor], tuple[Tensor, Tensor]]
    """uint8 ``(batch, 3, image_size, image_size)`` on the CPU, batch 1 to 64, to probabilities and embedding."""

    description: dict[str, Any]
    """The file's entry in ``artifact.json``."""


def load_artifact(
    path: str | os.PathLike[str], *, num_threads: int | None = None, engine: str | None = None
) -> Artifact:
    """Open a file that bmrl exported, in any format, once its hash has been compared.

    Args:
        path: the file, with its ``artifact.json`` beside it.
        num_threads: CPU threads of one run; None leaves the choice to PyTorch or ONNX Runtime.
        engine: what runs an ONNX file: ``"onnxruntime"`` (the default) or ``"openvino"``.

    Raises:
        MissingFileError: the file or its ``artifact.json`` does not exist.
        ModelFolderError: either is damaged, they do not belong together, the file does not fit this PyTorch or
            processor, or ``engine`` does not run it.
        MissingExtraError: the engine is not installed.
    """
    description = read_artifact(path)
    try:
        return Artifact(_runtime.load(path, num_threads=num_threads, engine=engine), description)
    except ValueError as error:
        raise ModelFolderError(str(error)) from error
    except ImportError as error:
        raise MissingExtraError(error.name or "onnxruntime", "export") from error


def read_artifact(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the entry of an exported file in ``artifact.json``, once the file's hash has been compared.

    Raises:
        MissingFileError: the file or its ``artifact.json`` does not exist.
        ModelFolderError: either is damaged, or they do not belong together.
    """
    try:
        return _runtime.describe(path)
    except FileNotFoundError as error:
        raise MissingFileError(str(error)) from error
    except ValueError as error:
        raise ModelFolderError(str(error)) from error


def describe_model(model: BMRL) -> dict[str, Any]:
    """Return what every export of ``model`` says: classes, thresholds, contract, source and versions."""
    config = model.config
    side, classes = config.image_size, len(config.generators)
    return {
        "generators": [asdict(generator) for generator in config.generators],
        "thresholds": list(config.thresholds),
        "image_size": side,
        "embed_dim": config.embed_dim,
        "input": {
            "name": "images",
            "dtype": "uint8",
            "shape": ["batch", 3, side, side],
            "channels": "RGB",
            "batch": [1, MAX_BATCH],
        },
        "outputs": [
            {"name": "probabilities", "dtype": "float32", "shape": ["batch", classes]},
            {"name": "embedding", "dtype": "float32", "shape": ["batch", config.embed_dim]},
        ],
        "source": {"model.safetensors": _weights_sha256(model)},
        "versions": {"bmrl": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
        "processor": torch.backends.cpu.get_cpu_capability(),
    }


def publish(temporary: Path, path: Path, description: dict[str, Any]) -> None:
    """Move a finished file to ``path`` and put its entry into ``artifact.json`` there.

    Between the two, nothing of ours loads the file: its hash is not that of the old entry.
    """
    with locked(path.parent):
        entries = read_entries(path.parent)
        os.replace(temporary, path)
        there = {name: entry for name, entry in entries.items() if (path.parent / name).is_file()}
        write_entries(path.parent, there | {path.name: description})


def withdraw(path: Path) -> None:
    """Remove an exported file and its entry in ``artifact.json``, if there are any."""
    with locked(path.parent):
        entries = read_entries(path.parent)
        path.unlink(missing_ok=True)
        if entries.pop(path.name, None) is not None:
            write_entries(path.parent, entries)


def write_entries(folder: Path, entries: dict[str, Any]) -> None:
    """Write ``artifact.json``."""
    text = json.dumps({"schema": _runtime.SCHEMA, "artifacts": entries}, indent=2, ensure_ascii=False)
    with new_file(folder / _runtime.DESCRIPTION) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_entries(folder: Path) -> dict[str, Any]:
    """Return the entries of ``artifact.json``; none where it does not exist.

    Raises:
        ModelFolderError: it was not written by bmrl.
    """
    beside = folder / _runtime.DESCRIPTION
    if not beside.exists():
        return {}
    try:
        everything = json.loads(beside.read_text(encoding="utf-8"))
        if everything["schema"] != _runtime.SCHEMA:
            raise ValueError(f"schema {everything['schema']!r}")
        return dict(everything["artifacts"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFolderError(f"{beside}: expected a description written by bmrl, got {error!r}") from error


def _weights_sha256(model: BMRL) -> str:
    """Return the SHA-256 that ``model.safetensors`` has in the folder that :func:`bmrl.save_model` writes."""
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in model.state_dict().items()}
    return hashlib.sha256(safetensors.torch.save(tensors, metadata={"format": "pt"})).hexdigest()
