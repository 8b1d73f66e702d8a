"""Decodes an image inside Triton's Python backend (``bmrl_decode/1/model.py`` of a repository).

It needs PyTorch and Pillow. The package ``bmrl`` next to this file holds the modules that decode for
:class:`bmrl.Attributor` too, and nothing else. An image travels as its file's bytes in a uint8 vector: with numpy >= 2
the backend's strings end its process.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import torch

FORMATS = ("JPEG", "PNG", "WebP")


class TritonPythonModel:
    """One instance of the model; Triton calls the methods."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the limits out of the configuration."""
        self.triton: Any = importlib.import_module("triton_python_backend_utils")  # exists inside the backend only
        config = json.loads(args["model_config"])
        self.input_name: str = config["input"][0]["name"]
        self.output_name: str = config["output"][0]["name"]
        self.image_size = int(config["output"][0]["dims"][-1])
        parameters = {name: int(entry["string_value"]) for name, entry in config["parameters"].items()}
        self.limits = {"max_pixels": parameters["max_pixels"], "max_bytes": parameters["max_bytes"]}
        sys.path.insert(0, str(Path(__file__).parent))
        self.images = importlib.import_module("bmrl.images")
        self.refusal = importlib.import_module("bmrl.errors").BMRLError

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request with pixels ``(1, 3, image_size, image_size)``, or its own error."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        tensor = self.triton.get_input_tensor_by_name(request, self.input_name)
        encoded: torch.Tensor = torch.from_dlpack(tensor)  # type: ignore[attr-defined]
        try:
            data = encoded.numpy().tobytes()
            pixels = self.images.read_image(data, self.image_size, formats=FORMATS, name="image", **self.limits)
        except self.refusal as error:
            refused = self.triton.TritonError(str(error), self.triton.TritonError.INVALID_ARG)
            return self.triton.InferenceResponse(output_tensors=[], error=refused)
        output = self.triton.Tensor.from_dlpack(self.output_name, pixels[None])
        return self.triton.InferenceResponse(output_tensors=[output])
