"""Attribution by a model that a Triton server holds: the same answers as a local :class:`~bmrl.Attributor` gives."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch

from bmrl.errors import DTypeError, RangeError
from bmrl.export.triton.client.blocking import TritonClient
from bmrl.inference.attribution import Attribution, attributions_from_probabilities
from bmrl.inference.checks import check_rate
from bmrl.inference.limits import Limits
from bmrl.inference.reading import name_images, read_batches, read_named

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bmrl.errors import ImageError, MissingFileError

__all__ = ["attribute_remotely", "connect"]

ADDRESS = re.compile(r"((?P<scheme>grpc|http)://)?(?P<address>(\[[\da-fA-F:.]+\]|[^][:/?#@\s]+):\d{1,5})/?")


def connect(server: str) -> TritonClient:
    """Return a client of a server named as on the command line.

    Args:
        server: ``host:port`` (of the port for gRPC), ``grpc://host:port`` or ``http://host:port``.

    Raises:
        RangeError: ``server`` is something else.
        MissingExtraError: tritonclient is not installed.
    """
    if not isinstance(server, str):
        raise DTypeError(f"server: expected text, got {type(server).__name__}")
    match = ADDRESS.fullmatch(server)
    if match is None:
        raise RangeError(f"server: expected host:port, grpc://host:port or http://host:port, got {server!r}")
    return TritonClient(match["address"], "http" if match["scheme"] == "http" else "grpc")


def attribute_remotely(
    client: TritonClient, images: Iterable[Any], *, threshold: float | None = None
) -> Iterator[Attribution | ImageError | MissingFileError]:
    """Return an iterator over the images in order: of each, its attribution or the error that reading it raised.

    Images are decoded and resized here, as :class:`~bmrl.Attributor` does, and sent as uint8 pixels.

    Args:
        client: connected to the server.
        images: each what :func:`bmrl.images.read_image` takes; or one path.
        threshold: the paper's rule: images whose maximum probability is below it are called unseen, 0 .. 1; None: the
            served model's limits.

    Raises:
        RangeError, DTypeError: the threshold is not a number in 0 .. 1.
        DTypeError: ``images`` is not a list of images.
        ServerError: (of the iterator) the server does not answer, or answers with an error.
    """
    if threshold is not None:
        check_rate("threshold", threshold)
    return _answers(client, name_images(images), threshold)


def _answers(
    client: TritonClient, named: Iterator[tuple[Any, str]], threshold: float | None
) -> Iterator[Attribution | ImageError | MissingFileError]:
    served = client.model
    limits = served.limits if threshold is None else Limits.of_threshold(threshold)
    for batch in read_batches(named, served.image_size, served.max_batch_size, read=read_named):
        attributions: list[Attribution] = []
        if batch.images is not None:
            pairs = zip(batch.sources, batch.items, strict=True)
            names = [name for (_, name), item in pairs if isinstance(item, int)]
            answer = client.infer(batch.images)
            scores = torch.from_numpy(answer.score[:, 0]) if threshold is None else None
            attributions = attributions_from_probabilities(
                torch.from_numpy(answer.probabilities), served.generators, limits, names, scores=scores
            )
        yield from (attributions[item] if isinstance(item, int) else item for item in batch.items)
