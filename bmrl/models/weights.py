"""The file ``model.safetensors``: tensors, and the configuration and answers that they belong to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import safetensors
import torch
from safetensors.torch import save, save_file

from bmrl._json import parse_json
from bmrl._text import one_line
from bmrl._version import __version__
from bmrl.errors import BMRLError, ModelFolderError
from bmrl.models._restorable import check_tensor
from bmrl.models.config import BMRLConfig

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from bmrl.models._restorable import Restorable

__all__ = ["Weights", "bound", "difference", "encoded", "write"]

ENTRY = "bmrl_model"
"""The entry of the file's metadata that holds what the tensors belong to."""


def bound(config: BMRLConfig) -> dict[str, Any]:
    """Return what the weights depend on: all but the decision and the names of classes, which may move."""
    fields = config.to_dict()
    del fields["decision"]
    noise = fields["noise"] and fields["noise"]["encoder"]
    own = ("appearance", "edge", "statistics", "head", "parsing", "language")
    for part in (noise, *(fields[name] for name in own)):
        if part is not None:
            part.pop("module", None)
    fields["views"] = tuple(view["name"] for view in fields["views"])
    return fields


def encoded(model: Restorable) -> bytes:
    """Return the bytes of the file."""
    return save(model.tensors, metadata=_metadata(model))


def write(model: Restorable, path: Path) -> None:
    """Write the file."""
    save_file(model.tensors, path, metadata=_metadata(model))


def _metadata(model: Restorable) -> dict[str, str]:
    # One entry: safetensors writes several in any order, and equal models must make equal files.
    content = {"config": bound(model.config), "answers": model.answers}
    return {ENTRY: json.dumps(content, sort_keys=True, separators=(",", ":"))}


class Weights:
    """A file of weights, open as long as this object lives: all is read from one file, even if another replaces it.

    Attributes:
        path: the file.
        shapes: of the tensors, by name.
        bound: what of a configuration they were saved with; None if the file does not say.
        answers: to the contract's inputs, of each block that is handed over.

    Raises:
        ModelFolderError: the file is damaged, or of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = safetensors.safe_open(path, framework="pt")
            self.shapes = {name: tuple(self._file.get_slice(name).get_shape()) for name in self._file.keys()}  # noqa: SIM118
            metadata = self._file.metadata() or {}
        except (safetensors.SafetensorError, OSError) as error:
            raise self._damaged(error) from error
        self.bound: dict[str, Any] | None = None
        self.answers: dict[str, list[list[float]]] = {}
        if ENTRY in metadata:
            try:
                content = parse_json(metadata[ENTRY])
                self.bound = bound(_completed(content["config"]))
                self.answers = {
                    name: torch.tensor(rows, device="cpu").tolist() for name, rows in content["answers"].items()
                }
            except (BMRLError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
                reason = one_line(error)
                raise ModelFolderError(f"{path}: expected weights of bmrl {__version__}, got {reason}") from error

    def read(self, expected: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return checked tensors, floating-point ones in float32, that share nothing with the file."""
        tensors = {}
        for name, wanted in expected.items():
            try:
                tensor = self._file.get_tensor(name)
                check_tensor(name, tensor, wanted)
            except (safetensors.SafetensorError, OSError) as error:
                raise self._damaged(error) from error
            except ModelFolderError as error:
                raise ModelFolderError(f"{self.path}: {error}") from error
            tensors[name] = tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)
        return tensors

    def _damaged(self, error: Exception) -> ModelFolderError:
        return ModelFolderError(f"{self.path}: expected safetensors weights, got a damaged file ({one_line(error)})")


def _completed(fields: Any) -> BMRLConfig:
    """Return a configuration of what :func:`bound` left of it."""
    return BMRLConfig.from_dict(fields | {"views": [{"name": name} for name in fields["views"]]})


def difference(name: str, own: Any, given: Any) -> tuple[str, str, str]:
    """Return where two unequal configurations differ first, and what each has there."""
    if isinstance(own, dict) and isinstance(given, dict):
        if own.get("kind") != given.get("kind"):
            return f"{name}.kind".removeprefix("."), repr(own.get("kind")), repr(given.get("kind"))
        key = next(key for key in own if own[key] != given[key])
        return difference(f"{name}.{key}".removeprefix("."), own[key], given[key])
    if isinstance(own, tuple) and isinstance(given, tuple) and len(own) == len(given):
        index = next(index for index, entry in enumerate(own) if entry != given[index])
        return difference(f"{name}[{index}]", own[index], given[index])
    if isinstance(own, tuple) and isinstance(given, tuple):
        return name, f"{len(own)} entries", str(len(given))
    wanted, got = ("a part that is on" if isinstance(value, dict) else repr(value) for value in (own, given))
    return name, wanted, got
