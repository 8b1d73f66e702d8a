"""The inference graph as a program of ``torch.export``."""

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
    """Write the program. It loads in the version of PyTorch that wrote it.

    Args:
        job: what to write.
        path: the file.
    """
    buffer = io.BytesIO()  # PyTorch's own writing to a file ends the process where the disk is full
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No complete tensor found")  # of views on the CPU, which is fine
        torch.export.save(job.program(), buffer, extra_files={artifact_runtime.DESCRIPTION: job.embedded})
    path.write_bytes(buffer.getbuffer())
