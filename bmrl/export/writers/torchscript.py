"""The inference graph as TorchScript: one file that PyTorch loads, in Python or C++, without bmrl."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from typing import TYPE_CHECKING, Literal

import torch

from bmrl._checks import check_choice, check_switch
from bmrl._text import shown
from bmrl.errors import ArtifactError
from bmrl.export.artifact import read_artifact
from bmrl.export.formats import export
from bmrl.export.standalone import artifact_runtime

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

    from bmrl.export.formats import Job
    from bmrl.models import BMRL

__all__ = ["export_torchscript", "load_torchscript"]


def export_torchscript(
    model: BMRL | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    frozen: bool = True,
    precision: Literal["fp32", "bf16"] = "fp32",
    images: Tensor | None = None,
) -> Path:
    """Write the inference graph of ``model`` as a TorchScript file, verified, and return its path.

    The file holds standard PyTorch operators alone and only the weights that inference needs, on the CPU. See
    :func:`~bmrl.export.export` for what every export promises, and for the errors.

    Args:
        model: the model, in any mode, on any device; or its folder.
        path: the file to write; its folder exists.
        frozen: parameters become constants and batch norms are folded into convolutions.
        precision: ``"fp32"`` or ``"bf16"``.
        images: ``(n, 3, image_size, image_size)`` uint8 to verify with; None takes patterns.
    """
    check_choice("precision", precision, ("fp32", "bf16"))
    check_switch("frozen", frozen)
    name = ("torchscript" if frozen else "torchscript-unfrozen") + ("" if precision == "fp32" else "-bf16")
    return export(model, path, name, images=images)


def load_torchscript(path: str | os.PathLike[str]) -> torch.jit.ScriptModule:
    """Load a TorchScript file that bmrl exported, on the CPU, in evaluation mode, once its hash has been compared.

    Raises:
        MissingFileError: there is no such file, or no ``artifact.json`` beside it.
        ArtifactError: it is not TorchScript, or not the file that ``artifact.json`` describes.
    """
    kind = read_artifact(path).get("format")
    if kind != "torchscript":
        raise ArtifactError(f"{path}: expected a TorchScript file, got one of format {kind}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*")
        try:
            graph: torch.jit.ScriptModule = torch.jit.load(str(path), map_location="cpu")
        except RuntimeError as error:
            raise ArtifactError(f"{path}: expected a TorchScript file, got one with {shown(error)}") from error
    return graph.eval()


def write_frozen(job: Job, path: Path) -> None:
    """Write a trace whose parameters are constants."""
    with _quiet():
        _save(torch.jit.freeze(_traced(job)), job, path)


def write_unfrozen(job: Job, path: Path) -> None:
    """Write a trace."""
    with _quiet():
        _save(_traced(job), job, path)


def _traced(job: Job) -> torch.jit.ScriptModule:
    size = job.description["image_size"]
    images = torch.zeros(2, 3, size, size, dtype=torch.uint8)
    with torch.no_grad():
        traced: torch.jit.ScriptModule = torch.jit.trace(job.graph, images, check_trace=False)
    return traced


def _save(graph: torch.jit.ScriptModule, job: Job, path: Path) -> None:
    buffer = io.BytesIO()  # PyTorch's own writing to a file ends the process where the disk is full
    torch.jit.save(graph, buffer, _extra_files={artifact_runtime.DESCRIPTION: json.dumps(job.description)})
    path.write_bytes(buffer.getbuffer())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep warnings back: ``torch.jit`` is deprecated, without a successor for C++ and Triton.

    And what a trace may miss, the verification finds.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*")
        warnings.filterwarnings("ignore", category=torch.jit._trace.TracerWarning)
        yield
