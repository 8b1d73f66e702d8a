"""What the writer of a format is given."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from bmrl.export.artifact import MAX_BATCH

if TYPE_CHECKING:
    from torch import Tensor

    from bmrl.export.graph import InferenceGraph

__all__ = ["Job"]


@dataclass(frozen=True, slots=True)
class Job:
    """A graph to be written to a file.

    Args:
        graph: in the format's dtype, on its device.
        description: what the file has to say about itself; see :attr:`embedded`.
        calibration: images ``(n, 3, image_size, image_size)`` uint8 on the CPU whose activations give the scales of
            int8; None for formats without.
    """

    graph: InferenceGraph
    description: dict[str, Any]
    calibration: Tensor | None = None

    @property
    def embedded(self) -> str:
        """The description as JSON. Each writer puts it into the file, under the name ``artifact.json``."""
        return json.dumps(self.description)

    def example(self, batch: int = 2) -> Tensor:
        """Return black images ``(batch, 3, image_size, image_size)`` uint8 on the graph's device."""
        size = self.description["image_size"]
        return torch.zeros(batch, 3, size, size, dtype=torch.uint8, device=self.description["device"])

    def program(self) -> torch.export.ExportedProgram:
        """Return the graph as a program of ``torch.export`` for any batch from 1 to the most that a file takes."""
        batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
        with torch.no_grad():
            program = torch.export.export(self.graph, (self.example(),), dynamic_shapes=({0: batch},))
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # would show the folders of this machine to any reader of the file
        return program
