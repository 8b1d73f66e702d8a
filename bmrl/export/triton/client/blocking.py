"""A client of a served model: arrays or image files in, arrays or attributions out, over gRPC or HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

from bmrl.export.triton.client.messages import Inference
from bmrl.export.triton.client.session import Session
from bmrl.export.triton.client.transports import AsyncHTTPConnection, BlockingGRPCConnection, LoopThread, run_now

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from types import TracebackType

    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from bmrl.export.triton.contract import ServedModel
    from bmrl.inference.attribution import Attribution

__all__ = ["Inference", "TritonClient"]

T = TypeVar("T")


class TritonClient:
    """Asks a Triton Inference Server that serves a repository of :func:`bmrl.export.write_triton_repository`.

    What the model expects and which classes it knows comes from the server (:attr:`model`). Threads may share a
    client; a process that is forked may not use its parent's. Close a client, or use it in a ``with`` block: a server
    waits for open HTTP connections when it is told to stop, and shared memory stays until then.

    Args:
        url: ``"host:port"`` without a scheme, of the server's port for ``protocol``.
        protocol: ``"grpc"`` or ``"http"``.
        timeout: seconds within which each call of a method must end, with all the requests and tries that it takes.
        retries: how often to try again, >= 0, when the server is unavailable: it can't be reached, closes the
            connection without an answer, or says so. Nothing else is tried again.
        backoff: seconds before the second try, >= 0; twice that before the third and so on, each time up to one half
            longer by chance.
        shared_memory: pass tensors through system shared memory instead of the connection. For a server on this
            machine, in the same container, that runs as this user or as root.

    Raises:
        MissingExtraError: tritonclient is not installed.
        RangeError: ``protocol`` is unknown, ``url`` has a scheme, or a number is out of range.
    """

    def __init__(
        self,
        url: str,
        protocol: Literal["grpc", "http"] = "grpc",
        *,
        timeout: float = 60.0,
        retries: int = 2,
        backoff: float = 0.1,
        shared_memory: bool = False,
    ) -> None:
        self.url = url
        self.protocol = protocol
        self._session = Session(
            url,
            protocol,
            {"grpc": BlockingGRPCConnection, "http": AsyncHTTPConnection},
            timeout=timeout,
            retries=retries,
            backoff=backoff,
            shared_memory=shared_memory,
        )
        # tritonclient's own HTTP client that blocks can be used by one thread only, and bounds no call as a whole
        self._thread = None if protocol == "grpc" else LoopThread()

    @property
    def model(self) -> ServedModel:
        """Classes, image size, thresholds and limits of the served model; asked for once.

        Raises:
            ServerError: the server does not answer, or serves no such model.
        """
        known = self._session.known_model
        if known is None:
            self._session.check_open()
            known = self._run(self._session.model())
        return known

    def labels(self) -> tuple[str, ...]:
        """Return the class names, in the order of the probabilities."""
        return self.model.labels

    def infer(self, images: Tensor | npt.NDArray[np.uint8]) -> Inference:
        """Return probabilities and embedding of a batch of images, or of one.

        A batch above the server's ``max_batch_size`` is sent in parts, one after the other.

        Args:
            images: ``(batch, 3, image_size, image_size)`` with batch >= 1, or ``(3, image_size, image_size)``, for
                which the answer has no axis ``batch`` either; uint8, RGB; a tensor on any device.

        Raises:
            DTypeError: ``images`` is not a uint8 tensor or array.
            ShapeError: ``images`` does not have the shape that the served model expects.
            ServerUnavailableError: the server can't be reached or is not available, also after ``retries``.
            ServerTimeoutError: there is no answer within ``timeout``.
            RequestRefusedError: the server serves no such model or refused the request.
            ServerError: anything else went wrong (all three above are of this class); there was no shared memory.
        """
        self._session.check_open()
        return self._run(self._session.infer(images))

    def attribute(self, images: Sequence[bytes]) -> list[Attribution]:
        """Return the attributions of encoded images, which the server decodes: all, or an error.

        The server must also serve the ensemble ``bmrl_attribute``. Images are sent one after the other.

        Args:
            images: the bytes of one file each: JPEG, PNG or WebP.

        Returns:
            One :class:`~bmrl.Attribution` per image, in order, as :class:`~bmrl.Attributor` gives for these bytes with
            the first of the served model's thresholds.

        Raises:
            DTypeError: ``images`` is not a sequence of bytes.
            ImageError: an image has no bytes.
            ServerError: as for :meth:`infer`; an image that can't be decoded is a RequestRefusedError.
        """
        self._session.check_open()
        return self._run(self._session.attribute(images))

    def close(self) -> None:
        """Close the connection and remove shared memory; calling it again does nothing."""
        if self._session.closed or self._session.forked:
            return
        try:
            self._run(self._session.close())
        finally:
            if self._thread is not None:
                self._thread.close()

    def __enter__(self) -> TritonClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"TritonClient({self.url!r}, {self.protocol!r})"

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return run_now(coroutine) if self._thread is None else self._thread.run(coroutine)
