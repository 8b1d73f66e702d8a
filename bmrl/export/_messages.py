"""What clients send and what they read out of an answer, by whichever protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from bmrl.errors import DTypeError, ImageError, ServerError, ShapeError
from bmrl.export.served_model import import_tritonclient

__all__ = ["Inference", "Output", "Request", "check_dtype", "check_encoded", "check_shape", "config_message"]


class Inference(NamedTuple):
    """The answer for a batch of images, one row an image; for a single image without the axis ``batch``."""

    probabilities: npt.NDArray[np.float32]
    """``(batch, num_generators)``, rows sum to 1."""

    embedding: npt.NDArray[np.float32]
    """``(batch, embed_dim)``."""


class Output(NamedTuple):
    """A tensor that an answer must hold."""

    name: str
    shape: tuple[int, ...]
    dtype: type[np.generic]

    @property
    def num_bytes(self) -> int:
        """The size of its values."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def check(self, url: str, answer: Any) -> None:
        """Check that the answer, tritonclient's, has the tensor.

        Raises:
            ServerError: it has none, or one of another type or shape.
        """
        response = answer.get_response()
        if isinstance(response, dict):  # HTTP
            tensors = response.get("outputs", ())
            found = {tensor["name"]: (tensor["datatype"], tuple(tensor["shape"])) for tensor in tensors}
        else:
            found = {tensor.name: (tensor.datatype, tuple(tensor.shape)) for tensor in response.outputs}
        datatype = import_tritonclient("utils").np_to_triton_dtype(np.dtype(self.dtype))
        if found.get(self.name) != (datatype, self.shape):
            got = " ".join(map(str, found.get(self.name, ("none",))))
            raise ServerError(f"{url}: expected {self.name} {datatype} {self.shape}, got {got}")


class Request(NamedTuple):
    """A request of one input, uint8, and the outputs that its answer must hold.

    ``called`` is what errors call it.
    """

    called: str
    model: str
    input_name: str
    array: npt.NDArray[np.uint8]
    outputs: tuple[Output, ...]


def check_dtype(images: Tensor | npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return images of uint8 as an array; raise DTypeError if they are something else."""
    array = images.detach().cpu().numpy() if isinstance(images, Tensor) else images
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
        got = getattr(images, "dtype", type(images).__name__)
        raise DTypeError(f"images: expected a uint8 tensor or array, got {got}")
    return array


def check_shape(images: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """Return one or more images as a batch (batch, 3, side, side); raise ShapeError if they have another shape."""
    batch = images[None] if images.ndim == 3 else images
    if batch.ndim != 4 or batch.shape[1:] != (3, side, side) or not len(batch):
        expected = f"shape (batch >= 1, 3, {side}, {side}) or (3, {side}, {side})"
        raise ShapeError(f"images: expected {expected}, got {images.shape}")
    return batch


def check_encoded(images: object) -> None:
    """Raise DTypeError unless ``images`` are files, each as bytes, and ImageError if one is empty."""
    if isinstance(images, bytes | str) or not isinstance(images, Sequence):
        raise DTypeError(f"images: expected a sequence of bytes, got {type(images).__name__}")
    for index, data in enumerate(images):
        if not isinstance(data, bytes):
            raise DTypeError(f"images: expected a sequence of bytes, got {type(data).__name__} at {index}")
        if not data:
            raise ImageError(f"image {index}: expected an image, got no bytes")


def config_message(answer: Any) -> Any:
    """Return a served model's configuration, whichever way it came, as a ``ModelConfig`` message."""
    if not isinstance(answer, dict):  # gRPC
        return answer.config
    from google.protobuf import json_format

    messages = import_tritonclient("grpc.model_config_pb2")
    return json_format.ParseDict(answer, messages.ModelConfig(), ignore_unknown_fields=True)
