"""What the clients have in common: ask, ask again where that may help, and read the answer.

All that talks to a server is a coroutine over a :class:`~bmrl.export._connections.Connection`; whether it waits or
blocks is the connection's affair.
"""

from __future__ import annotations

import functools
import itertools
import random
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from bmrl._checks import check_choice, check_not_negative, check_positive
from bmrl.errors import BMRLError, RangeError, RequestRefusedError, ServerError, ServerUnavailableError
from bmrl.evaluation.attribution import Attribution, attributions_from_probabilities
from bmrl.export._failures import Deadline, server_error
from bmrl.export._messages import (
    Inference,
    Output,
    Request,
    check_dtype,
    check_encoded,
    check_shape,
    config_message,
)
from bmrl.export._shared_memory import SharedRegions
from bmrl.export.served_model import (
    ENCODED_IMAGE,
    ENSEMBLE_NAME,
    MODEL_NAME,
    PROBABILITIES,
    SEEN,
    ServedModel,
    import_tritonclient,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    import numpy.typing as npt
    from torch import Tensor

    from bmrl.export._connections import Connection

__all__ = ["Session"]

T = TypeVar("T")
ALIGNMENT = 64  # bytes, of the tensors in a region of shared memory
CLOSING_TIME = 2.0  # seconds that a server gets to let go of a client's regions
MAX_DOUBLINGS = 16  # of the pause between tries
LOST_REGION = "Unable to find shared memory region"  # what a server says of one that it does not know


class Session:
    """One client's use of one server.

    Args:
        url: see :class:`bmrl.export.TritonClient`, for this and the rest.
        protocol: a key of ``connections``.
        connections: the connection of each protocol.
        timeout: seconds for each call.
        retries: further tries.
        backoff: seconds before the first of them.
        shared_memory: whether tensors go through shared memory.

    Raises:
        MissingExtraError: tritonclient is not installed.
        RangeError: ``protocol`` is unknown, ``url`` has a scheme, or a number is out of range.
    """

    def __init__(
        self,
        url: str,
        protocol: str,
        connections: Mapping[str, type[Connection]],
        *,
        timeout: float,
        retries: int,
        backoff: float,
        shared_memory: bool,
    ) -> None:
        check_choice("protocol", protocol, connections)
        if "://" in url:
            raise RangeError(f"url: expected host:port without a scheme, got {url!r}")
        check_positive("timeout", timeout)
        check_not_negative("retries", retries)
        check_not_negative("backoff", backoff)
        self.known_model: ServedModel | None = None
        self.closed = False
        self._connection = connections[protocol](url, backoff)
        self._api = import_tritonclient(protocol)
        self._timeout = timeout
        self._retries = retries
        self._backoff = backoff
        self._regions = SharedRegions(self._call, self._connection.sleep) if shared_memory else None

    async def model(self) -> ServedModel:
        """Return the description of the served model."""
        return await self._model(Deadline(self._timeout))

    async def infer(self, images: Tensor | npt.NDArray[np.uint8]) -> Inference:
        """Return probabilities and embedding, asked for in parts of the server's ``max_batch_size``."""
        deadline = Deadline(self._timeout)
        array = check_dtype(images)
        model = await self._model(deadline)
        batch = check_shape(array, model.image_size)
        images_name, probabilities_name, embedding_name = model.tensors
        parts = []
        for start in range(0, len(batch), model.max_batch_size):
            part = batch[start : start + model.max_batch_size]
            outputs = (
                Output(probabilities_name, (len(part), len(model.generators)), np.float32),
                Output(embedding_name, (len(part), model.embed_dim), np.float32),
            )
            parts.append(await self._ask(Request("infer", MODEL_NAME, images_name, part, outputs), deadline))
        probabilities, embedding = (np.concatenate(rows) for rows in zip(*parts, strict=True))
        return Inference(probabilities, embedding) if array.ndim == 4 else Inference(probabilities[0], embedding[0])

    async def attribute(self, images: Sequence[bytes]) -> list[Attribution]:
        """Return what the server's ensemble makes of encoded images, asked for one by one."""
        deadline = Deadline(self._timeout)
        check_encoded(images)
        model = await self._model(deadline)
        return [await self._attribute(f"image {index}", data, model, deadline) for index, data in enumerate(images)]

    async def close(self) -> None:
        """Close the connection and remove what was made for it; calling it again does nothing."""
        if self.closed:
            return
        self.closed = True
        try:
            if self._regions is not None:
                await self._regions.close(Deadline(CLOSING_TIME))
        finally:
            await self._connection.close()

    def check_open(self) -> None:
        """Raise ServerError if the session is closed."""
        if self.closed:
            raise ServerError(f"{self._connection.url}: expected an open client, got one that is closed")

    async def _model(self, deadline: Deadline) -> ServedModel:
        if self.known_model is None:
            ask = functools.partial(self._call, "get_model_config", MODEL_NAME, deadline=deadline)
            self.known_model = ServedModel.from_config(config_message(await self._retry(ask, deadline)))
        return self.known_model

    async def _attribute(self, name: str, data: bytes, model: ServedModel, deadline: Deadline) -> Attribution:
        outputs = (Output(PROBABILITIES, (1, len(model.generators)), np.float32), Output(SEEN, (1, 1), np.bool_))
        request = Request("attribute", ENSEMBLE_NAME, ENCODED_IMAGE, np.frombuffer(data, np.uint8), outputs)
        probabilities, seen = await self._ask(request, deadline)
        expected = f"{self._connection.url}: expected probabilities of {name} that fit what is said to be seen"
        try:
            found = attributions_from_probabilities(
                probabilities.copy(), model.generators, model.thresholds[0], [name]
            )[0]
        except BMRLError as error:
            raise ServerError(f"{expected}, got {error}") from error
        if found.seen != seen.item():
            raise ServerError(f"{expected}, got a maximum of {found.probability:.6g} and {seen.item()}")
        return found

    async def _ask(self, request: Request, deadline: Deadline) -> list[npt.NDArray[Any]]:
        """Return the outputs of a request."""
        ask = functools.partial(self._ask_once, request, deadline)
        try:
            return await self._retry(ask, deadline)
        except RequestRefusedError as error:
            if self._regions is None or LOST_REGION not in str(error):
                raise
        self._regions.retire_free()  # the server that knew them has been replaced by another
        return await self._retry(ask, deadline)

    async def _ask_once(self, request: Request, deadline: Deadline) -> list[npt.NDArray[Any]]:
        tensor = self._api.InferInput(request.input_name, list(request.array.shape), "UINT8")
        wanted = [self._api.InferRequestedOutput(output.name) for output in request.outputs]
        if self._regions is None:
            tensor.set_data_from_numpy(request.array)
            answer = await self._infer(request, tensor, wanted, deadline)
            return [answer.as_numpy(output.name) for output in request.outputs]
        sizes = [request.array.nbytes, *(output.num_bytes for output in request.outputs)]
        *starts, total = itertools.accumulate(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes)
        async with self._regions.take(total, deadline) as region:
            region.write(request.array)
            tensor.set_shared_memory(region.name, request.array.nbytes)
            for place, output, start in zip(wanted, request.outputs, starts, strict=True):
                place.set_shared_memory(region.name, output.num_bytes, start)
            await self._infer(request, tensor, wanted, deadline)
            return [
                region.read(output.shape, output.dtype, start)
                for output, start in zip(request.outputs, starts, strict=True)
            ]

    async def _infer(self, request: Request, tensor: Any, wanted: list[Any], deadline: Deadline) -> Any:
        """Return tritonclient's answer, which holds the outputs that were asked for."""
        answer = await self._call(
            "infer", request.model, [tensor], outputs=wanted, deadline=deadline, called=request.called
        )
        for output in request.outputs:
            output.check(self._connection.url, answer)
        return answer

    async def _retry(self, attempt: Callable[[], Awaitable[T]], deadline: Deadline) -> T:
        """Return what ``attempt`` returns, begun again while the server is unavailable and there are tries left."""
        number = 0
        while True:
            try:
                return await attempt()
            except ServerUnavailableError:
                pause = self._backoff * 2 ** min(number, MAX_DOUBLINGS) * random.uniform(1, 1.5)
                if number >= self._retries or pause >= deadline.left():
                    raise
            number += 1
            await self._connection.sleep(pause)

    async def _call(
        self, method: str, *arguments: Any, deadline: Deadline, called: str | None = None, **options: Any
    ) -> Any:
        """Call the connection; whatever goes wrong on the way is a ServerError of one line."""
        left = deadline.left()
        if left <= 0:
            raise server_error(self._connection, called or method, deadline, None)
        try:
            return await self._connection.call(method, *arguments, timeout=left, **options)
        except Exception as error:  # of the transport, or of tritonclient when something else answers than a server
            raise server_error(self._connection, called or method, deadline, error) from error
