"""Decides inside Triton's Python backend (``bmrl_decide/1/model.py`` of a repository): which class, and seen or not.

It needs only PyTorch.
"""

from __future__ import annotations

import importlib
import json
from typing import Any

import torch


def decide(probabilities: torch.Tensor, threshold: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return class index (int32), maximum probability, and whether that reaches the threshold (in float64)."""
    best, index = probabilities.max(dim=1, keepdim=True)
    return index.int(), best, best.double() >= threshold


class TritonPythonModel:
    """One instance of the model; Triton calls the methods."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the threshold out of the configuration."""
        self.triton: Any = importlib.import_module("triton_python_backend_utils")  # exists inside the backend only
        config = json.loads(args["model_config"])
        self.input_names: list[str] = [entry["name"] for entry in config["input"]]
        self.threshold = float(config["parameters"]["threshold"]["string_value"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request with index, probability and seen, each ``(batch, 1)``, and with what came in.

        An ensemble can't give out a tensor that one of its steps takes, so that this step hands it on.
        """
        responses = []
        for request in requests:
            taken = (self.triton.get_input_tensor_by_name(request, name) for name in self.input_names)
            probabilities, embedding = (torch.from_dlpack(tensor) for tensor in taken)  # type: ignore[attr-defined]
            index, best, seen = decide(probabilities, self.threshold)
            outputs = {
                "index": index,
                "probability": best,
                "seen": seen,
                "probabilities": probabilities,
                "embedding": embedding,
            }
            wanted = request.requested_output_names()
            tensors = [self.triton.Tensor.from_dlpack(name, outputs[name]) for name in outputs if name in wanted]
            responses.append(self.triton.InferenceResponse(output_tensors=tensors))
        return responses
