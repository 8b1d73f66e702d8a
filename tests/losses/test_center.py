from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bmrl.errors import BMRLError, DTypeError, RangeError, ShapeError
from bmrl.losses import ContrastiveCenterLoss, contrastive_center_loss

EXAMPLES = settings(deadline=None, max_examples=40)

EMBEDDINGS = torch.zeros(4, 3)
LABELS = torch.tensor([0, 1, 1, 2])
CENTERS = torch.zeros(3, 3)


def oracle(embeddings, labels, centers, delta):
    """The formula of Qi & Su, summed over the batch, in Python floats."""
    total = 0.0
    for y, k in zip(embeddings.tolist(), labels.tolist(), strict=True):
        own, others = 0.0, delta
        for j, c in enumerate(centers.tolist()):
            square = sum((a - b) ** 2 for a, b in zip(y, c, strict=True))
            if j == k:
                own = square
            else:
                others += square
        total += 0.5 * own / others
    return total


@st.composite
def clusters(draw):
    """Embeddings, labels and centers in float64; on the grid, points and centers often coincide."""
    batch = draw(st.integers(1, 7))
    num_generators, dim = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    embeddings = torch.randn(batch, dim, generator=rng, dtype=torch.float64)
    centers = torch.randn(num_generators, dim, generator=rng, dtype=torch.float64)
    if draw(st.booleans()):
        embeddings, centers = embeddings.round(), centers.round()
    return embeddings, torch.randint(num_generators, (batch,), generator=rng), centers


@EXAMPLES
@given(clusters(), st.sampled_from([1.0, 0.01, 30.0]))
def test_equals_definition(tolerance, case, delta):
    expected = oracle(*case, delta)
    near = tolerance(torch.float64, 50)
    torch.testing.assert_close(contrastive_center_loss(*case, delta=delta).item(), expected, **near)
    mean = contrastive_center_loss(*case, delta=delta, reduction="mean").item()
    torch.testing.assert_close(mean, expected / len(case[0]), **near)
    single = contrastive_center_loss(*case, delta=delta, reduction="none")
    rows = [oracle(y[None], k[None], case[2], delta) for y, k in zip(*case[:2], strict=True)]
    torch.testing.assert_close(single, torch.tensor(rows, dtype=torch.float64), **near)


def test_default_delta_is_one(tolerance):
    case = torch.randn(4, 3, dtype=torch.float64), LABELS, torch.randn(3, 3, dtype=torch.float64)
    torch.testing.assert_close(contrastive_center_loss(*case).item(), oracle(*case, 1.0), **tolerance(torch.float64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("autocast", [False, True])
def test_dtypes(tolerance, dtype, autocast):
    rng = torch.Generator().manual_seed(1)
    y = torch.randn(4, 5, generator=rng).to(dtype).requires_grad_()
    c = torch.randn(3, 5, generator=rng).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = contrastive_center_loss(y, LABELS, c)
    loss.backward()
    assert loss.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(loss.item(), oracle(y.detach(), LABELS, c.detach(), 1.0), **tolerance(dtype, 4))
    assert y.grad.dtype == c.grad.dtype == dtype
    assert y.grad.isfinite().all()
    assert c.grad.isfinite().all()


@pytest.mark.parametrize("scale", [1e-18, 1e-6, 1e6, 1e17])
def test_huge_and_tiny_scales(tolerance, scale):
    y, c = (torch.randn(rows, 3, requires_grad=True) for rows in (4, 3))
    loss = contrastive_center_loss(y * scale, LABELS, c * scale, delta=1.0)
    expected = oracle(y.detach().double() * scale, LABELS, c.detach().double() * scale, 1.0)
    torch.testing.assert_close(loss.item(), expected, rtol=1e-5, atol=0)
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, (y, c)))


def test_far_from_its_own_center_is_exact():
    # 1e4 from its own center and 1e-2 from the other: subtracting the own square from the sum would leave nothing.
    case = torch.tensor([[1e4, 0.0]]), torch.tensor([0]), torch.tensor([[0.0, 0.0], [1e4, 1e-2]])
    loss = contrastive_center_loss(*case, delta=1e-6).item()
    torch.testing.assert_close(loss, oracle(*case, 1e-6), rtol=1e-5, atol=0.0)


def test_gradcheck(differentiates_twice):
    y = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    c = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    for reduction in ("sum", "mean"):

        def loss(y, c, reduction=reduction):
            return contrastive_center_loss(y, LABELS, c, reduction=reduction)

        assert torch.autograd.gradcheck(loss, (y, c))
        if differentiates_twice:
            assert torch.autograd.gradgradcheck(loss, (y, c))


