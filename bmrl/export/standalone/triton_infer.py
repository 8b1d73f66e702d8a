"""Runs an exported file inside Triton's Python backend (the file ``1/model.py`` of a repository).

It needs PyTorch, or the engine of the file's format, and no bmrl. Tensors travel by DLPack in both directions: with
numpy >= 2 the backend's own numpy conversion hands over corrupt data without an error.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

THREADS_VARIABLE = "BMRL_NUM_THREADS"
ROUNDING = 1e-2  # of bfloat16


class TritonPythonModel:
    """One instance of the served model; Triton calls the methods."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph that is next to this file."""
        self.triton: Any = importlib.import_module("triton_python_backend_utils")  # exists inside the backend only
        config = json.loads(args["model_config"])
        parameters = {name: entry["string_value"] for name, entry in config["parameters"].items()}
        self.input_name: str = config["input"][0]["name"]
        self.image_shape = tuple(int(size) for size in config["input"][0]["dims"])
        self.output_names: list[str] = [output["name"] for output in config["output"]]
        threads = int(os.environ.get(THREADS_VARIABLE) or parameters.get("num_threads") or 0) or None
        here = Path(__file__).parent
        sys.path.insert(0, str(here))  # for the runtime next to it
        runtime = importlib.import_module("artifact_runtime")
        runtime.keep_freed_memory()
        self.graph = runtime.load(here / parameters["artifact"], num_threads=threads, engine=parameters.get("engine"))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer all requests with one run of the graph; a faulty one gets its own error."""
        responses: list[Any] = [None] * len(requests)
        batches: dict[int, torch.Tensor] = {}
        for index, request in enumerate(requests):
            try:
                batches[index] = self._images(request)
            except ValueError as error:
                responses[index] = self._error(str(error), self.triton.TritonError.INVALID_ARG)
        if batches:
            outputs = self.graph(torch.cat(list(batches.values())))
            sizes = [len(images) for images in batches.values()]
            answers = zip(*(output.split(sizes) for output in outputs), strict=True)
            for index, answer in zip(batches, answers, strict=True):
                responses[index] = self._respond(requests[index], answer)
        return responses

    def _images(self, request: Any) -> torch.Tensor:
        """Return the images (batch, 3, image_size, image_size) of one request; ValueError if they are not that."""
        tensor = self.triton.get_input_tensor_by_name(request, self.input_name)
        if tensor is None:
            raise ValueError(f"{self.input_name}: expected in the request, got none")
        images: torch.Tensor = torch.from_dlpack(tensor)  # type: ignore[attr-defined]
        if images.dtype != torch.uint8:
            raise ValueError(f"{self.input_name}: expected torch.uint8, got {images.dtype}")
        if images.ndim != 4 or tuple(images.shape[1:]) != self.image_shape or not len(images):
            expected = ", ".join(map(str, ("batch >= 1", *self.image_shape)))
            raise ValueError(f"{self.input_name}: expected shape ({expected}), got {tuple(images.shape)}")
        return images

    def _respond(self, request: Any, answer: tuple[torch.Tensor, ...]) -> Any:
        """Return one request's share of the outputs, or an error where they can't be right."""
        for name, output in zip(self.output_names, answer, strict=True):
            if not output.isfinite().all():
                message = f"{name}: expected finite numbers from the model, got NaN or infinity"
                return self._error(message, self.triton.TritonError.INTERNAL)
        low, high = (bound.item() for bound in answer[0].aminmax())
        if not (low >= 0 and high <= 1 + ROUNDING):
            message = f"{self.output_names[0]}: expected numbers from 0 to 1 from the model, got {low:g} to {high:g}"
            return self._error(message, self.triton.TritonError.INTERNAL)
        wanted = request.requested_output_names()
        tensors = [
            self.triton.Tensor.from_dlpack(name, output.contiguous())
            for name, output in zip(self.output_names, answer, strict=True)
            if name in wanted
        ]
        return self.triton.InferenceResponse(output_tensors=tensors)

    def _error(self, message: str, code: Any) -> Any:
        return self.triton.InferenceResponse(output_tensors=[], error=self.triton.TritonError(message, code))
