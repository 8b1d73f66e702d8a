from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bmrl.errors import BMRLError, DTypeError, RangeError, ShapeError
from bmrl.losses import DFACCLoss, dfacc_loss, dfacc_terms

EXAMPLES = settings(deadline=None, max_examples=40)

EMBEDDINGS = torch.zeros(4, 3)
LABELS = torch.tensor([0, 1, 1, 2])
CENTERS = torch.zeros(3, 3)


def oracle(embeddings, labels, centers, margin):
    """Eq. 4-7, sample by sample and pair by pair, in Python floats."""
    y, k, c = embeddings.tolist(), labels.tolist(), centers.tolist()
    b = len(y)
    intra = 0.0
    for u in range(b):
        intra += math.dist(y[u], c[k[u]]) / b
    inter = 0.0
    for u in range(b):
        for v in range(u + 1, b):
            if k[u] == k[v]:
                continue
            distance = math.dist(y[u], y[v])
            if math.dist(c[k[u]], c[k[v]]) < margin:
                inter += max(distance - margin, 0.0)
            else:
                inter -= distance
    return intra, (2 / (b * (b - 1)) * inter if b > 1 else 0.0)


@st.composite
def clusters(draw, min_batch=1):
    """Embeddings, labels, centers and a margin, in float64; on the grid, points and centers often coincide."""
    batch = draw(st.integers(min_batch, 7))
    num_generators, dim = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    embeddings = torch.randn(batch, dim, generator=rng, dtype=torch.float64)
    centers = torch.randn(num_generators, dim, generator=rng, dtype=torch.float64)
    if draw(st.booleans()):
        embeddings, centers = embeddings.round(), centers.round()
    labels = torch.randint(num_generators, (batch,), generator=rng)
    return embeddings, labels, centers, draw(st.sampled_from([0.0, 0.7, 1.3, 2.6, 50.5]))


@EXAMPLES
@given(clusters())
def test_terms_equal_definition(tolerance, case):
    embeddings, labels, centers, margin = case
    intra, inter = oracle(embeddings, labels, centers, margin)
    terms = dfacc_terms(embeddings, labels, centers, margin=margin)
    expected = torch.tensor([intra, inter], dtype=torch.float64)
    torch.testing.assert_close(torch.stack(list(terms)), expected, **tolerance(torch.float64, 50))


@EXAMPLES
@given(clusters(), st.sampled_from([0.0, 0.5, 2.0]))
def test_loss_weighs_the_terms(tolerance, case, inter_weight):
    embeddings, labels, centers, margin = case
    intra, inter = oracle(embeddings, labels, centers, margin)
    loss = dfacc_loss(embeddings, labels, centers, margin=margin, inter_weight=inter_weight)
    torch.testing.assert_close(loss.item(), intra + inter_weight * inter, **tolerance(torch.float64, 50))


