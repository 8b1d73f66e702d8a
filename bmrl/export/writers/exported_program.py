"""The inference graph by ``torch.export``: as a program, and compiled by AOTInductor."""

from __future__ import annotations

import io
import json
import warnings
from typing import TYPE_CHECKING, Literal

import torch

from bmrl._checks import check_choice
from bmrl._text import shown
from bmrl.errors import ExportError
from bmrl.export.artifact import MAX_BATCH
from bmrl.export.formats import export
from bmrl.export.standalone import artifact_runtime

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from torch import Tensor

    from bmrl.export.formats import Job
    from bmrl.models import BMRL

__all__ = ["export_aoti", "export_pt2"]


def export_pt2(
    model: BMRL | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    precision: Literal["fp32", "bf16"] = "fp32",
    images: Tensor | None = None,
) -> Path:
    """Write the inference graph of ``model`` as a ``torch.export`` program, verified, and return its path.

    The program loads in the version of PyTorch that wrote it. See :func:`~bmrl.export.export` for what every export
    promises, and for the errors.

    Args:
        model: the model, in any mode, on any device; or its folder.
        path: the file to write, with suffix ``.pt2``; its folder exists.
        precision: ``"fp32"`` or ``"bf16"``.
        images: ``(n, 3, image_size, image_size)`` uint8 to verify with; None takes patterns.
    """
    check_choice("precision", precision, ("fp32", "bf16"))
    return export(model, path, "pt2" if precision == "fp32" else "pt2-bf16", images=images)


def export_aoti(
    model: BMRL | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    precision: Literal["fp32", "bf16"] = "fp32",
    device: Literal["cpu", "cuda"] = "cpu",
    images: Tensor | None = None,
) -> Path:
    """Compile the inference graph of ``model`` by AOTInductor into a package, verified, and return its path.

    Takes half a minute or more, and needs a C++ compiler. The package runs in the version of PyTorch that wrote it,
    on processors of the same instruction set. For a CUDA device, the Triton kernels of :mod:`bmrl.ops` are compiled
    in. See :func:`~bmrl.export.export` for what every export promises, and for the errors.

    Args:
        model: the model, in any mode, on any device; or its folder.
        path: the file to write, with suffix ``.pt2``; its folder exists.
        precision: ``"fp32"`` or ``"bf16"``.
        device: what to compile for.
        images: ``(n, 3, image_size, image_size)`` uint8 to verify with; None takes patterns.
    """
    check_choice("precision", precision, ("fp32", "bf16"))
    return export(model, path, "aoti" if precision == "fp32" else "aoti-bf16", images=images, device=device)


def write(job: Job, path: Path) -> None:
    """Write the program."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No complete tensor found")  # of views on the CPU, which is fine
        buffer = io.BytesIO()  # PyTorch's own writing to a file ends the process where the disk is full
        torch.export.save(
            exported(job), buffer, extra_files={artifact_runtime.DESCRIPTION: json.dumps(job.description)}
        )
    path.write_bytes(buffer.getbuffer())


def write_compiled(job: Job, path: Path) -> None:
    """Compile the program and write the package."""
    settings = {"freezing": True, "aot_inductor.metadata": {artifact_runtime.DESCRIPTION: json.dumps(job.description)}}
    buffer = io.BytesIO()
    try:
        torch._inductor.aoti_compile_and_package(exported(job), package_path=buffer, inductor_configs=settings)
    except Exception as error:
        reason = shown((str(error).strip() or type(error).__name__).splitlines()[0])
        raise ExportError(f"aoti: expected AOTInductor to compile the model, got {reason}") from error
    path.write_bytes(buffer.getbuffer())


def check_compiler() -> None:
    """Raise ExportError unless AOTInductor finds a C++ compiler."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:  # of a class that has moved between versions of PyTorch
        raise ExportError("aoti: expected a C++ compiler, such as g++, got none on this machine") from error


def exported(job: Job) -> torch.export.ExportedProgram:
    """Return the graph as a program for any batch from 1 to the most that a file takes."""
    size, device = job.description["image_size"], job.description["device"]
    images = torch.zeros(2, 3, size, size, dtype=torch.uint8, device=device)
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    with torch.no_grad():
        program = torch.export.export(job.graph, (images,), dynamic_shapes=({0: batch},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # would show the folders of this machine to whoever gets the file
    return program