@EXAMPLES
@given(clusters(), st.randoms(use_true_random=False), st.sampled_from([-3.5, 0.0, 8.0]))
def test_order_numbering_and_translation_do_not_matter(tolerance, case, random, shift):
    y, labels, c = case
    order, new = list(range(len(y))), list(range(len(c)))
    random.shuffle(order)
    random.shuffle(new)
    renumbered = torch.empty_like(c)
    renumbered[new] = c
    moved = contrastive_center_loss(y[order] + shift, torch.tensor(new)[labels][order], renumbered + shift)
    torch.testing.assert_close(moved, contrastive_center_loss(y, labels, c), **tolerance(torch.float64, 1000))


@EXAMPLES
@given(clusters())
def test_not_negative_and_zero_at_the_own_center(case):
    y, labels, c = case
    assert contrastive_center_loss(y, labels, c).item() >= 0
    assert contrastive_center_loss(c[labels], labels, c).item() == 0


def test_edge_cases_have_finite_gradients():
    y, c = torch.ones(4, 3, requires_grad=True), torch.ones(3, 3, requires_grad=True)  # all coincide
    assert all((grad == 0).all() for grad in torch.autograd.grad(contrastive_center_loss(y, LABELS, c), (y, c)))
    c = torch.tensor([[3.0, 0.0]], requires_grad=True)  # one sample, one generator: nothing to be far from
    loss = contrastive_center_loss(torch.zeros(1, 2), torch.tensor([0]), c)
    assert loss.item() == 4.5
    loss.backward()
    assert c.grad.tolist() == [[3.0, 0.0]]


def test_absent_generators_are_pushed_away():
    y, c = torch.zeros(1, 2), torch.tensor([[1.0, 0.0], [0.0, 2.0]], requires_grad=True)
    contrastive_center_loss(y, torch.tensor([0]), c).backward()
    assert c.grad[1, 1] < 0


def test_compiles_without_graph_breaks(tolerance):
    loss, y = ContrastiveCenterLoss(3, 5), torch.randn(4, 5)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")(y, LABELS)
    torch.testing.assert_close(compiled, loss(y, LABELS), **tolerance(torch.float32))
    (grad,) = torch.autograd.grad(compiled, loss.centers)
    expected = torch.autograd.grad(loss(y, LABELS), loss.centers)[0]
    torch.testing.assert_close(grad, expected, **tolerance(torch.float32))


def test_module_state_dict_and_deepcopy():
    loss, y = ContrastiveCenterLoss(3, 5, delta=2.0, reduction="mean"), torch.randn(4, 5)
    expected = contrastive_center_loss(y, LABELS, loss.centers, delta=2.0, reduction="mean")
    other = ContrastiveCenterLoss(3, 5, delta=2.0, reduction="mean", init="simplex")
    torch.testing.assert_close(other.centers.sum(-1), torch.ones(3))
    assert list(loss.state_dict()) == ["centers"]
    other.load_state_dict(loss.state_dict())
    assert torch.equal(loss(y, LABELS), expected)
    assert torch.equal(other(y, LABELS), expected)
    assert torch.equal(copy.deepcopy(loss)(y, LABELS), expected)
    assert repr(loss) == "ContrastiveCenterLoss(3, 5, delta=2.0, reduction='mean')"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((EMBEDDINGS[None], LABELS, CENTERS), ShapeError, "embeddings: expected shape (batch, dim), got (1, 4, 3)"),
        ((torch.zeros(4, 2), LABELS, CENTERS), ShapeError, "embeddings: expected dim = 3, got 2 (shape (4, 2))"),
        ((EMBEDDINGS[:0], LABELS[:0], CENTERS), ShapeError, "embeddings: expected batch >= 1, got 0 (shape (0, 3))"),
        ((EMBEDDINGS, LABELS[:3], CENTERS), ShapeError, "labels: expected batch = 4, got 3 (shape (3,))"),
        ((EMBEDDINGS, LABELS.float(), CENTERS), DTypeError, "labels: expected torch.int64, got torch.float32"),
        (
            (EMBEDDINGS, LABELS, CENTERS + 1e19),
            RangeError,
            "centers: expected a norm below 4.6e+18, whose square torch.float32 holds, got values to 1.0e+19",
        ),
        ((EMBEDDINGS, LABELS, CENTERS[:2]), RangeError, "labels: expected values in 0..1, got 0..2"),
    ],
)
def test_rejects(arguments, error, message):
    with pytest.raises(error) as caught:
        contrastive_center_loss(*arguments)
    assert str(caught.value) == message
    assert isinstance(caught.value, BMRLError)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delta": 0.0}, "delta: expected > 0, got 0.0"),
        ({"delta": math.nan}, "delta: expected > 0, got nan"),
        ({"reduction": "max"}, "reduction: expected 'mean' or 'sum' or 'none', got 'max'"),
    ],
)
def test_rejects_options(options, message):
    with pytest.raises(RangeError) as caught:
        contrastive_center_loss(EMBEDDINGS, LABELS, CENTERS, **options)
    assert str(caught.value) == message
    with pytest.raises(RangeError) as caught:
        ContrastiveCenterLoss(3, 3, **options)
    assert str(caught.value) == message
