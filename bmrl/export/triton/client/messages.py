"""What clients send and what they read out of an answer, over either protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bmrl.errors import DeviceError, DTypeError, ImageError, ShapeError

__all__ = ["Inference", "Output", "Request", "check_dtype", "check_encoded", "check_shape"]


class Inference(NamedTuple):
    """The answer for a batch of images, one row per image; for a single image without the axis ``batch``."""

    probabilities: npt.NDArray[np.float32]
    """``(batch, num_generators)``, rows sum to 1."""

    embedding: npt.NDArray[np.float32]
    """``(batch, embed_dim)``."""

    score: npt.NDArray[np.float32]
    """``(batch, 1)``, higher is more like a seen image; see the served model's ``limits``."""


class Output(NamedTuple):
    """A tensor that an answer must hold."""

    name: str
    shape: tuple[int, ...]
    dtype: type[np.generic]

    @property
    def num_bytes(self) -> int:
        """The size of its values."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class Request(NamedTuple):
    """A request of one input, uint8, and the outputs that its answer must hold.

    ``called`` is what errors call it.
    """

    called: str
    model: str
    input_name: str
    array: npt.NDArray[np.uint8]
    outputs: tuple[Output, ...]
    id: str
    """What the server must answer with, too."""


def check_dtype(images: Tensor | npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return images of uint8 as an array; raise DTypeError or DeviceError if they are something else."""
    if not isinstance(images, Tensor | np.ndarray) or images.dtype not in (torch.uint8, np.uint8):
        got = getattr(images, "dtype", type(images).__name__)
        raise DTypeError(f"images: expected a uint8 tensor or array, got {got}")
    if not isinstance(images, Tensor):
        return images
    if images.is_meta or images.layout != torch.strided:
        got = "the meta device" if images.is_meta else images.layout
        raise DeviceError(f"images: expected a tensor with values, got {got}")
    array: npt.NDArray[np.uint8] = images.detach().cpu().numpy()
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
