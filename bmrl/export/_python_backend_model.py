"""Runs a TorchScript inference graph inside Triton's Python backend (the file ``1/model.py`` of a repository).

It needs PyTorch alone. Tensors travel by DLPack in both directions: with numpy >= 2 the backend's own numpy
conversion hands over corrupt data without an error.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch


class TritonPythonModel:
    """One instance of the served model; Triton calls the methods."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph that lies beside this file."""
        self.triton: Any = importlib.import_module("triton_python_backend_utils")  # exists inside the backend only
        config = json.loads(args["model_config"])
        threads = config["parameters"].get("num_threads")
        if threads is not None:
            torch.set_num_threads(int(threads["string_value"]))
        self.input_name: str = config["input"][0]["name"]
        self.image_shape = tuple(int(size) for size in config["input"][0]["dims"])
        self.output_names: list[str] = [output["name"] for output in config["output"]]
        path = Path(__file__).with_name("model.pt")
        self.graph = torch.jit.load(str(path), map_location="cpu").eval()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer all requests with one run of the graph; a faulty one gets an error of its own."""
        responses: list[Any] = [None] * len(requests)
        batches: dict[int, torch.Tensor] = {}
        for index, request in enumerate(requests):
            try:
                batches[index] = self._images(request)
            except ValueError as error:
                responses[index] = self._error(str(error), self.triton.TritonError.INVALID_ARG)
        if batches:
            # Unoptimised, because the executor would stop to specialise the graph when batch sizes change.
            with torch.inference_mode(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
                outputs = self.graph(torch.cat(list(batches.values())))
            sizes = [len(images) for images in batches.values()]
            answers = zip(*(output.split(sizes) for output in outputs), strict=True)
            for index, answer in zip(batches, answers, strict=True):
                responses[index] = self._respond(answer)
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

    def _respond(self, answer: tuple[torch.Tensor, ...]) -> Any:
        """Return one request's share of the outputs, or an error where they are not numbers."""
        for name, output in zip(self.output_names, answer, strict=True):
            if not output.isfinite().all():
                message = f"{name}: expected finite numbers from the model, got NaN or infinity"
                return self._error(message, self.triton.TritonError.INTERNAL)
        tensors = [
            self.triton.Tensor.from_dlpack(name, output.contiguous())
            for name, output in zip(self.output_names, answer, strict=True)
        ]
        return self.triton.InferenceResponse(output_tensors=tensors)

    def _error(self, message: str, code: Any) -> Any:
        return self.triton.InferenceResponse(output_tensors=[], error=self.triton.TritonError(message, code))
