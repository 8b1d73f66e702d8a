"""The inference graph as TorchScript: one file that any PyTorch loads, in Python or C++, without bmrl.

Everything that touches ``torch.jit`` is in this file and in the model file of the Triton repository.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bmrl.errors import BMRLError, MissingFileError, ModelFolderError
from bmrl.export._atomic import new_file
from bmrl.export.inference_graph import InferenceGraph

if TYPE_CHECKING:
    import os

    from bmrl.models import BMRL

__all__ = ["export_torchscript", "load_torchscript"]

TOLERANCE = 1e-4
"""Freezing folds batch norms into convolutions, which moves results by about 1e-6."""


def export_torchscript(model: BMRL, path: str | os.PathLike[str]) -> Path:
    """Write the inference graph of ``model`` as a TorchScript file and return its path.

    The file's ``forward(images)`` takes uint8 ``(batch, 3, image_size, image_size)`` with any batch >= 1 and returns
    probabilities ``(batch, num_generators)`` and embedding ``(batch, embed_dim)``, both float32. It holds standard
    PyTorch operators alone and only the weights that inference needs, on the CPU. Before it is written, it has
    answered as the model does on batches of other sizes than the one it was traced with. ``model`` is not touched;
    the file appears whole or not at all.

    Args:
        model: the model, in any mode, on any device.
        path: the file to write; its folder exists.

    Raises:
        MissingFileError: the folder of ``path`` does not exist.
        BMRLError: the exported graph does not answer as the model does.
    """
    path = Path(path)
    graph = InferenceGraph(model)
    size = model.config.image_size
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", message=".*torch.jit.*")  # deprecated, without a successor for C++ and Triton
        warnings.filterwarnings(
            "ignore", category=torch.jit._trace.TracerWarning
        )  # the checks below decide, not a guess
        traced = torch.jit.trace(graph, _images(2, size), check_trace=False)
        frozen = torch.jit.freeze(traced)
        for batch in (1, 3):
            images = _images(batch, size)
            _check_equal(frozen(images), graph(images))
        with new_file(path) as temporary:
            frozen.save(str(temporary))
    return path


def load_torchscript(path: str | os.PathLike[str]) -> torch.jit.ScriptModule:
    """Load a TorchScript file on the CPU, in evaluation mode.

    Raises:
        MissingFileError: there is no such file.
        ModelFolderError: it is not TorchScript.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"{path}: expected a TorchScript file, got nothing there")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*")
        try:
            graph: torch.jit.ScriptModule = torch.jit.load(str(path), map_location="cpu")
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ModelFolderError(f"{path}: expected a TorchScript file, got one with {reason!r}") from error
    return graph.eval()


def _images(batch: int, size: int) -> Tensor:
    """Return the same arbitrary images at every call: tracing must not touch the global random state."""
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=rng)


def _check_equal(got: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for name, left, right in zip(("probabilities", "embedding"), got, expected, strict=True):
        if left.shape != right.shape or left.dtype != right.dtype:
            raise BMRLError(
                f"{name}: expected {right.dtype} of shape {tuple(right.shape)} from the exported graph, "
                f"got {left.dtype} of shape {tuple(left.shape)}"
            )
        scale = max(1.0, right.abs().max().item())
        difference = (left - right).abs().max().item()
        if not difference <= TOLERANCE * scale:
            raise BMRLError(
                f"{name}: expected the exported graph to answer as the model within {TOLERANCE * scale:g}, "
                f"got a difference of {difference:g}"
            )
