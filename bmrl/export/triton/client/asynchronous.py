"""A client of a served model for programs that run in an event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bmrl.export.triton.client.session import Session
from bmrl.export.triton.client.transports import AsyncGRPCConnection, AsyncHTTPConnection

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from bmrl.export.triton.client.messages import Inference
    from bmrl.export.triton.contract import ServedModel
    from bmrl.inference.attribution import Attribution

__all__ = ["AsyncTritonClient"]


class AsyncTritonClient:
    """What :class:`bmrl.export.TritonClient` does, in coroutines: same options, methods, answers and errors.

    Any number of calls may run at once. A client belongs to the event loop in which it is first called. Decoding and
    checking of answers happen in the loop, so that large batches hold it up a little.

    Args:
        url: ``"host:port"`` without a scheme, of the server's port for ``protocol``.
        protocol: ``"grpc"`` or ``"http"``.
        timeout: seconds within which each call must end.
        retries: how often to try again when the server is unavailable.
        backoff: seconds before the second try, doubled before each further one.
        shared_memory: pass tensors through system shared memory; a region for each call under way.

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
            {"grpc": AsyncGRPCConnection, "http": AsyncHTTPConnection},
            timeout=timeout,
            retries=retries,
            backoff=backoff,
            shared_memory=shared_memory,
        )

    async def model(self) -> ServedModel:
        """Return classes, image size, thresholds and limits of the served model; asked for once."""
        if self._session.known_model is None:
            self._session.check_open()
        return await self._session.model()

    async def labels(self) -> tuple[str, ...]:
        """Return the class names, in the order of the probabilities."""
        return (await self.model()).labels

    async def infer(self, images: Tensor | npt.NDArray[np.uint8]) -> Inference:
        """Return probabilities and embedding of a batch of images, or of one.

        Args:
            images: uint8, as :meth:`bmrl.export.TritonClient.infer` takes them, whose errors these are too.
        """
        self._session.check_open()
        return await self._session.infer(images)

    async def attribute(self, images: Sequence[bytes]) -> list[Attribution]:
        """Return the attributions of encoded images; see :meth:`bmrl.export.TritonClient.attribute`."""
        self._session.check_open()
        return await self._session.attribute(images)

    async def close(self) -> None:
        """Close the connection and remove shared memory; calling it again does nothing."""
        if not self._session.forked:
            await self._session.close()

    async def __aenter__(self) -> AsyncTritonClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncTritonClient({self.url!r}, {self.protocol!r})"
