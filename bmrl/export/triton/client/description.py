"""A server's description of its model, and what is checked before a client relies on it."""

from __future__ import annotations

from typing import Any

from bmrl._checks import check_integer, check_number
from bmrl._text import shown
from bmrl.errors import BMRLError, RangeError, ServerError
from bmrl.export.artifact import MAX_BATCH
from bmrl.export.triton.contract import ServedModel, import_tritonclient

__all__ = ["read_description"]

MOST_TEXT = 2 * 2**20
"""Characters of a parameter: some ten thousand classes."""
WIDEST = 65536
"""Largest number of classes, and width of the embedding."""
LARGEST_SIDE = 16384
"""Largest ``image_size``; an image is resized to it before it is sent."""


def read_description(url: str, name: str, answer: Any) -> ServedModel:
    """Return what a server says about a model, after checking that it fits together.

    Args:
        url: of the server.
        name: of the model.
        answer: to ``get_model_config``: tritonclient's message by gRPC, JSON by HTTP.

    Raises:
        ServerError: it is not a description of a model that :func:`bmrl.export.write_triton_repository` wrote.
    """
    config = _message(url, answer)
    if config.name != name:
        raise ServerError(f"{url}: expected the configuration of {name}, got that of {shown(config.name)!r}")
    if any(len(parameter.string_value) > MOST_TEXT for parameter in config.parameters.values()):
        raise ServerError(f"{url}: expected parameters of at most {MOST_TEXT} characters, got more")
    served = ServedModel.from_config(config)
    try:
        _check(served, config)
    except BMRLError as error:
        raise ServerError(f"{url}: expected a description of a model, got one with {shown(error)}") from error
    return served


def _message(url: str, answer: Any) -> Any:
    if hasattr(answer, "config"):
        return answer.config
    from google.protobuf import json_format

    messages = import_tritonclient("grpc.model_config_pb2")
    try:
        return json_format.ParseDict(answer, messages.ModelConfig(), ignore_unknown_fields=True)
    except Exception as error:  # protobuf raises many kinds at JSON that is not a configuration
        raise ServerError(f"{url}: expected a model configuration, got {shown(error)}") from error


def _check(served: ServedModel, config: Any) -> None:
    names = served.labels
    for name in names:
        if not name.isprintable():
            raise RangeError(f"generators: expected names that can be printed, got {name!r}")
    if not 1 <= len(names) <= WIDEST or len(set(names)) != len(names):
        raise RangeError(
            f"generators: expected one or more different names, got {len(names)}, {len(set(names))} different"
        )
    check_integer("image_size", served.image_size, least=1, most=LARGEST_SIDE)
    check_integer("embed_dim", served.embed_dim, least=1, most=WIDEST)
    check_integer("max_batch_size", served.max_batch_size, least=1, most=MAX_BATCH)
    if not served.thresholds:
        raise RangeError("thresholds: expected one or more, got none")
    for threshold in served.thresholds:
        check_number("thresholds", threshold)
        if not 0 < threshold < 1:
            raise RangeError(f"thresholds: expected numbers between 0 and 1, got {threshold}")
    tensors = [(entry.data_type, list(entry.dims)) for entry in (*config.input, *config.output)]
    side, width = served.image_size, served.embed_dim
    types = import_tritonclient("grpc.model_config_pb2").DataType
    expected = [
        (types.Value("TYPE_UINT8"), [3, side, side]),
        (types.Value("TYPE_FP32"), [len(names)]),
        (types.Value("TYPE_FP32"), [width]),
        (types.Value("TYPE_FP32"), [1]),
    ]
    if tensors != expected or len({*served.tensors, ""}) != 5:
        raise RangeError(
            "input and output: expected images, probabilities, embedding and score of these sizes, got others"
        )
