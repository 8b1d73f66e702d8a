"""How many rows of pairs are held at once: the batch sizes that the documentation names, and all rows once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bmrl.losses import contrastive_loss, dfacc_terms
from bmrl.losses._chunks import chunks, rows_per_chunk


@given(st.integers(1, 200), st.integers(1, 250))
def test_chunks_hold_every_row_once_and_none_too_many(batch, size):
    parts = [list(range(batch))[part] for part in chunks(batch, size)]
    assert [row for part in parts for row in part] == list(range(batch))
    assert all(1 <= len(part) <= size for part in parts)


@pytest.mark.parametrize(
    ("chosen", "batch", "expected"),
    [(None, 1, 1), (None, 1024, 1024), (None, 1025, 512), (3, 1024, 3), (3, 2, 2), (3, 3, 3), (2000, 1500, 1500)],
)
def test_rows_per_chunk(chosen, batch, expected):
    assert rows_per_chunk(chosen, batch, of_large=512) == expected


def test_a_chunk_has_a_row_however_large_the_batch():
    assert rows_per_chunk(None, 2**21, of_large=0) == 1


@pytest.mark.parametrize("batch", [1024, 1025])
@pytest.mark.parametrize(
    "loss",
    [
        lambda rows: contrastive_loss(rows, rows.detach().flip(0)),
        lambda rows: dfacc_terms(rows, torch.arange(len(rows)) % 2, torch.eye(2, 3)).inter,
    ],
    ids=["contrastive", "dfacc"],
)
def test_the_dense_form_ends_at_1024_rows(differentiates_twice, loss, batch):
    rows = torch.randn(batch, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(rows), rows, create_graph=True)
    if batch > 1024:
        with pytest.raises(RuntimeError, match=r"^chunk_rows: "):
            gradient.sum().backward()
    elif differentiates_twice:
        rows.grad = None
        gradient.square().sum().backward()
        assert rows.grad.isfinite().all()