def test_defaults_are_the_paper_s(tolerance):
    y = F.normalize(torch.randn(6, 4, dtype=torch.float64), dim=-1)
    labels, c = torch.tensor([0, 1, 2, 0, 1, 2]), 0.3 * torch.randn(3, 4, dtype=torch.float64)
    intra, inter = oracle(y, labels, c, 0.7)
    torch.testing.assert_close(dfacc_loss(y, labels, c).item(), intra + 0.5 * inter, **tolerance(torch.float64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("autocast", [False, True])
def test_dtypes(tolerance, dtype, autocast):
    rng = torch.Generator().manual_seed(1)
    y = torch.randn(8, 5, generator=rng).to(dtype).requires_grad_()
    c = torch.randn(3, 5, generator=rng).to(dtype).requires_grad_()
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = dfacc_loss(y, labels, c, margin=2.0)
    loss.backward()
    intra, inter = oracle(y.detach(), labels, c.detach(), 2.0)
    assert loss.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(loss.item(), intra + 0.5 * inter, **tolerance(dtype, 4))
    assert y.grad.dtype == c.grad.dtype == dtype
    assert y.grad.isfinite().all()
    assert c.grad.isfinite().all()


@EXAMPLES
@given(clusters(), st.integers(1, 8))
def test_chunks_equal_definition_and_the_gradient_of_the_dense_form(tolerance, case, chunk_rows):
    embeddings, labels, centers, margin = case
    leaves = embeddings.requires_grad_(), centers.requires_grad_()
    terms = dfacc_terms(*leaves[:1], labels, centers, margin=margin, chunk_rows=chunk_rows)
    expected = torch.tensor(oracle(embeddings, labels, centers, margin), dtype=torch.float64)
    torch.testing.assert_close(torch.stack(list(terms)), expected, **tolerance(torch.float64, 50))
    dense = dfacc_terms(*leaves[:1], labels, centers, margin=margin, chunk_rows=len(labels))
    for one, other in zip(terms, dense, strict=True):
        got = torch.autograd.grad(3 * one, leaves, allow_unused=True, retain_graph=True, materialize_grads=True)
        wanted = torch.autograd.grad(3 * other, leaves, allow_unused=True, retain_graph=True, materialize_grads=True)
        torch.testing.assert_close(got, wanted, **tolerance(torch.float64, 50))


def test_large_batches_are_cut_into_chunks(tolerance):
    rng = torch.Generator().manual_seed(0)
    embeddings = F.normalize(torch.randn(1500, 5, generator=rng), dim=-1).requires_grad_()
    embeddings.data[700] = embeddings.data[3] + 1e-4  # a near-duplicate
    labels = torch.arange(1500) % 4
    centers = F.normalize(torch.randn(4, 5, generator=rng), dim=-1) * 0.5
    results = [dfacc_loss(embeddings, labels, centers, chunk_rows=size) for size in (None, 1500)]
    torch.testing.assert_close(*results, **tolerance(torch.float32, 50))
    gradients = [torch.autograd.grad(result, embeddings)[0] for result in results]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-9)
    assert dfacc_loss(embeddings.detach(), labels, centers).item() == results[0].item()
    inter = dfacc_terms(embeddings, labels, centers).inter
    (gradient,) = torch.autograd.grad(inter, embeddings, create_graph=True)
    with pytest.raises(RuntimeError, match="chunk_rows"):  # so these are chunks
        gradient.sum().backward()


def test_chunks_have_no_second_derivative():
    def loss(embeddings):
        return dfacc_terms(embeddings, LABELS, CENTERS, chunk_rows=2).inter

    embeddings = torch.randn(4, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(embeddings), embeddings, create_graph=True)
    torch.testing.assert_close(torch.func.grad(loss)(embeddings.detach()), gradient)
    message = "chunk_rows: expected at least the batch for a second derivative"
    with pytest.raises(RuntimeError, match=message):
        gradient.square().sum().backward()
    with pytest.raises(RuntimeError, match=message):
        torch.func.grad(lambda points: torch.func.grad(loss)(points).square().sum())(embeddings.detach())


def test_chunks_compile_without_graph_breaks():
    embeddings, centers = torch.randn(9, 3, requires_grad=True), torch.randn(3, 3, requires_grad=True)
    labels = torch.arange(9) % 3
    results = [
        f(embeddings, labels, centers, chunk_rows=4) for f in (torch.compile(dfacc_loss, fullgraph=True), dfacc_loss)
    ]
    torch.testing.assert_close(*results)
    torch.testing.assert_close(*(torch.autograd.grad(result, (embeddings, centers)) for result in results))


def test_near_duplicates_are_exact():
    # 40 rows 1e-4 apart: the matrix-product form of a distance is several times off here.
    y = torch.ones(40, 64) + 1e-4 * F.one_hot(torch.arange(40), 64)
    labels, centers = torch.arange(40) % 2, torch.ones(2, 64)
    intra, inter = oracle(y, labels, centers, 0.0)
    terms = dfacc_terms(y, labels, centers, margin=0.0)
    torch.testing.assert_close(terms.intra.item(), intra, rtol=1e-5, atol=0.0)
    torch.testing.assert_close(terms.inter.item(), inter, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("margin", [0.0, 0.9, 30.0])
def test_gradcheck(margin, differentiates_twice):
    rng = torch.Generator().manual_seed(2)
    y = torch.randn(6, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    c = torch.randn(3, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 2, 1, 0])

    def loss(y, c):
        return dfacc_loss(y, labels, c, margin=margin)

    assert torch.autograd.gradcheck(loss, (y, c))
    if differentiates_twice:
        assert torch.autograd.gradgradcheck(loss, (y, c))


def test_centers_learn_from_intra_alone():
    y, c = torch.randn(6, 3), torch.randn(3, 3, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    y.requires_grad_()
    terms = dfacc_terms(y, labels, c, margin=1.0)
    assert torch.autograd.grad(terms.inter, c, allow_unused=True, retain_graph=True) == (None,)
    (from_intra,) = torch.autograd.grad(terms.intra, c, retain_graph=True)
    (from_both,) = torch.autograd.grad(terms.intra + 7 * terms.inter, c)
    assert from_intra.abs().sum() > 0
    torch.testing.assert_close(from_both, from_intra, rtol=0, atol=0)


def test_absent_generators_get_no_gradient():
    c = torch.randn(5, 3, requires_grad=True)
    dfacc_loss(torch.randn(4, 3), torch.tensor([1, 3, 3, 1]), c).backward()
    assert (c.grad.abs().sum(-1) > 0).tolist() == [False, True, False, True, False]


def test_coincident_points_get_zero_gradient(differentiates_twice):
    y, c = torch.ones(4, 3, requires_grad=True), torch.ones(3, 3, requires_grad=True)
    for margin in (0.0, 0.7):  # the pushing branch and the pulling one
        loss = dfacc_loss(y, LABELS, c, margin=margin)
        assert loss.item() == 0
        grads = torch.autograd.grad(loss, (y, c), create_graph=True)
        assert all((grad == 0).all() for grad in grads)
        if differentiates_twice:
            second = torch.autograd.grad(sum(grad.square().sum() for grad in grads), (y, c))
            assert all((grad == 0).all() for grad in second)


@pytest.mark.parametrize("scale", [1e-18, 1e-6, 1e6, 1e17])
@pytest.mark.parametrize("chunk_rows", [2, 4])
def test_huge_and_tiny_scales(tolerance, scale, chunk_rows):
    y, c = (torch.randn(rows, 3, requires_grad=True) for rows in (4, 3))
    loss = dfacc_loss(y * scale, LABELS, c * scale, margin=0.7 * scale, chunk_rows=chunk_rows)
    expected = oracle(y.detach().double() * scale, LABELS, c.detach().double() * scale, 0.7 * scale)
    torch.testing.assert_close(loss.item(), expected[0] + 0.5 * expected[1], rtol=1e-5, atol=1e-6 * scale)
    wanted = torch.autograd.grad(dfacc_loss(y, LABELS, c), (y, c))
    for one, other in zip(torch.autograd.grad(loss, (y, c)), wanted, strict=True):
        torch.testing.assert_close(one / scale, other, **tolerance(torch.float32, 4))


def test_duplicated_rows_move_as_one():
    y = torch.tensor([[0.0, 1.0], [0.0, 1.0], [2.0, 0.0]], requires_grad=True)
    centers = torch.tensor([[0.0, 0.0], [5.0, 5.0], [-5.0, 5.0]])
    dfacc_terms(y, torch.tensor([0, 1, 2]), centers).inter.backward()
    torch.testing.assert_close(y.grad[0], y.grad[1])
    assert y.grad[2] @ torch.tensor([2.0, -1.0]) < 0  # a descent step moves the third away from both


def test_single_sample_has_no_pairs():
    y = torch.tensor([[3.0, 4.0]], requires_grad=True)
    terms = dfacc_terms(y, torch.tensor([1]), torch.zeros(2, 2))
    assert (terms.intra.item(), terms.inter.item()) == (5.0, 0.0)
    terms.inter.backward()
    assert (y.grad == 0).all()


def test_one_class_has_no_inter_term():
    assert dfacc_terms(torch.randn(5, 3), torch.full((5,), 1), torch.randn(2, 3)).inter.item() == 0


def test_centers_exactly_a_margin_apart_are_unrelated():
    y, c = torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.0, 0.0], [0.5, 0.0]])
    labels = torch.tensor([0, 1])
    assert dfacc_terms(y, labels, c, margin=0.5).inter.item() == -5
    assert dfacc_terms(y, labels, c, margin=0.5625).inter.item() == 5 - 0.5625


