from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bmrl.losses._distances import distances_between, distances_to_own, distances_within


@st.composite
def points(draw, most=6):
    """Points in float64; on the grid, some coincide."""
    shape = draw(st.integers(1, most)), draw(st.integers(1, 4))
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    found = torch.randn(*shape, generator=rng, dtype=torch.float64)
    return found.round() if draw(st.booleans()) else found


def assert_equal(actual, expected):
    torch.testing.assert_close(
        actual, torch.tensor(expected, dtype=torch.float64).view(actual.shape), rtol=1e-14, atol=0
    )


@given(points())
def test_within_stand_row_by_row(case):
    rows = case.tolist()
    expected = [math.dist(rows[u], rows[v]) for u in range(len(rows)) for v in range(u + 1, len(rows))]
    assert_equal(distances_within(case), expected)


@given(points(), st.integers(0, 4))
def test_between(case, num_others):
    others = torch.randn(num_others, case.shape[1], dtype=torch.float64).round()
    expected = [[math.dist(one, other) for other in others.tolist()] for one in case.tolist()]
    found = distances_between(case, others)
    assert found.shape == (len(case), num_others)
    assert_equal(found, expected)


@given(points(), st.data())
def test_to_own(case, data):
    centers = torch.randn(3, case.shape[1], dtype=torch.float64).round()
    labels = data.draw(st.lists(st.integers(0, 2), min_size=len(case), max_size=len(case)))
    expected = [math.dist(row, centers[label].tolist()) for row, label in zip(case.tolist(), labels, strict=True)]
    assert_equal(distances_to_own(case, centers, torch.tensor(labels)), expected)


@pytest.mark.parametrize("step", [1e-2, 1e-4, 1e-5])
def test_near_duplicates_are_exact_in_float32(step):
    # Of unit length and a step apart: the matrix-product form is several times off at 1e-4.
    first = torch.nn.functional.normalize(torch.randn(30, 512), dim=-1)
    second = first + step * torch.nn.functional.normalize(torch.randn(30, 512), dim=-1)
    exact = [math.dist(a, b) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    wanted = torch.tensor(exact, dtype=torch.float64)
    both = torch.cat([first, second])
    places = torch.triu_indices(60, 60, 1)
    partners = (places[1] - places[0] == 30).nonzero().squeeze(1)
    for found in (
        distances_within(both)[partners],
        distances_between(first, second).diagonal(),
        distances_to_own(first, second, torch.arange(30)),
    ):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=0)


def test_gradients(differentiates_twice):
    rows = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    centers = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 1, 0, 0])
    assert torch.autograd.gradcheck(distances_within, (rows,))
    assert torch.autograd.gradcheck(lambda y, c: distances_to_own(y, c, labels), (rows, centers))
    assert torch.autograd.gradgradcheck(lambda y, c: distances_to_own(y, c, labels), (rows, centers))
    weighted = distances_within(rows) @ torch.randn(10, dtype=torch.float64)
    once, to_differentiate = (
        torch.autograd.grad(weighted, rows, create_graph=create_graph, retain_graph=True)[0]
        for create_graph in (False, True)
    )
    torch.testing.assert_close(to_differentiate, once)  # two ways to compute it
    if differentiates_twice:
        assert torch.autograd.gradgradcheck(distances_within, (rows,))


@pytest.mark.parametrize("chunk", [None, 1])
def test_batches_of_batches(chunk):
    rows = torch.randn(3, 5, 2)
    centers, labels = torch.randn(2, 2), torch.tensor([0, 1, 1, 0, 0])

    def value(points):
        return distances_within(points).sum() + distances_to_own(points, centers, labels).sum()

    together = torch.func.vmap(torch.func.grad(value), chunk_size=chunk)(rows)
    torch.testing.assert_close(together, torch.stack([torch.func.grad(value)(one) for one in rows]))
