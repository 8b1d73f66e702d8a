"""What the clients have in common: ask, ask again where that may help, and read the answer.

All that talks to a server is a coroutine over a :class:`~bmrl.export.triton.client.transports.Connection`; whether it
waits or blocks is up to the connection.
"""

from __future__ import annotations

import functools
import itertools
import os
import random
import re
import secrets
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from bmrl._checks import check_integer, check_not_negative, check_positive
from bmrl._values import check_choice, check_switch
from bmrl.errors import BMRLError, DTypeError, RangeError, RequestRefusedError, ServerError, ServerUnavailableError
from bmrl.export.triton.client.answers import Answer, answer_from_message, check_answer, check_values
from bmrl.export.triton.client.description import read_description
from bmrl.export.triton.client.failures import Deadline, server_error
from bmrl.export.triton.client.messages import Inference, Output, Request, check_dtype, check_encoded, check_shape
from bmrl.export.triton.client.shared_memory import SharedRegions
from bmrl.export.triton.contract import (
    EMBEDDING,
    ENCODED_IMAGE,
    ENSEMBLE_NAME,
    INDEX,
    MODEL_NAME,
    PROBABILITIES,
    PROBABILITY,
    SCORE,
    SEEN,
    VERDICT,
    import_tritonclient,
)
from bmrl.inference.attribution import Attribution, attributions_from_probabilities
from bmrl.inference.checks import as_probabilities
from bmrl.inference.decision import decide
from bmrl.inference.limits import VERDICTS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    import numpy.typing as npt
    from torch import Tensor

    from bmrl.export.triton.client.transports import Connection
    from bmrl.export.triton.contract import ServedModel

__all__ = ["Session"]