@EXAMPLES
@given(clusters(), st.randoms(use_true_random=False))
def test_order_of_the_batch_does_not_matter(tolerance, case, random):
    y, labels, c, margin = case
    order = list(range(len(y)))
    random.shuffle(order)
    moved = dfacc_loss(y[order], labels[order], c, margin=margin)
    torch.testing.assert_close(moved, dfacc_loss(y, labels, c, margin=margin), **tolerance(torch.float64, 50))


@EXAMPLES
@given(clusters(), st.randoms(use_true_random=False))
def test_numbering_of_generators_does_not_matter(tolerance, case, random):
    y, labels, c, margin = case
    new = list(range(len(c)))
    random.shuffle(new)
    renumbered = torch.empty_like(c)
    renumbered[new] = c
    moved = dfacc_loss(y, torch.tensor(new)[labels], renumbered, margin=margin)
    torch.testing.assert_close(moved, dfacc_loss(y, labels, c, margin=margin), **tolerance(torch.float64, 50))


@EXAMPLES
@given(clusters(), st.sampled_from([-3.5, 0.25, 8.0]))
def test_translation_does_not_matter(tolerance, case, shift):
    y, labels, c, margin = case
    apart = torch.pdist(c)
    assume(((apart - margin).abs() > 1e-6).all() or margin == 0)  # a rounded distance may cross the margin
    moved = dfacc_loss(y + shift, labels, c + shift, margin=margin)
    torch.testing.assert_close(moved, dfacc_loss(y, labels, c, margin=margin), **tolerance(torch.float64, 200))


