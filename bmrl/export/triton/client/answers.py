"""A server's answer to a request for inference, and what is checked before it is used."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bmrl._text import shown
from bmrl.errors import ServerError

if TYPE_CHECKING:
    import numpy.typing as npt

    from bmrl.export.triton.client.messages import Output, Request

__all__ = [
    "MOST_BYTES",
    "Answer",
    "AnsweredTensor",
    "answer_from_body",
    "answer_from_message",
    "check_answer",
    "check_values",
]

MOST_BYTES = 32 * 2**20
"""Of an answer: twice what the largest batch of the widest model takes."""

DATATYPES = {np.dtype(np.float32): "FP32", np.dtype(np.int32): "INT32", np.dtype(np.bool_): "BOOL"}


class AnsweredTensor(NamedTuple):
    """One output as the answer describes it."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | None
    """None where the values are in shared memory."""


class Answer(NamedTuple):
    """What an answer holds, over either protocol."""

    model: str
    version: str
    id: str
    tensors: tuple[AnsweredTensor, ...]


def answer_from_message(message: Any) -> Answer:
    """Return the answer that a ``ModelInferResponse`` message holds."""
    contents = message.raw_output_contents
    tensors = []
    for index, output in enumerate(message.outputs):
        shared = "shared_memory_region" in output.parameters
        data = None if shared or index >= len(contents) else contents[index]
        tensors.append(AnsweredTensor(output.name, output.datatype, tuple(output.shape), data))
    return Answer(message.model_name, message.model_version, message.id, tuple(tensors))


def answer_from_body(body: bytes, header_length: str | None) -> Answer:
    """Return the answer that an HTTP body holds: JSON, then the values of one output after the other.

    Raises:
        ValueError: it holds something else.
    """
    length = len(body) if header_length is None else int(header_length)
    if not 0 <= length <= len(body):
        raise ValueError(f"a JSON header of {length} bytes in a body of {len(body)}")
    header = json.loads(body[:length])
    start, tensors = length, []
    try:
        for output in header["outputs"]:
            size = output.get("parameters", {}).get("binary_data_size")
            end = start if size is None else start + size
            if not start <= end <= len(body):
                raise ValueError(f"an output of {size} bytes, of which {len(body) - start} came")
            data = None if size is None else body[start:end]
            tensors.append(AnsweredTensor(output["name"], output["datatype"], tuple(output["shape"]), data))
            start = end
        if start != len(body):
            raise ValueError(f"{len(body) - start} bytes that belong to no output")
        return Answer(header["model_name"], header["model_version"], header.get("id", ""), tuple(tensors))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"JSON that is not an answer ({type(error).__name__}: {error})") from error


def check_answer(url: str, answer: Answer, request: Request, *, shared: bool) -> list[npt.NDArray[Any]]:
    """Return the outputs of a request in its order, as the answer holds them; none if they are in shared memory.

    Raises:
        ServerError: the answer belongs to another request or model, or has other outputs than were asked for.
    """
    for what, wanted, got in (("id", request.id, answer.id), ("model", request.model, answer.model)):
        if got != wanted:
            raise ServerError(f"{url}: expected an answer of {what} {wanted}, got {shown(repr(got))}")
    if not (isinstance(answer.version, str) and answer.version.isascii() and answer.version.isdecimal()):
        raise ServerError(f"{url}: expected an answer of a numbered version, got {shown(repr(answer.version))}")
    found = {tensor.name: tensor for tensor in answer.tensors if isinstance(tensor.name, str)}
    wanted_names = [output.name for output in request.outputs]
    if len(answer.tensors) != len(wanted_names) or found.keys() != set(wanted_names):
        names = ", ".join(str(tensor.name) for tensor in answer.tensors) or "none"
        raise ServerError(f"{url}: expected the outputs {', '.join(wanted_names)}, got {shown(names)}")
    return [_values(url, found[output.name], output, shared=shared) for output in request.outputs]


def _values(url: str, tensor: AnsweredTensor, output: Output, *, shared: bool) -> npt.NDArray[Any]:
    expected = f"{url}: expected {output.name} {DATATYPES[np.dtype(output.dtype)]} {output.shape}"
    if (tensor.datatype, tensor.shape) != (DATATYPES[np.dtype(output.dtype)], output.shape):
        raise ServerError(f"{expected}, got {shown(f'{tensor.datatype} {tensor.shape}')}")
    if shared:
        if tensor.data:
            raise ServerError(f"{expected} in shared memory, got its values")
        return np.empty(0, output.dtype)
    if tensor.data is None or len(tensor.data) != output.num_bytes:
        got = "none" if tensor.data is None else len(tensor.data)
        raise ServerError(f"{expected} of {output.num_bytes} bytes, got {got}")
    return check_values(url, tensor.data, output)


def check_values(url: str, data: bytes, output: Output) -> npt.NDArray[Any]:
    """Return the values of an output.

    Raises:
        ServerError: a boolean is neither 0 nor 1.
    """
    if output.dtype is np.bool_ and max(data) > 1:
        raise ServerError(f"{url}: expected {output.name} BOOL of 0 and 1, got {max(data)}")
    return np.frombuffer(data, output.dtype).reshape(output.shape)
