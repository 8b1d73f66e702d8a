"""Reading images in batches, ahead of the model, in a constant amount of memory."""

from __future__ import annotations

import os
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from bmrl._checks import check_integer
from bmrl._text import one_line
from bmrl.errors import BMRLError, DTypeError, ImageError, MissingFileError
from bmrl.images import read_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

__all__ = ["Batch", "name_images", "read_batches", "read_named"]

MAX_READERS = 8  # threads; decoding releases the interpreter lock


class Batch(NamedTuple):
    """What was read for a few sources.

    Attributes:
        sources: what was to be read.
        items: one entry per source: its row in ``images``, or the error that reading it raised.
        images: uint8 ``(readable sources, 3, S, S)``; None when there is none.
    """

    sources: list[Any]
    items: list[int | ImageError | MissingFileError]
    images: Tensor | None


def read_batches(
    sources: Iterable[Any],
    image_size: int,
    batch_size: int,
    *,
    read: Callable[[Any, int], Tensor] = read_image,
) -> Iterator[Batch]:
    """Yield a :class:`Batch` for every ``batch_size`` sources, reading the next one while this one is used.

    Args:
        sources: what ``read`` takes; may be a generator of any length, of which two batches are held at a time.
        image_size: side S of the images in pixels.
        batch_size: sources per batch, >= 1.
        read: turns a source and S into uint8 ``(3, S, S)``; called from several threads at once.

    Yields:
        One :class:`Batch` after the other; together they hold every source once, in order. An image that can't be read
        costs only its own answer: its error is in ``items``.

    Raises:
        RangeError, DTypeError: ``batch_size`` is not positive, or not an integer. Errors of bmrl that say nothing about
            an image, such as that a source is not a path, come through as ``read`` raises them.
    """
    check_integer("batch_size", batch_size, least=1)
    iterator = iter(sources)
    pending: deque[tuple[list[Any], list[Future[Tensor]]]] = deque()
    with ThreadPoolExecutor(min(MAX_READERS, os.cpu_count() or 1)) as pool:
        try:
            while True:
                chunk = list(islice(iterator, min(batch_size, sys.maxsize)))
                if chunk:
                    pending.append((chunk, [pool.submit(read, source, image_size) for source in chunk]))
                if len(pending) > 1 or (pending and not chunk):
                    yield _collect(*pending.popleft())
                elif not chunk:
                    return
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _collect(sources: list[Any], futures: list[Future[Tensor]]) -> Batch:
    items: list[int | ImageError | MissingFileError] = []
    images: list[Tensor] = []
    for future in futures:
        try:
            images.append(future.result())
            items.append(len(images) - 1)
        except (ImageError, MissingFileError) as error:
            items.append(error)
        except BMRLError:
            raise
        except Exception as error:  # out of memory, or the caller's own file object: no reason to lose the others
            items.append(ImageError(f"image: expected a readable one, got: {one_line(error)}"))
    return Batch(sources, items, torch.stack(images) if images else None)


def name_images(images: Iterable[Any] | str | os.PathLike[str]) -> Iterator[tuple[Any, str]]:
    """Return pairs of an image and its name: the path, that of the file it was opened from, or ``image <index>``.

    Raises:
        DTypeError: ``images`` is neither one path nor an iterable of images.
    """
    if isinstance(images, str | os.PathLike):
        images = [images]
    elif isinstance(images, bytes | bytearray) or hasattr(images, "read") or not hasattr(images, "__iter__"):
        raise DTypeError(f"images: expected a list of images or one path, got {type(images).__name__}")
    return ((source, _name(source, index)) for index, source in enumerate(images))


def read_named(source: tuple[Any, str], image_size: int) -> Tensor:
    """Read an image that an error is to call by its name."""
    return read_image(source[0], image_size, name=source[1])


def _name(source: Any, index: int) -> str:
    for candidate in (source, getattr(source, "filename", None), getattr(source, "name", None)):
        if isinstance(candidate, str | os.PathLike) and os.fspath(candidate):
            return os.fsdecode(candidate)
    return f"image {index}"
