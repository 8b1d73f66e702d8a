from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bmrl.errors import BMRLError, DTypeError, RangeError, ShapeError
from bmrl.losses import LanguageAlignmentLoss, language_alignment_loss

EXAMPLES = settings(deadline=None, max_examples=40)


def oracle(first, second):
    """Mean of KL(softmax(first) || softmax(second)) over rows, in Python floats."""
    total = 0.0
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        norm_a, norm_b = sum(map(math.exp, a)), sum(map(math.exp, b))
        for x, y in zip(a, b, strict=True):
            p, q = math.exp(x) / norm_a, math.exp(y) / norm_b
            total += p * math.log(p / q)
    return total / len(first)


@st.composite
def pairs(draw):
    """Two float64 batches of one shape; sometimes some rows are equal."""
    shape = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    first, second = (3 * torch.randn(*shape, generator=rng, dtype=torch.float64) for _ in range(2))
    if draw(st.booleans()):
        second[0] = first[0]
    return first, second


@EXAMPLES
@given(pairs())
def test_equals_definition(tolerance, case):
    language, predicted = case
    near = tolerance(torch.float64, 10)
    torch.testing.assert_close(language_alignment_loss(*case).item(), oracle(language, predicted), **near)
    reverse = language_alignment_loss(*case, direction="reverse").item()
    torch.testing.assert_close(reverse, oracle(predicted, language), **near)


@EXAMPLES
@given(pairs(), st.sampled_from(["forward", "reverse"]))
def test_reductions_equal_definition(tolerance, case, direction):
    language, predicted = case
    ordered = (language, predicted) if direction == "forward" else (predicted, language)
    rows = [oracle(a[None], b[None]) for a, b in zip(*ordered, strict=True)]
    near = tolerance(torch.float64, 10)
    for reduction, expected in (("none", rows), ("sum", math.fsum(rows)), ("mean", math.fsum(rows) / len(rows))):
        loss = LanguageAlignmentLoss(direction=direction, reduction=reduction)(language, predicted)
        torch.testing.assert_close(loss, torch.tensor(expected, dtype=torch.float64), **near)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("autocast", [False, True])
def test_dtypes(tolerance, dtype, autocast):
    rng = torch.Generator().manual_seed(1)
    language, predicted = ((torch.randn(4, 7, generator=rng)).to(dtype).requires_grad_() for _ in range(2))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = language_alignment_loss(language, predicted)
    loss.backward()
    assert loss.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(loss.item(), oracle(language.detach(), predicted.detach()), **tolerance(dtype, 4))
    assert language.grad.dtype == predicted.grad.dtype == dtype


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_gradcheck(direction):
    first, second = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def loss(first, second):
        return language_alignment_loss(first, second, direction=direction)

    assert torch.autograd.gradcheck(loss, (first, second))
    assert torch.autograd.gradgradcheck(loss, (first, second))


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_detach_stops_at_the_language_embeddings(direction):
    language, predicted = (torch.randn(3, 4, requires_grad=True) for _ in range(2))
    loss = language_alignment_loss(language, predicted, direction=direction, detach=True)
    stopped, moved = torch.autograd.grad(loss, (language, predicted), allow_unused=True)
    assert stopped is None
    free = language_alignment_loss(language, predicted, direction=direction)
    torch.testing.assert_close(free, loss)
    torch.testing.assert_close(torch.autograd.grad(free, predicted)[0], moved)


@EXAMPLES
@given(pairs(), st.randoms(use_true_random=False), st.floats(-50, 50))
def test_order_of_rows_and_shifts_do_not_matter(tolerance, case, random, shift):
    language, predicted = case
    order = list(range(len(language)))
    random.shuffle(order)
    moved = language_alignment_loss(language[order] + shift, predicted[order] - shift)
    torch.testing.assert_close(moved, language_alignment_loss(*case), **tolerance(torch.float64, 100))


@EXAMPLES
@given(pairs())
def test_not_negative_and_zero_between_equals(case):
    assert language_alignment_loss(*case).item() >= -1e-12
    assert language_alignment_loss(case[0], case[0]).item() == 0


def test_extreme_embeddings_stay_finite():
    language = torch.tensor([[1e4, 0.0], [0.0, 0.0]], requires_grad=True)
    predicted = torch.tensor([[0.0, 1e4], [0.0, 0.0]], requires_grad=True)
    loss = language_alignment_loss(language, predicted)
    assert loss.item() == 5000
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(loss, (language, predicted)))


def test_compiles_without_graph_breaks(tolerance):
    loss, first = LanguageAlignmentLoss(), torch.randn(3, 4, requires_grad=True)
    second = torch.randn(3, 4)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")(first, second)
    torch.testing.assert_close(compiled, loss(first, second), **tolerance(torch.float32))
    (grad,) = torch.autograd.grad(compiled, first)
    expected = torch.autograd.grad(loss(first, second), first)[0]
    torch.testing.assert_close(grad, expected, **tolerance(torch.float32))


def test_module_calls_the_function():
    language, predicted = (torch.randn(3, 4, requires_grad=True) for _ in range(2))
    loss = LanguageAlignmentLoss(direction="reverse", detach=True)
    value = copy.deepcopy(loss)(language, predicted)
    assert torch.equal(value, language_alignment_loss(language, predicted, direction="reverse"))
    assert torch.autograd.grad(value, language, allow_unused=True) == (None,)
    assert loss.state_dict() == {}
    assert repr(loss) == "LanguageAlignmentLoss(direction='reverse', detach=True)"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (((4,), (4, 3)), ShapeError, "language_embeddings: expected shape (batch, dim), got (4,)"),
        (((0, 3), (0, 3)), ShapeError, "language_embeddings: expected batch >= 1, got 0 (shape (0, 3))"),
        (((4, 3), (4,)), ShapeError, "predicted_embeddings: expected shape (batch, dim), got (4,)"),
        (
            ((4, 3), (4, 2)),
            ShapeError,
            "predicted_embeddings: expected the shape of language_embeddings (4, 3), got (4, 2)",
        ),
    ],
)
def test_rejects_shapes(arguments, error, message):
    with pytest.raises(error) as caught:
        language_alignment_loss(*map(torch.zeros, arguments))
    assert str(caught.value) == message
    assert isinstance(caught.value, BMRLError)


def test_rejects_dtypes_and_options():
    rows = torch.zeros(2, 3)
    with pytest.raises(DTypeError, match=r"^predicted_embeddings: expected a floating-point dtype, got torch.int64$"):
        language_alignment_loss(rows, rows.long())
    message = r"^direction: expected 'forward' or 'reverse', got 'both'$"
    with pytest.raises(RangeError, match=message):
        language_alignment_loss(rows, rows, direction="both")
    with pytest.raises(RangeError, match=message):
        LanguageAlignmentLoss(direction="both")
    message = r"^reduction: expected 'mean' or 'sum' or 'none', got 'batchmean'$"
    with pytest.raises(RangeError, match=message):
        language_alignment_loss(rows, rows, reduction="batchmean")
    with pytest.raises(RangeError, match=message):
        LanguageAlignmentLoss(reduction="batchmean")