@EXAMPLES
@given(clusters(min_batch=2), st.floats(0.01, 5), st.floats(0.01, 5))
def test_related_generators_are_pulled_less_by_a_larger_margin(case, first, second):
    y, labels, c, _ = case
    together = torch.zeros_like(c)
    small, large = sorted((first, second))
    pull = [dfacc_terms(y, labels, together, margin=margin).inter.item() for margin in (small, large)]
    assert pull[0] >= pull[1] >= 0


@EXAMPLES
@given(clusters(min_batch=2), st.floats(0, 5), st.floats(0, 5))
def test_unrelated_generators_are_pushed_whatever_the_margin(case, first, second):
    y, labels, c, _ = case
    apart = torch.arange(len(c), dtype=torch.float64)[:, None].expand_as(c) * 10
    push = [dfacc_terms(y, labels, apart, margin=margin).inter.item() for margin in (first, second)]
    assert push[0] == push[1] <= 0


@EXAMPLES
@given(clusters(min_batch=2))
def test_normalized_embeddings_bound_the_loss(case):
    y, labels, c, margin = case
    y, c = F.normalize(y + 0.1, dim=-1), F.normalize(c + 0.1, dim=-1)
    assert -1 - 1e-9 <= dfacc_loss(y, labels, c, margin=margin).item() <= 3 + 1e-9


def test_inputs_are_left_alone():
    y, c = torch.randn(4, 3), torch.randn(3, 3)
    before = y.clone(), c.clone(), LABELS.clone()
    dfacc_loss(y, LABELS, c)
    assert all(torch.equal(old, new) for old, new in zip(before, (y, c, LABELS), strict=True))


