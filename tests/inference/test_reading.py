from __future__ import annotations

import os
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bmrl.errors import DTypeError, ImageError, MissingFileError, RangeError
from bmrl.inference.reading import read_batches


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


def test_a_batch_may_be_larger_than_any_list():
    (batch,) = read_batches([1, 2], 2, 10**30, read=read)
    assert batch.sources == [1, 2]


def test_rejects_batch_size():
    with pytest.raises(RangeError, match=r"batch_size: expected an integer >= 1, got 0"):
        next(read_batches([1], 2, 0, read=read))
    with pytest.raises(DTypeError, match=r"batch_size: expected an integer >= 1, got 1\.5"):
        next(read_batches([1], 2, 1.5, read=read))


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(36, "File name too long"), UnicodeEncodeError("a", "b", 0, 1, "c")]
)
def test_an_error_of_another_kind_costs_one_answer(error):
    def broken(source, image_size):
        if source == 2:
            raise error
        return read(source, image_size)

    (batch,) = read_batches([1, 2, 3], 2, 4, read=broken)
    assert [type(item) for item in batch.items] == [int, ImageError, int]
    assert batch.images.unique().tolist() == [1, 3]
    assert str(batch.items[1]).startswith("image: expected a readable one, got: ")


def test_any_path_is_an_error_of_its_own(tmp_path):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    names = ["a.png", "n" * 300, "folder.png", "a\0", "\ud800", "pipe.png", "none.png", "a.png/b.png", ""]
    (batch,) = read_batches([str(tmp_path / name) for name in names], 2, 20)
    assert [isinstance(item, int) for item in batch.items] == [True] + [False] * 8
