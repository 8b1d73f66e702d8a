from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bmrl.errors import DTypeError, RangeError
from bmrl.inference import decide

weights = st.lists(st.integers(0, 4), min_size=3, max_size=3).filter(any)


@given(st.lists(weights, min_size=1, max_size=6), st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.75, 1.0]))
def test_equals_the_rule_in_plain_python(rows, threshold):
    """The first of the largest wins; seen is at or above the threshold."""
    rows = [[weight / sum(row) for weight in row] for row in rows]
    decided = decide(torch.tensor(rows, dtype=torch.float64))
    assert decided.labels.tolist() == [row.index(max(row)) for row in rows]
    assert decided.scores.tolist() == [max(row) for row in rows]
    assert decided.seen(threshold).tolist() == [max(row) >= threshold for row in rows]


def test_compares_in_float64_whatever_the_dtype():
    """0.7 rounded to float32 lies below 0.7, and that of float16 above it."""
    assert decide(torch.tensor([[0.7, 0.3]])).seen(0.7).tolist() == [False]
    assert decide(torch.tensor([[0.7, 0.3]], dtype=torch.float16)).seen(0.7).tolist() == [True]
    assert decide(torch.tensor([[0.7, 0.3]], dtype=torch.float64)).seen(0.7).tolist() == [True]


def test_returns_plain_tensors_on_the_cpu():
    rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), requires_grad=True).softmax(dim=1)
    decided = decide(rows)
    assert decided.scores.dtype == torch.float64
    assert decided.labels.dtype == torch.int64
    assert not decided.scores.requires_grad


def test_rejects():
    with pytest.raises(RangeError, match=r"^probabilities: expected .*, got row 0 with"):
        decide([[0.5, 0.6]])
    with pytest.raises(DTypeError, match=r"^probabilities: expected .*, got torch.int64"):
        decide([[1, 0]])
    for threshold in (-0.1, 1.5, float("nan")):
        with pytest.raises(RangeError, match=r"^threshold: expected 0 .. 1, got"):
            decide([[1.0, 0.0]]).seen(threshold)
