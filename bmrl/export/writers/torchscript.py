"""The inference graph as TorchScript: one file that PyTorch loads, in Python or C++, without bmrl."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

import torch

from bmrl.export.standalone import artifact_runtime

if TYPE_CHECKING:
    from pathlib import Path

    from bmrl.export.job import Job

__all__ = ["write"]


def write(job: Job, path: Path) -> None:
    """Write a trace with only standard PyTorch operators and the weights that inference needs.

    Its weights are parameters, so that a program can move it to another device. Freezing them into constants would
    make it no faster (``benchmarks/results/exports_cpu.md``): the graph's batch norms are folded already.

    Args:
        job: what to write.
        path: the file.
    """
    buffer = io.BytesIO()  # PyTorch's own writing to a file ends the process where the disk is full
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*")  # deprecated, without a successor for C++ and Triton
        warnings.filterwarnings("ignore", category=torch.jit._trace.TracerWarning)  # verification finds what it missed
        with torch.no_grad():
            traced = torch.jit.trace(job.graph, job.example(), check_trace=False)
        torch.jit.save(traced, buffer, _extra_files={artifact_runtime.DESCRIPTION: job.embedded})
    path.write_bytes(buffer.getbuffer())
