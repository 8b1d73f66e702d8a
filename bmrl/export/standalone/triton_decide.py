"""Decides inside Triton's Python backend (``bmrl_decide/1/model.py`` of a repository): which class, and seen or not.

It needs only PyTorch.
"""

from __future__ import annotations

import importlib
import json
from typing import Any

import torch

SEEN, UNCERTAIN, UNSEEN = 0, 1, 2
"""The verdicts, as ``bmrl.inference.limits.VERDICTS`` orders them."""


def decide(
    probabilities: torch.Tensor, score: torch.Tensor, limits: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return class index (int32), maximum probability and verdict (int32), each ``(batch, 1)``; compared in float64.

    Args:
        probabilities: ``(batch, x)``.
        score: ``(batch, 1)``.
        limits: ``unseen`` and ``seen`` of the score, and ``probability``.
    """
    best, index = probabilities.max(dim=1, keepdim=True)
    named = (score.double() >= limits["seen"]) & (best.double() >= limits["probability"])
    other = torch.where(score.double() < limits["unseen"], UNSEEN, UNCERTAIN)
    return index.int(), best, torch.where(named, SEEN, other).int()


class TritonPythonModel:
    """One instance of the model; Triton calls the methods."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the limits out of the configuration."""
        self.triton: Any = importlib.import_module("triton_python_backend_utils")  # exists inside the backend only
        config = json.loads(args["model_config"])
        self.input_names: list[str] = [entry["name"] for entry in config["input"]]
        self.limits = json.loads(config["parameters"]["limits"]["string_value"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request with index, probability, seen and verdict, each ``(batch, 1)``, and with what came in.

        An ensemble can't give out a tensor that one of its steps takes, so that this step hands it on.
        """
        responses = []
        for request in requests:
            taken = (self.triton.get_input_tensor_by_name(request, name) for name in self.input_names)
            probabilities, embedding, score = (torch.from_dlpack(tensor) for tensor in taken)  # type: ignore[attr-defined]
            index, best, verdict = decide(probabilities, score, self.limits)
            outputs = {
                "index": index,
                "probability": best,
                "seen": verdict == SEEN,
                "verdict": verdict,
                "probabilities": probabilities,
                "embedding": embedding,
                "score": score,
            }
            wanted = request.requested_output_names()
            tensors = [self.triton.Tensor.from_dlpack(name, outputs[name]) for name in outputs if name in wanted]
            responses.append(self.triton.InferenceResponse(output_tensors=tensors))
        return responses
