"""A model on disk: a folder with ``config.json`` and ``model.safetensors``, never a pickle."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file, save_file

from bmrl import __version__
from bmrl.errors import BMRLError, MissingFileError, ModelFolderError
from bmrl.models.assembly import BMRL, build_model
from bmrl.models.config import BMRLConfig

__all__ = ["load_model", "save_model"]

FORMAT = 1
"""Version of the folder's layout; raised when an older library could not read it."""


def save_model(model: BMRL, folder: str | os.PathLike[str]) -> Path:
    """Write a model as ``config.json`` and ``model.safetensors``.

    Each file appears whole or not at all; other files of the folder stay as they are.

    Args:
        model: any device and dtype.
        folder: made if missing.

    Returns:
        The folder.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    header = {"format": FORMAT, "bmrl_version": __version__, "model": model.config.to_dict()}
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in model.state_dict().items()}
    with tempfile.TemporaryDirectory(dir=target, prefix=".saving-") as scratch:
        weights, config = Path(scratch, "model.safetensors"), Path(scratch, "config.json")
        save_file(tensors, weights, metadata={"format": "pt"})
        config.write_text(json.dumps(header, indent=2) + "\n", encoding="utf-8")
        shutil.copymode(config, weights)  # safetensors lets nobody but the owner read, a server may be somebody else
        os.replace(weights, target / weights.name)
        os.replace(config, target / config.name)
    return target


def load_model(folder: str | os.PathLike[str]) -> BMRL:
    """Return the model of a folder, in evaluation mode, on the CPU.

    Args:
        folder: what :func:`save_model` wrote.

    Raises:
        MissingFileError: the folder or one of its two files does not exist.
        ModelFolderError: another version's layout, a damaged file, or weights that do not fit the configuration.
    """
    source = Path(folder)
    if not source.is_dir():
        raise MissingFileError(f"model: expected a folder with config.json and model.safetensors, got {source}")
    config = _read_config(source / "config.json")
    weights = source / "model.safetensors"
    if not weights.is_file():
        raise MissingFileError(f"model: expected {weights}, got no such file")
    try:
        tensors = load_file(weights)
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelFolderError(f"{weights}: expected safetensors weights, got a damaged file ({error})") from error
    model = build_model(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != found:
        names = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        name = names[0]
        raise ModelFolderError(
            f"{weights}: expected {name} {expected.get(name, 'absent')} as config.json says, got "
            f"{found.get(name, 'absent')} ({len(names)} tensors differ)"
        )
    model.load_state_dict(tensors)
    return model.eval()


def _read_config(path: Path) -> BMRLConfig:
    if not path.is_file():
        raise MissingFileError(f"model: expected {path}, got no such file")
    try:
        header: Any = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelFolderError(f"{path}: expected JSON, got {error}") from error
    if not isinstance(header, dict) or "format" not in header or not isinstance(header.get("model"), dict):
        found = sorted(header)[:5] if isinstance(header, dict) else type(header).__name__
        raise ModelFolderError(f"{path}: expected the keys format, bmrl_version and model, got {found}")
    if header["format"] != FORMAT:
        raise ModelFolderError(
            f"{path}: expected format {FORMAT} (bmrl {__version__}), got format {header['format']!r} written by "
            f"bmrl {header.get('bmrl_version', 'unknown')}"
        )
    try:
        return BMRLConfig.from_dict(header["model"])
    except (BMRLError, TypeError) as error:
        raise ModelFolderError(f"{path}: expected a model of bmrl {__version__}, got {error}") from error