T = TypeVar("T")
ADDRESS = re.compile(r"(\[[\da-fA-F:.]+\]|[^][:/?#@\s]+):(?P<port>\d{1,5})", re.ASCII)
LONGEST_WAIT = 10**7  # seconds, some months; clocks overflow at more
ALIGNMENT = 64  # bytes, of the tensors in a region of shared memory
CLOSING_TIME = 2.0  # seconds that a server gets to release a client's regions
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
        check_choice("protocol", protocol, tuple(connections))
        _check_url(url)
        check_positive("timeout", timeout)
        check_integer("retries", retries, least=0)
        check_not_negative("backoff", backoff)
        for name, seconds in (("timeout", timeout), ("backoff", backoff)):
            if seconds > LONGEST_WAIT:
                raise RangeError(f"{name}: expected at most {LONGEST_WAIT} seconds, got {seconds}")
        check_switch("shared_memory", shared_memory)
        self._process = os.getpid()
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
        """Return probabilities, embedding and score, asked for in parts of the server's ``max_batch_size``."""
        deadline = Deadline(self._timeout)
        array = check_dtype(images)
        just_asked = self.known_model is None
        model = await self._model(deadline)
        batch = check_shape(array, model.image_size)
        images_name, probabilities_name, embedding_name, score_name = model.tensors
        parts = []
        versions = set()
        for start in range(0, len(batch), model.max_batch_size):
            part = batch[start : start + model.max_batch_size]
            outputs = (
                Output(probabilities_name, (len(part), len(model.generators)), np.float32),
                Output(embedding_name, (len(part), model.embed_dim), np.float32),
                Output(score_name, (len(part), 1), np.float32),
            )
            request = Request("infer", MODEL_NAME, images_name, part, outputs, _new_id())
            rows, version = await self._ask(request, deadline)
            self._check_rows(*rows)
            parts.append(rows)
            versions.add(version)
        if len(versions) > 1:
            raise ServerError(f"{self._url}: expected one version for all images, got {', '.join(sorted(versions))}")
        await self._check_same(model, deadline, just_asked)
        joined = Inference(*(np.concatenate(rows) for rows in zip(*parts, strict=True)))
        return joined if array.ndim == 4 else Inference(*(rows[0] for rows in joined))

    async def attribute(self, images: Sequence[bytes]) -> list[Attribution]:
        """Return what the server's ensemble makes of encoded images, asked for one by one."""
        deadline = Deadline(self._timeout)
        check_encoded(images)
        just_asked = self.known_model is None
        model = await self._model(deadline)
        found = [await self._attribute(f"image {index}", data, model, deadline) for index, data in enumerate(images)]
        await self._check_same(model, deadline, just_asked)
        return found

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

    @property
    def forked(self) -> bool:
        """Whether this process is a copy of the one that made the session, whose connection and regions are not its."""
        return os.getpid() != self._process

    def check_open(self) -> None:
        """Raise ServerError if the session is closed, or belongs to another process."""
        if self.closed:
            raise ServerError(f"{self._url}: expected an open client, got one that is closed")
        if self.forked:
            raise ServerError(f"{self._url}: expected a client that this process made, got one from before a fork")

    @property
    def _url(self) -> str:
        return self._connection.url

    async def _model(self, deadline: Deadline) -> ServedModel:
        if self.known_model is None:
            self.known_model = await self._described(deadline)
        return self.known_model

    async def _described(self, deadline: Deadline) -> ServedModel:
        ask = functools.partial(self._call, "get_model_config", MODEL_NAME, deadline=deadline)
        return read_description(self._url, MODEL_NAME, await self._retry(ask, deadline))

    async def _check_same(self, model: ServedModel, deadline: Deadline, just_asked: bool) -> None:
        """Check that the server still serves the model whose classes and limits its answers were read with.

        Args:
            model: what it served.
            deadline: of the call.
            just_asked: whether this call has asked for ``model`` itself. Then a server that has ended since, having
                answered what was in flight, is trusted.

        Raises:
            ServerError: it now serves another model, so that it is unknown which one has answered.
        """
        try:
            described = await self._described(deadline)
        except ServerUnavailableError:
            if just_asked:
                return
            raise
        if described != model:
            raise ServerError(
                f"{self._url}: expected the model that this client knows, got other classes, limits or sizes; "
                "a new client learns them"
            )

    def _check_rows(
        self, probabilities: npt.NDArray[Any], embedding: npt.NDArray[Any], score: npt.NDArray[Any]
    ) -> None:
        """Raise ServerError unless these are probabilities, and embeddings and scores of finite numbers."""
        try:
            as_probabilities("probabilities", probabilities.copy())
        except BMRLError as error:
            raise ServerError(f"{self._url}: expected an inference, got {error}") from error
        for name, values in (("embedding", embedding), ("score", score)):
            if not np.isfinite(values).all():
                raise ServerError(f"{self._url}: expected an inference, got {name}: NaN or infinity")

    async def _attribute(self, name: str, data: bytes, model: ServedModel, deadline: Deadline) -> Attribution:
        outputs = (
            Output(INDEX, (1, 1), np.int32),
            Output(PROBABILITY, (1, 1), np.float32),
            Output(SEEN, (1, 1), np.bool_),
            Output(VERDICT, (1, 1), np.int32),
            Output(PROBABILITIES, (1, len(model.generators)), np.float32),
            Output(EMBEDDING, (1, model.embed_dim), np.float32),
            Output(SCORE, (1, 1), np.float32),
        )
        image = np.frombuffer(data, np.uint8)
        request = Request("attribute", ENSEMBLE_NAME, ENCODED_IMAGE, image, outputs, _new_id())
        (index, probability, seen, verdict, probabilities, embedding, score), _ = await self._ask(request, deadline)
        self._check_rows(probabilities, embedding, score)
        (found,) = attributions_from_probabilities(
            probabilities.copy(), model.generators, model.limits, [name], scores=score[:, 0].copy()
        )
        label = int(decide(probabilities.copy()).labels)
        right = (label, found.probability, found.seen, VERDICTS.index(found.verdict))
        got = (index.item(), probability.item(), seen.item(), verdict.item())
        if got != right:
            raise ServerError(
                f"{self._url}: expected index, probability, seen and verdict of {name} to fit its probabilities and "
                f"score ({_line(right)}), got {_line(got)}"
            )
        return found

    async def _ask(self, request: Request, deadline: Deadline) -> tuple[list[npt.NDArray[Any]], str]:
        """Return the outputs of a request, and the version of the model that gave them."""
        ask = functools.partial(self._ask_once, request, deadline)
        try:
            return await self._retry(ask, deadline)
        except RequestRefusedError as error:
            if self._regions is None or LOST_REGION not in str(error):
                raise
        self._regions.retire_free()  # the server that knew them has been replaced by another
        return await self._retry(ask, deadline)

    async def _ask_once(self, request: Request, deadline: Deadline) -> tuple[list[npt.NDArray[Any]], str]:
        tensor = self._api.InferInput(request.input_name, list(request.array.shape), "UINT8")
        wanted = [self._api.InferRequestedOutput(output.name) for output in request.outputs]
        if self._regions is None:
            tensor.set_data_from_numpy(request.array)
            answer = await self._infer(request, tensor, wanted, deadline)
            return check_answer(self._url, answer, request, shared=False), answer.version
        sizes = [request.array.nbytes, *(output.num_bytes for output in request.outputs)]
        *starts, total = itertools.accumulate(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes)
        async with self._regions.take(total, deadline) as region:
            region.write(request.array, total)
            tensor.set_shared_memory(region.name, request.array.nbytes)
            for place, output, start in zip(wanted, request.outputs, starts, strict=True):
                place.set_shared_memory(region.name, output.num_bytes, start)
            answer = await self._infer(request, tensor, wanted, deadline)
            check_answer(self._url, answer, request, shared=True)
            values = [
                check_values(self._url, region.read(output.num_bytes, start), output)
                for output, start in zip(request.outputs, starts, strict=True)
            ]
            return values, answer.version

    async def _infer(self, request: Request, tensor: Any, wanted: list[Any], deadline: Deadline) -> Answer:
        answer = await self._call(
            "infer",
            request.model,
            [tensor],
            outputs=wanted,
            request_id=request.id,
            deadline=deadline,
            called=request.called,
        )
        return answer if isinstance(answer, Answer) else answer_from_message(answer.get_response())

    async def _retry(self, attempt: Callable[[], Awaitable[T]], deadline: Deadline) -> T:
        """Return what ``attempt`` returns, repeated while the server is unavailable and there are tries left."""
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
        """Call the connection; any failure is a ServerError of one line."""
        left = deadline.left()
        if left <= 0:
            raise server_error(self._connection, called or method, deadline, None)
        try:
            return await self._connection.call(method, *arguments, timeout=left, **options)
        except BMRLError:
            raise
        except Exception as error:  # of the transport, or of tritonclient when something else answers than a server
            raise server_error(self._connection, called or method, deadline, error) from error


def _line(values: tuple[Any, ...]) -> str:
    return ", ".join(f"{value:.6g}" if isinstance(value, float) else str(value) for value in values)


def _new_id() -> str:
    return secrets.token_hex(8)


def _check_url(url: Any) -> None:
    if not isinstance(url, str):
        raise DTypeError(f"url: expected host:port, got {type(url).__name__}")
    if "://" in url:
        raise RangeError(f"url: expected host:port without a scheme, got {url!r}")
    match = ADDRESS.fullmatch(url)
    if match is None or not 1 <= int(match["port"]) <= 65535:
        raise RangeError(f"url: expected host:port, such as 127.0.0.1:8001, got {url!r}")
