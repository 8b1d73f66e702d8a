"""The inference graph compiled by AOTInductor."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import torch

from bmrl._text import shown
from bmrl.errors import ExportError
from bmrl.export.standalone import artifact_runtime

if TYPE_CHECKING:
    from pathlib import Path

    from bmrl.export.job import Job

__all__ = ["check_compiler", "write"]


def write(job: Job, path: Path) -> None:
    """Compile the graph and write the package, which takes half a minute or more.

    The package runs in the version of PyTorch that wrote it, on processors of the same instruction set. For a CUDA
    device, the Triton kernels of :mod:`bmrl.ops` are compiled in.

    Args:
        job: what to write.
        path: the file.

    Raises:
        ExportError: AOTInductor does not compile the graph.
    """
    settings = {"freezing": True, "aot_inductor.metadata": {artifact_runtime.DESCRIPTION: job.embedded}}
    buffer = io.BytesIO()  # PyTorch's own writing to a file ends the process where the disk is full
    try:
        torch._inductor.aoti_compile_and_package(job.program(), package_path=buffer, inductor_configs=settings)
    except Exception as error:
        reason = shown((str(error).strip() or type(error).__name__).splitlines()[0])
        raise ExportError(f"aoti: expected AOTInductor to compile the model, got {reason}") from error
    path.write_bytes(buffer.getbuffer())


def check_compiler(engine: str | None) -> None:
    """Check that AOTInductor finds a C++ compiler.

    Args:
        engine: not used.

    Raises:
        ExportError: it does not.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:  # of a class that has moved between versions of PyTorch
        raise ExportError("aoti: expected a C++ compiler, such as g++, got none on this machine") from error
