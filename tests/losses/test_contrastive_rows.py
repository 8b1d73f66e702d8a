"""The contrastive loss of each row, of every combination of options, against a double loop in Python floats."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bmrl.losses import contrastive_loss


def cosines(visual, paired):
    def cosine(a, b):
        lengths = math.hypot(*a) * math.hypot(*b)
        return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0

    return [[cosine(a, b) for b in paired.tolist()] for a in visual.tolist()]


def oracle(visual, paired, temperature, labels=None, gate=None, mask=None):
    """Each row's loss by eq. 8-11: labels mean the targets of "same_label"."""
    batch = len(visual)
    kept = [u for u in range(batch) if mask is None or mask[u]]
    logits = [[value / temperature for value in row] for row in cosines(visual, paired)]
    if gate is not None:
        logits = [[logits[u][v] / (1 + math.exp(-gate[u][v])) for v in range(batch)] for u in range(batch)]
    losses = [0.0] * batch
    for u in kept:
        there = math.log(sum(math.exp(logits[u][v]) for v in kept))
        back = math.log(sum(math.exp(logits[v][u]) for v in kept))
        positives = [v for v in kept if (v == u if labels is None else labels[v] == labels[u])]
        for v in positives:
            losses[u] += (there - logits[u][v] + back - logits[v][u]) / (2 * len(positives))
    return torch.tensor(losses, dtype=torch.float64), max(len(kept), 1)


@st.composite
def cases(draw):
    """Rows that often repeat, few classes, and chunks whose border lies at, before or behind the batch's end."""
    batch, dim = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    visual, paired = (torch.randn(batch, dim, generator=rng, dtype=torch.float64) for _ in range(2))
    if draw(st.booleans()):
        visual, paired = visual.round(), paired.round()
    labels = torch.tensor(draw(st.lists(st.integers(0, 2), min_size=batch, max_size=batch)))
    mask = torch.tensor(draw(st.lists(st.booleans(), min_size=batch, max_size=batch)))
    gate = torch.randn(batch + 2, batch + 1, generator=rng, dtype=torch.float64)
    options = {
        "temperature": draw(st.sampled_from([0.07, 0.5, 1.0])),
        "mask": mask if draw(st.booleans()) else None,
        "gate": gate if draw(st.booleans()) else None,
    }
    return visual, paired, labels, options, draw(st.sampled_from(["diagonal", "same_label"]))


@settings(deadline=None, max_examples=150)
@given(cases(), st.integers(1, 11), st.sampled_from(["mean", "sum", "none"]))
def test_every_combination_equals_the_double_loop(case, chunk_rows, reduction):
    visual, paired, labels, options, targets = case
    rows, count = oracle(visual, paired, labels=labels.tolist() if targets == "same_label" else None, **options)
    expected = {"mean": rows.sum() / count, "sum": rows.sum(), "none": rows}[reduction]
    got = contrastive_loss(
        visual, paired, labels, targets=targets, reduction=reduction, chunk_rows=chunk_rows, **options
    )
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@settings(deadline=None, max_examples=60)
@given(cases(), st.integers(1, 11))
def test_each_row_s_gradient_in_chunks_is_that_of_the_dense_form(case, chunk_rows):
    visual, paired, labels, options, targets = case
    gate = None if options["gate"] is None else options["gate"].clone().requires_grad_()
    leaves = [tensor.clone().requires_grad_() for tensor in (visual, paired)] + ([] if gate is None else [gate])
    slopes = torch.linspace(-1, 2, len(visual), dtype=torch.float64)

    def gradients(size):
        options["gate"] = gate
        rows = contrastive_loss(*leaves[:2], labels, targets=targets, reduction="none", chunk_rows=size, **options)
        return torch.autograd.grad(rows @ slopes, leaves)

    torch.testing.assert_close(gradients(chunk_rows), gradients(len(visual)), rtol=1e-9, atol=1e-9)


def test_the_two_directions_have_positives_of_their_own():
    visual, paired = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    options = {"temperature": 1.0, "targets": "same_label", "reduction": "none"}
    for chunk_rows in (None, 1, 2):
        loss = contrastive_loss(visual, paired, torch.zeros(2, dtype=torch.int64), chunk_rows=chunk_rows, **options)
        torch.testing.assert_close(loss, torch.tensor([0.7585, 0.7238]), rtol=0, atol=5e-5)


@pytest.mark.parametrize("batch", [1024, 1025])
def test_rows_of_large_batches_by_default(batch):
    rng = torch.Generator().manual_seed(batch)
    visual, paired = (torch.randn(batch, 3, generator=rng, dtype=torch.float64) for _ in range(2))
    labels = torch.arange(batch) % 5
    options = {"targets": "same_label", "reduction": "none", "temperature": 0.5}
    got = contrastive_loss(visual, paired, labels, **options)
    logits = torch.nn.functional.normalize(visual) @ torch.nn.functional.normalize(paired).mT / 0.5
    target = (labels[:, None] == labels).double()
    target = target / target.sum(1, keepdim=True)
    expected = (logits.logsumexp(1) - (target * logits).sum(1) + logits.logsumexp(0) - (target * logits).sum(0)) / 2
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
