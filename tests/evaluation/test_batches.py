from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bmrl.errors import DTypeError, ImageError, MissingFileError, RangeError
from bmrl.evaluation._batches import read_batches


def read(source, image_size):
    """An image whose pixels all hold the source's number; multiples of 5 can't be read, of 7 do not exist."""
    if source % 5 == 0:
        raise ImageError(f"{source}: damaged")
    if source % 7 == 0:
        raise MissingFileError(f"{source}: missing")
    return torch.full((3, image_size, image_size), source, dtype=torch.uint8)


@given(st.lists(st.integers(1, 255), max_size=30), st.integers(1, 9))
def test_every_source_once_in_order(sources, batch_size):
    batches = list(read_batches(iter(sources), 2, batch_size, read=read))
    assert [source for batch in batches for source in batch.sources] == sources
    assert all(len(batch.sources) == batch_size for batch in batches[:-1])
    for batch in batches:
        readable = [source for source in batch.sources if source % 5 and source % 7]
        assert (batch.images is None) == (not readable)
        for source, item in zip(batch.sources, batch.items, strict=True):
            if source % 5 == 0:
                assert type(item) is ImageError
                assert str(item) == f"{source}: damaged"
            elif source % 7 == 0:
                assert type(item) is MissingFileError
            else:
                assert batch.images.shape == (len(readable), 3, 2, 2)
                assert (batch.images[item] == source).all()


def test_holds_two_batches_at_most():
    taken = []

    def sources():
        for source in range(1, 1000):
            taken.append(source)
            yield 1

    batches = read_batches(sources(), 2, 4, read=read)
    next(batches)
    next(batches)
    assert len(taken) == 12  # two given out, one read ahead
    batches.close()
    assert len(taken) == 12


def test_other_errors_come_through_and_leave_no_thread():
    before = threading.active_count()

    def broken(source, image_size):
        raise DTypeError("source: expected a path, got int")

    with pytest.raises(DTypeError, match=r"source: expected a path, got int"):
        list(read_batches([1, 2, 3], 2, 2, read=broken))
    assert threading.active_count() == before


def test_rejects_batch_size():
    with pytest.raises(RangeError, match=r"batch_size: expected > 0, got 0"):
        next(read_batches([1], 2, 0, read=read))