def test_compiles_without_graph_breaks(tolerance):
    loss, y = DFACCLoss(3, 5), torch.randn(6, 5, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")(y, labels)
    torch.testing.assert_close(compiled, loss(y, labels), **tolerance(torch.float32))
    (grad,) = torch.autograd.grad(compiled, y)
    torch.testing.assert_close(grad, torch.autograd.grad(loss(y, labels), y)[0], **tolerance(torch.float32))


def test_module_calls_the_function_with_its_centers():
    loss, y = DFACCLoss(3, 5, margin=1.1, inter_weight=0.3), torch.randn(4, 5)
    assert torch.equal(loss(y, LABELS), dfacc_loss(y, LABELS, loss.centers, margin=1.1, inter_weight=0.3))
    assert repr(loss) == "DFACCLoss(3, 5, margin=1.1, inter_weight=0.3)"


def test_state_dict_and_deepcopy():
    loss, other, y = DFACCLoss(3, 5), DFACCLoss(3, 5), torch.randn(4, 5)
    assert list(loss.state_dict()) == ["centers"]
    other.load_state_dict(loss.state_dict())
    twin = copy.deepcopy(loss)
    assert torch.equal(other(y, LABELS), loss(y, LABELS))
    assert torch.equal(twin(y, LABELS), loss(y, LABELS))
    with torch.no_grad():
        twin.centers.add_(1)
    assert not torch.equal(twin.centers, loss.centers)


def test_centers_start_on_the_sphere_or_the_simplex():
    torch.manual_seed(0)
    sphere = DFACCLoss(2000, 3).centers
    torch.testing.assert_close(sphere.norm(dim=-1), torch.ones(2000))
    torch.testing.assert_close(sphere.mean(0), torch.zeros(3), rtol=0, atol=0.05)
    simplex = DFACCLoss(2000, 3, init="simplex").centers
    assert (simplex > 0).all()
    torch.testing.assert_close(simplex.sum(-1), torch.ones(2000))
    torch.testing.assert_close(simplex.mean(0), torch.full((3,), 1 / 3), rtol=0, atol=0.03)
    # Uniform on the triangle: an even share of it lies in each corner's quarter.
    torch.testing.assert_close((simplex > 0.5).float().mean(0), torch.full((3,), 0.25), rtol=0, atol=0.05)
    assert sphere.is_contiguous()
    assert simplex.is_contiguous()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.zeros(3), LABELS, CENTERS), ShapeError, "embeddings: expected shape (batch, dim), got (3,)"),
        ((torch.zeros(4, 2), LABELS, CENTERS), ShapeError, "embeddings: expected dim = 3, got 2 (shape (4, 2))"),
        ((torch.zeros(0, 3), LABELS, CENTERS), ShapeError, "embeddings: expected batch >= 1, got 0 (shape (0, 3))"),
        (
            (EMBEDDINGS.long(), LABELS, CENTERS),
            DTypeError,
            "embeddings: expected a floating-point dtype, got torch.int64",
        ),
        ((EMBEDDINGS, LABELS[:3], CENTERS), ShapeError, "labels: expected batch = 4, got 3 (shape (3,))"),
        ((EMBEDDINGS, LABELS.int(), CENTERS), DTypeError, "labels: expected torch.int64, got torch.int32"),
        ((EMBEDDINGS * math.nan, LABELS, CENTERS), RangeError, "embeddings: expected finite values, got nan in row 0"),
        ((EMBEDDINGS, LABELS, CENTERS - math.inf), RangeError, "centers: expected finite values, got -inf in row 0"),
        (
            (EMBEDDINGS + 2e19, LABELS, CENTERS),
            RangeError,
            "embeddings: expected a norm below 4.6e+18, whose square torch.float32 holds, got values to 2.0e+19",
        ),
        ((EMBEDDINGS, LABELS + 1, CENTERS), RangeError, "labels: expected values in 0..2, got 1..3"),
        ((EMBEDDINGS, LABELS - 1, CENTERS), RangeError, "labels: expected values in 0..2, got -1..1"),
        ((EMBEDDINGS, LABELS, CENTERS[0]), ShapeError, "centers: expected shape (num_generators, dim), got (3,)"),
        ((EMBEDDINGS, LABELS, CENTERS.int()), DTypeError, "centers: expected a floating-point dtype, got torch.int32"),
    ],
)
def test_rejects(arguments, error, message):
    with pytest.raises(error) as caught:
        dfacc_loss(*arguments)
    assert str(caught.value) == message
    assert isinstance(caught.value, BMRLError)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": -0.1}, "margin: expected >= 0, got -0.1"),
        ({"inter_weight": -1.0}, "inter_weight: expected >= 0, got -1.0"),
        ({"margin": math.nan}, "margin: expected >= 0, got nan"),
        ({"chunk_rows": 0}, "chunk_rows: expected an integer >= 1, got 0"),
    ],
)
def test_rejects_options(options, message):
    with pytest.raises(RangeError) as caught:
        dfacc_loss(EMBEDDINGS, LABELS, CENTERS, **options)
    assert str(caught.value) == message
    with pytest.raises(RangeError) as caught:
        DFACCLoss(3, 3, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, 3), {}, "num_generators: expected an integer >= 1, got 0"),
        ((3, 0), {}, "embed_dim: expected an integer >= 1, got 0"),
        ((3, 3), {"chunk_rows": 0}, "chunk_rows: expected an integer >= 1, got 0"),
        ((3, 3), {"init": "ball"}, "init: expected 'sphere' or 'simplex', got 'ball'"),
    ],
)
def test_module_rejects(arguments, options, message):
    with pytest.raises(RangeError) as caught:
        DFACCLoss(*arguments, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize("chunk_rows", [None, 1, 2])
def test_related_samples_a_margin_apart_are_left_alone(chunk_rows):
    # The gradient of max(d - m, 0) at d = m is 0, in chunks as in the dense form; a little beyond it is not.
    labels, centers = torch.tensor([0, 1]), torch.tensor([[0.0, 0.0], [0.25, 0.0]])
    for distance, moves in ((0.5, False), (0.75, True)):
        embeddings = torch.tensor([[0.0, 0.0], [distance, 0.0]], requires_grad=True)
        inter = dfacc_terms(embeddings, labels, centers, margin=0.5, chunk_rows=chunk_rows).inter
        (gradient,) = torch.autograd.grad(inter, embeddings)
        assert inter.item() == distance - 0.5
        assert gradient.any().item() == moves


@pytest.mark.parametrize("chunk_rows", [None, 1])
def test_centers_a_margin_apart_are_not_related(chunk_rows):
    labels, centers = torch.tensor([0, 1]), torch.tensor([[0.0, 0.0], [0.5, 0.0]])
    embeddings = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    assert dfacc_terms(embeddings, labels, centers, margin=0.5, chunk_rows=chunk_rows).inter.item() == -2
    assert dfacc_terms(embeddings, labels, centers, margin=0.75, chunk_rows=chunk_rows).inter.item() == 1.25
