"""A client of a served model: arrays in, arrays out, over gRPC or HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from bmrl._checks import check_choice, check_positive
from bmrl.errors import DTypeError, ServerError, ShapeError
from bmrl.export.served_model import EMBEDDING, IMAGES, MODEL_NAME, PROBABILITIES, ServedModel, import_tritonclient

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Inference", "TritonClient"]


class Inference(NamedTuple):
    """The answer for a batch of images, one row an image."""

    probabilities: npt.NDArray[np.float32]
    """``(batch, num_generators)``, rows sum to 1."""

    embedding: npt.NDArray[np.float32]
    """``(batch, embed_dim)``."""


class TritonClient:
    """Asks a Triton Inference Server that serves a repository of :func:`bmrl.export.write_triton_repository`.

    What the model expects and which classes it knows comes from the server (:attr:`model`). A gRPC client may be
    shared by threads, an HTTP client may not. Close a client, or use it in a ``with`` block: a server waits for open
    HTTP connections when it is told to stop.

    Args:
        url: ``"host:port"`` without a scheme, of the server's port for ``protocol``.
        protocol: ``"grpc"`` or ``"http"``.
        timeout: seconds to wait for each answer.

    Raises:
        MissingExtraError: tritonclient is not installed.
        RangeError: ``protocol`` is unknown or ``timeout`` not positive.
    """

    def __init__(self, url: str, protocol: Literal["grpc", "http"] = "grpc", *, timeout: float = 60.0) -> None:
        check_choice("protocol", protocol, ("grpc", "http"))
        check_positive("timeout", timeout)
        self.url = url
        self.protocol = protocol
        self.timeout = timeout
        self._model: ServedModel | None = None
        self._api = import_tritonclient(protocol)
        self._failures: tuple[type[Exception], ...] = (import_tritonclient("utils").InferenceServerException, OSError)
        self._options: dict[str, Any] = {}
        if protocol == "grpc":
            self._options["client_timeout"] = timeout  # HTTP takes it once, gRPC with every call
            self._connection = self._api.InferenceServerClient(url)
        else:
            from geventhttpclient.response import HTTPParseError

            self._failures += (HTTPParseError,)
            self._connection = self._api.InferenceServerClient(url, connection_timeout=timeout, network_timeout=timeout)

    @property
    def model(self) -> ServedModel:
        """Classes, image size, thresholds and limits of the served model; asked for once.

        Raises:
            ServerError: the server does not answer, or serves no such model.
        """
        if self._model is None:
            self._model = ServedModel.from_config(self._model_config())
        return self._model

    def labels(self) -> tuple[str, ...]:
        """Return the class names, in the order of the probabilities."""
        return self.model.labels

    def infer(self, images: Tensor | npt.NDArray[np.uint8]) -> Inference:
        """Return probabilities and embedding of a batch of images.

        A batch above the server's ``max_batch_size`` is sent in parts, one after the other.

        Args:
            images: ``(batch, 3, image_size, image_size)``, uint8, RGB, batch >= 1; a tensor on any device.

        Raises:
            DTypeError: ``images`` is not a uint8 tensor or array.
            ShapeError: ``images`` does not have the shape that the served model expects.
            ServerError: the server does not answer in time, or answers with an error.
        """
        array = self._check(images)
        size = self.model.max_batch_size
        parts = [self._infer_part(array[start : start + size]) for start in range(0, len(array), size)]
        return Inference(*(np.concatenate(outputs) for outputs in zip(*parts, strict=True)))

    def close(self) -> None:
        """Close the connection; calling it again does nothing."""
        self._connection.close()

    def __enter__(self) -> TritonClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"TritonClient({self.url!r}, {self.protocol!r})"

    def _model_config(self) -> Any:
        answer = self._call("get_model_config", MODEL_NAME)
        if self.protocol == "grpc":
            return answer.config
        from google.protobuf import json_format

        messages = import_tritonclient("grpc.model_config_pb2")
        return json_format.ParseDict(answer, messages.ModelConfig(), ignore_unknown_fields=True)

    def _check(self, images: Tensor | npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        array = images.detach().cpu().numpy() if isinstance(images, Tensor) else images
        if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
            got = getattr(images, "dtype", type(images).__name__)
            raise DTypeError(f"images: expected a uint8 tensor or array, got {got}")
        side = self.model.image_size
        if array.ndim != 4 or array.shape[1:] != (3, side, side) or not len(array):
            raise ShapeError(f"images: expected shape (batch >= 1, 3, {side}, {side}), got {array.shape}")
        return array

    def _infer_part(self, images: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        request = self._api.InferInput(IMAGES, list(images.shape), "UINT8")
        request.set_data_from_numpy(images)
        answer = self._call("infer", MODEL_NAME, [request])
        widths = {PROBABILITIES: len(self.model.generators), EMBEDDING: self.model.embed_dim}
        outputs = []
        for name, width in widths.items():
            output = answer.as_numpy(name)
            shape = None if output is None else output.shape
            if output is None or shape != (len(images), width):
                raise ServerError(f"{self.url}: expected {name} of shape ({len(images)}, {width}), got {shape}")
            outputs.append(output)
        return outputs[0], outputs[1]

    def _call(self, method: str, *arguments: Any) -> Any:
        """Call the connection; whatever goes wrong on the way is a ServerError of one line."""
        try:
            return getattr(self._connection, method)(*arguments, **self._options)
        except self._failures as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ServerError(f"{self.url}: expected an answer to {method}, got {reason}") from error
