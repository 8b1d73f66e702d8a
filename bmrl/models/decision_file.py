"""The file ``decision.safetensors``: a fitted decision, and which weights it belongs to."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, NamedTuple

import safetensors
import torch
from safetensors.torch import save_file

from bmrl._json import parse_json
from bmrl._text import one_line
from bmrl._version import __version__
from bmrl.errors import BMRLError, ModelFolderError
from bmrl.models.fitted import CalibrationAnswers, FittedDecision, References

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

__all__ = ["SavedDecision", "digest", "read", "write"]

ENTRY = "bmrl_decision"
"""The entry of the file's metadata that holds what is not in tensors."""

STATE, ANSWERS, REFERENCES = "state.", "answers.", "references."
"""What the names of tensors begin with."""


class SavedDecision(NamedTuple):
    """What a file holds."""

    fitted: FittedDecision
    weights: str
    """:func:`digest` of the weights that it was fitted with."""


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(fitted: FittedDecision, weights: str, path: Path) -> None:
    """Write the file; ``weights`` is the :func:`digest` of the weights."""
    tensors = {f"{STATE}{name}": _own(tensor) for name, tensor in fitted.state.items()}
    for name in ("scores", "probabilities", "right"):
        tensors[f"{ANSWERS}{name}"] = _own(getattr(fitted.answers, name))
    references = fitted.references
    for name in ("embeddings", "labels", "held_out", "held_out_labels"):
        if references is not None:
            tensors[f"{REFERENCES}{name}"] = _own(getattr(references, name))
    content = {
        "score": fitted.score,
        "temperature": fitted.temperature,
        "versions": list(fitted.answers.versions),
        "weights": weights,
        "num_enrolled": 0 if references is None else references.num_enrolled,
        "collections": fitted.collections,
    }
    save_file(tensors, path, metadata={ENTRY: json.dumps(content, sort_keys=True)})


def read(path: Path) -> SavedDecision:
    """Read the file.

    Raises:
        ModelFolderError: it is damaged, or no file that :func:`write` wrote.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            content = parse_json((file.metadata() or {})[ENTRY])
        return SavedDecision(_fitted(content, tensors), str(content["weights"]))
    except (safetensors.SafetensorError, OSError) as error:
        reason = f"a damaged file ({one_line(error)})"
        raise ModelFolderError(f"{path}: expected a fitted decision, got {reason}") from error
    except (BMRLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelFolderError(
            f"{path}: expected a fitted decision of bmrl {__version__}, got {type(error).__name__}: {one_line(error)}"
        ) from error


def _fitted(content: dict[str, object], tensors: dict[str, Tensor]) -> FittedDecision:
    def under(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    versions = content["versions"]
    if not isinstance(versions, list):
        raise TypeError("versions: expected a list")
    collections = content.get("collections", {})
    if not isinstance(collections, dict) or not all(isinstance(names, list) for names in collections.values()):
        raise TypeError("collections: expected lists by name")
    known = under(REFERENCES)
    enrolled = content.get("num_enrolled", 0)
    return FittedDecision(
        score=content["score"],  # type: ignore[arg-type]
        state=under(STATE),
        temperature=content["temperature"],  # type: ignore[arg-type]
        answers=CalibrationAnswers(versions=tuple(map(str, versions)), **under(ANSWERS)),
        references=References(**known, num_enrolled=enrolled) if known else None,  # type: ignore[arg-type]
        collections={name: tuple(names) for name, names in collections.items()},
    )


def _own(tensor: Tensor) -> Tensor:
    """Return a contiguous copy on the CPU: safetensors refuses tensors that share memory."""
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
