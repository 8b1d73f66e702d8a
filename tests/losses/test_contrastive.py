from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bmrl.errors import BMRLError, DTypeError, RangeError, ShapeError
from bmrl.losses import CMCLoss, CPCLoss, _contrastive_pairs, contrastive_loss

EXAMPLES = settings(deadline=None, max_examples=40)
ROWS = torch.zeros(4, 3)


def cosine(a, b):
    norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms if norms else 0.0


def oracle(visual, paired, temperature=0.07, labels=None, gate=None, mask=None):
    """Eq. 8-11 in Python floats: labels mean the targets of "same_label"; masked rows are left out beforehand."""
    rows = [u for u in range(len(visual)) if mask is None or mask[u]]
    if not rows:
        return 0.0
    visual, paired = visual.tolist(), paired.tolist()

    def similarity(u, v):
        attention = 1.0 if gate is None else 1 / (1 + math.exp(-gate[u][v].item()))
        return attention * cosine(visual[u], paired[v]) / temperature

    total = 0.0
    for u in rows:
        positives = [v for v in rows if (u == v if labels is None else labels[u] == labels[v])]
        norm_there = sum(math.exp(similarity(u, n)) for n in rows)
        norm_back = sum(math.exp(similarity(n, u)) for n in rows)
        for v in positives:
            total -= math.log(math.exp(similarity(u, v)) / norm_there) / len(positives)
            total -= math.log(math.exp(similarity(v, u)) / norm_back) / len(positives)
    return total / (2 * len(rows))


@st.composite
def pairs(draw):
    """Two float64 batches of one shape; on the grid, rows often repeat or are zero."""
    shape = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    visual, paired = (torch.randn(*shape, generator=rng, dtype=torch.float64) for _ in range(2))
    return (visual.round(), paired.round()) if draw(st.booleans()) else (visual, paired)


temperatures = st.sampled_from([0.07, 0.01, 1.0, 5.0])


@EXAMPLES
@given(pairs(), temperatures)
def test_equals_definition(tolerance, case, temperature):
    loss = contrastive_loss(*case, temperature=temperature).item()
    torch.testing.assert_close(loss, oracle(*case, temperature), **tolerance(torch.float64, 100))


@EXAMPLES
@given(pairs(), temperatures, st.data())
def test_options_equal_definition(tolerance, case, temperature, data):
    batch = len(case[0])
    labels = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=batch, max_size=batch)))
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=batch, max_size=batch)))
    gate = torch.randn(batch + 2, batch + 1, dtype=torch.float64)
    options = {"gate": gate, "mask": mask, "temperature": temperature}
    near = tolerance(torch.float64, 100)
    loss = contrastive_loss(*case, labels, targets="same_label", **options).item()
    torch.testing.assert_close(loss, oracle(*case, labels=labels, **options), **near)
    torch.testing.assert_close(contrastive_loss(*case, labels, **options).item(), oracle(*case, **options), **near)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("autocast", [False, True])
def test_dtypes(tolerance, dtype, autocast):
    rng = torch.Generator().manual_seed(1)
    visual, paired = (torch.randn(6, 7, generator=rng).to(dtype).requires_grad_() for _ in range(2))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = contrastive_loss(visual, paired)
    loss.backward()
    assert loss.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(loss.item(), oracle(visual.detach(), paired.detach()), **tolerance(dtype, 20))
    assert visual.grad.dtype == paired.grad.dtype == dtype


def test_gradcheck():
    visual, paired = (torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    gate = torch.randn(5, 5, dtype=torch.float64, requires_grad=True)
    temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    mask, labels = torch.tensor([True, True, False, True]), torch.tensor([0, 1, 1, 0])

    def loss(visual, paired, gate, temperature):
        plain = contrastive_loss(visual, paired, temperature=temperature)
        options = {"targets": "same_label", "gate": gate, "mask": mask}
        return plain, contrastive_loss(visual, paired, labels, temperature=temperature, **options)

    assert torch.autograd.gradcheck(loss, (visual, paired, gate, temperature))


@EXAMPLES
@given(pairs(), temperatures, st.integers(1, 6), st.data())
def test_chunks_equal_definition_and_the_gradient_of_the_dense_form(tolerance, case, temperature, chunk_rows, data):
    batch = len(case[0])
    labels = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=batch, max_size=batch)))
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=batch, max_size=batch)))
    gate = torch.randn(batch + 2, batch + 1, dtype=torch.float64, requires_grad=True)
    options = {
        "gate": gate if data.draw(st.booleans()) else None,
        "mask": mask if data.draw(st.booleans()) else None,
    }
    targets = data.draw(st.sampled_from(["diagonal", "same_label"]))
    scale = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
    leaves = *(rows.requires_grad_() for rows in case), scale, gate

    def loss(chunk_rows):
        return contrastive_loss(
            *leaves[:2], labels, targets=targets, temperature=scale, chunk_rows=chunk_rows, **options
        )

    expected = oracle(*case, temperature, labels=labels if targets == "same_label" else None, **options)
    torch.testing.assert_close(loss(chunk_rows).item(), expected, **tolerance(torch.float64, 100))
    got, wanted = (
        torch.autograd.grad(3 * loss(size), leaves, allow_unused=True, materialize_grads=True)
        for size in (chunk_rows, batch)
    )
    torch.testing.assert_close(got, wanted, **tolerance(torch.float64, 1000))


@pytest.mark.parametrize("targets", ["diagonal", "same_label"])
def test_large_batches_are_cut_into_chunks(tolerance, targets):
    visual, paired = (torch.randn(1500, 5, requires_grad=True) for _ in range(2))
    labels, near = torch.arange(1500) % 7, tolerance(torch.float32, 20)
    results = [contrastive_loss(visual, paired, labels, targets=targets, chunk_rows=size) for size in (None, 1500)]
    torch.testing.assert_close(*results, **near)
    gradients = [torch.autograd.grad(result, (visual, paired), create_graph=True) for result in results]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-8)
    with torch.no_grad():
        torch.testing.assert_close(contrastive_loss(visual, paired, labels, targets=targets), results[0])
    gradients[1][0].sum().backward()
    with pytest.raises(RuntimeError, match="chunk_rows"):  # so these are chunks
        gradients[0][0].sum().backward()


def test_chunks_have_no_second_derivative():
    def loss(visual):
        return contrastive_loss(visual, torch.eye(4), chunk_rows=2)

    visual = torch.randn(4, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(visual), visual, create_graph=True)
    torch.testing.assert_close(torch.func.grad(loss)(visual.detach()), gradient)
    message = "chunk_rows: expected at least the batch for a second derivative"
    with pytest.raises(RuntimeError, match=message):
        gradient.square().sum().backward()
    with pytest.raises(RuntimeError, match=message):
        torch.func.grad(lambda rows: torch.func.grad(loss)(rows).square().sum())(visual.detach())


@pytest.mark.parametrize("chunk_rows", [200, 500])
def test_losses_near_zero_keep_their_digits(chunk_rows):
    # Every partner matches and all others are orthogonal: 1e-6. A sum of exponentials near 1 keeps that to some
    # roundings of 1; log-sum-exps of 20 are 2e-6 apart.
    loss = contrastive_loss(torch.eye(500), torch.eye(500), temperature=0.05, chunk_rows=chunk_rows)
    eps = torch.finfo(torch.float32).eps
    torch.testing.assert_close(loss.item(), math.log1p(499 * math.exp(-20)), rtol=0, atol=2 * eps)


@EXAMPLES
@given(pairs(), temperatures)
def test_symmetric_and_not_negative(tolerance, case, temperature):
    visual, paired = case
    loss = contrastive_loss(visual, paired, temperature=temperature)
    assert loss.item() >= 0
    swapped = contrastive_loss(paired, visual, temperature=temperature)
    torch.testing.assert_close(swapped, loss, **tolerance(torch.float64, 100))


@EXAMPLES
@given(pairs(), st.integers(0, 2**32 - 1), st.sampled_from([1e-6, 3.0, 1e6]))
def test_scale_and_rotation_do_not_matter(tolerance, case, seed, scale):
    visual, paired = case
    rng = torch.Generator().manual_seed(seed)
    square = torch.randn(visual.shape[1], visual.shape[1], generator=rng, dtype=torch.float64)
    rotation = torch.linalg.qr(square).Q
    loss = contrastive_loss(visual, paired)
    row_scales = scale * torch.rand(len(visual), 1, generator=rng, dtype=torch.float64).add(0.1)
    moved = contrastive_loss(row_scales * visual @ rotation, paired @ rotation)
    torch.testing.assert_close(moved, loss, **tolerance(torch.float64, 1000))


@EXAMPLES
@given(pairs(), st.randoms(use_true_random=False), st.data())
def test_order_of_the_batch_does_not_matter(tolerance, case, random, data):
    visual, paired = case
    batch = len(visual)
    labels = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=batch, max_size=batch)))
    order = list(range(batch))
    random.shuffle(order)
    for targets in ("diagonal", "same_label"):
        moved = contrastive_loss(visual[order], paired[order], labels[order], targets=targets)
        expected = contrastive_loss(visual, paired, labels, targets=targets)
        torch.testing.assert_close(moved, expected, **tolerance(torch.float64, 100))


@pytest.mark.parametrize("targets", ["diagonal", "same_label"])
@pytest.mark.parametrize("batch", [1, 2, 32])
def test_log_batch_for_uninformative_rows(targets, batch):
    labels = torch.arange(batch) % 3
    loss = contrastive_loss(torch.ones(batch, 5), torch.ones(batch, 5), labels, targets=targets)
    torch.testing.assert_close(loss.item(), math.log(batch), rtol=1e-5, atol=1e-5)


def test_same_label_of_distinct_labels_is_the_diagonal():
    visual, paired = torch.randn(5, 4), torch.randn(5, 4)
    same = contrastive_loss(visual, paired, torch.arange(5), targets="same_label")
    torch.testing.assert_close(same, contrastive_loss(visual, paired), rtol=0, atol=0)


@pytest.mark.parametrize("targets", ["diagonal", "same_label"])
def test_mask_equals_leaving_the_rows_out(tolerance, targets):
    visual, paired = (torch.randn(6, 4, requires_grad=True) for _ in range(2))
    labels, mask = torch.tensor([0, 1, 0, 1, 0, 1]), torch.tensor([True, False, True, True, False, True])
    masked = contrastive_loss(visual, paired, labels, targets=targets, mask=mask)
    chosen = contrastive_loss(visual[mask], paired[mask], labels[mask], targets=targets)
    torch.testing.assert_close(masked, chosen, **tolerance(torch.float32, 10))
    for one, other in zip(
        torch.autograd.grad(masked, (visual, paired)), torch.autograd.grad(chosen, (visual, paired)), strict=True
    ):
        torch.testing.assert_close(one, other, **tolerance(torch.float32, 10))
        assert (one[~mask] == 0).all()


@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize("targets", ["diagonal", "same_label"])
def test_fewer_than_two_rows_left_give_zero(kept, targets):
    loss, visual = CPCLoss(targets=targets), torch.randn(3, 4, requires_grad=True)
    value = loss(visual, torch.randn(3, 4), torch.zeros(3, dtype=torch.int64), mask=torch.arange(3) < kept)
    assert value.item() == 0
    assert all((grad == 0).all() for grad in torch.autograd.grad(value, (visual, loss.log_scale)))


def test_zero_and_equal_rows_have_finite_gradients():
    visual = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]], requires_grad=True)
    paired = torch.zeros(3, 2, requires_grad=True)
    loss = contrastive_loss(visual, paired)
    torch.testing.assert_close(loss.item(), math.log(3), rtol=1e-6, atol=0)
    grads = torch.autograd.grad(loss, (visual, paired))
    assert all(grad.isfinite().all() and grad.abs().max() < 100 for grad in grads)


@EXAMPLES
@given(pairs(), st.sampled_from(["diagonal", "same_label"]), st.integers(1, 6), st.data())
def test_reductions_equal_definition(tolerance, case, targets, chunk_rows, data):
    batch = len(case[0])
    labels = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=batch, max_size=batch)))
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=batch, max_size=batch)))
    options = {"targets": targets, "mask": mask}
    leaves = [rows.requires_grad_() for rows in case]
    mean = oracle(*case, labels=labels if targets == "same_label" else None, mask=mask)
    near = tolerance(torch.float64, 1000)
    for size in (batch, chunk_rows):
        summed, single = (
            contrastive_loss(*leaves, labels, reduction=reduction, chunk_rows=size, **options)
            for reduction in ("sum", "none")
        )
        torch.testing.assert_close(summed.item(), mean * max(int(mask.sum()), 1), **near)
        assert single.shape == (batch,)
        assert (single[~mask] == 0).all()
        torch.testing.assert_close(single.sum(), summed, **near)
    # Each row's loss has its own gradient in chunks as well.
    weights = torch.randn(batch, dtype=torch.float64)
    dense, chunked = (
        torch.autograd.grad(
            contrastive_loss(*leaves, labels, reduction="none", chunk_rows=size, **options) @ weights, leaves
        )
        for size in (batch, chunk_rows)
    )
    torch.testing.assert_close(chunked, dense, **near)


def test_a_row_s_loss_is_the_mean_of_its_two_cross_entropies():
    visual, paired = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    single = contrastive_loss(visual, paired, temperature=1.0, reduction="none").tolist()
    for u, loss in enumerate(single):
        there = [math.exp(cosine(visual[u].tolist(), paired[v].tolist())) for v in range(3)]
        back = [math.exp(cosine(visual[v].tolist(), paired[u].tolist())) for v in range(3)]
        expected = -(math.log(there[u] / sum(there)) + math.log(back[u] / sum(back))) / 2
        assert loss == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e-12, 1e12, 1e20, 1e37])
@pytest.mark.parametrize("looks", [True, False], ids=["values seen", "values unseen"])
def test_any_scale_is_normalized(monkeypatch, dtype, scale, looks):
    visual, paired = (torch.randn(5, 8).clamp(-3, 3).to(dtype) for _ in range(2))
    scaled = (visual * scale).requires_grad_()
    if not looks:  # as on a GPU
        monkeypatch.setattr(_contrastive_pairs, "has_values", lambda tensor: False)
    loss, expected = contrastive_loss(scaled, paired), contrastive_loss(visual, paired)
    rtol = 2 * torch.finfo(torch.float32 if dtype == torch.bfloat16 else dtype).eps
    near = {"rtol": 16 * rtol, "atol": 100 * rtol} if dtype != torch.bfloat16 else {"rtol": 0.02, "atol": 0.02}
    torch.testing.assert_close(loss, expected, **near)  # bfloat16 rounds the scaled rows again
    (gradient,) = torch.autograd.grad(loss, scaled)
    assert gradient.isfinite().all()
    if dtype == torch.float64:
        visual.requires_grad_()
        (wanted,) = torch.autograd.grad(contrastive_loss(visual, paired), visual)
        torch.testing.assert_close(gradient * scale, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("looks", [True, False], ids=["values seen", "values unseen"])
def test_rows_too_small_for_a_direction_count_as_zero(monkeypatch, looks):
    if not looks:
        monkeypatch.setattr(_contrastive_pairs, "has_values", lambda tensor: False)
    visual = torch.full((2, 3), 1e-40, requires_grad=True)
    loss = contrastive_loss(visual, torch.eye(3)[:2])
    torch.testing.assert_close(loss.item(), math.log(2))
    assert torch.autograd.grad(loss, visual)[0].isfinite().all()


@pytest.mark.parametrize("module", [CPCLoss, CMCLoss])
def test_modules_start_at_the_temperature(tolerance, module):
    visual, paired = torch.randn(4, 3), torch.randn(4, 3)
    for options, temperature in (({}, 0.07), ({"temperature": 0.5}, 0.5)):
        loss = module(**options)
        torch.testing.assert_close(loss.log_scale.item(), math.log(1 / temperature))
        torch.testing.assert_close(
            loss(visual, paired).item(), oracle(visual, paired, temperature), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("module", [CPCLoss, CMCLoss])
def test_scale_never_exceeds_100_and_comes_back(module):
    # Two rows so close that even a scale of 100 does not tell them apart: partners that match want a larger one.
    near = torch.tensor([[1.0, 0.0], [math.cos(0.1), math.sin(0.1)]])
    for log_scale in (math.log(100), 7.0, 50.0):
        loss = module()
        with torch.no_grad():
            loss.log_scale.fill_(log_scale)
        matched = loss(near, near)
        (outward,) = torch.autograd.grad(matched, loss.log_scale)
        assert outward.item() == 0
        torch.testing.assert_close(matched.item(), oracle(near, near, 0.01), rtol=1e-5, atol=1e-5)
        # Partners that oppose want a smaller one: the loss is the scale, and so is its gradient.
        worst = loss(torch.eye(2), -torch.eye(2))
        (inward,) = torch.autograd.grad(worst, loss.log_scale)
        torch.testing.assert_close(worst.item(), 100.0)
        torch.testing.assert_close(inward.item(), 100.0)
    with torch.no_grad():
        loss.log_scale.fill_(4.6)  # just below the bound, the same partners do move it
    assert torch.autograd.grad(loss(near, near), loss.log_scale)[0].item() < -0.1


@pytest.mark.parametrize("sign", [1, -1])
def test_scale_gradient_below_the_bound(sign):
    loss = CPCLoss(temperature=1.0).double()
    visual = torch.eye(3, dtype=torch.float64)

    def at(log_scale):
        return contrastive_loss(visual, sign * visual, temperature=math.exp(-log_scale)).item()

    (grad,) = torch.autograd.grad(loss(visual, sign * visual), loss.log_scale)
    torch.testing.assert_close(grad.item(), (at(1e-5) - at(-1e-5)) / 2e-5, rtol=1e-6, atol=1e-9)


def test_pair_attention(tolerance):
    visual, language = torch.randn(3, 4), torch.randn(3, 4)
    loss = CMCLoss(spa_batch_size=5)
    start = oracle(visual, language, 0.14)  # a gate of 0 halves all similarities
    torch.testing.assert_close(loss(visual, language).item(), start, **tolerance(torch.float32, 10))
    with torch.no_grad():
        loss.gate.copy_(torch.randn(5, 5))
    gated = loss(visual, language)
    expected = oracle(visual, language, gate=loss.gate)
    torch.testing.assert_close(gated.item(), expected, **tolerance(torch.float32, 10))
    (grad,) = torch.autograd.grad(gated, loss.gate)
    assert (grad[:3, :3] != 0).all()
    assert (grad[3:] == 0).all()
    assert (grad[:, 3:] == 0).all()
    assert CMCLoss().gate is None


@pytest.mark.parametrize(
    "loss", [CPCLoss(), CPCLoss(targets="same_label"), CMCLoss(spa_batch_size=4)], ids=["cpc", "same_label", "spa"]
)
@pytest.mark.parametrize("chunk_rows", [None, 3], ids=["dense", "chunks"])
def test_compiles_without_graph_breaks(tolerance, loss, chunk_rows):
    loss = copy.deepcopy(loss)
    loss.chunk_rows = chunk_rows
    visual, paired = torch.randn(4, 5, requires_grad=True), torch.randn(4, 5)
    labels = torch.tensor([0, 1, 1, 0])
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")(visual, paired, labels)
    expected = loss(visual, paired, labels)
    torch.testing.assert_close(compiled, expected, **tolerance(torch.float32, 10))
    for one, other in zip(
        torch.autograd.grad(compiled, (visual, loss.log_scale)),
        torch.autograd.grad(expected, (visual, loss.log_scale)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, **tolerance(torch.float32, 10))


@pytest.mark.parametrize("make", [CPCLoss, lambda: CMCLoss(spa_batch_size=6)], ids=["cpc", "cmc"])
def test_state_dict_and_deepcopy(make):
    loss, other = make(), make()
    visual, paired = torch.randn(4, 5), torch.randn(4, 5)
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.copy_(torch.rand_like(parameter))
    assert not torch.equal(other(visual, paired), loss(visual, paired))
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other(visual, paired), loss(visual, paired))
    assert torch.equal(copy.deepcopy(loss)(visual, paired), loss(visual, paired))
    assert all(value.is_contiguous() for value in loss.state_dict().values())


def test_state_dict_names_and_repr():
    assert list(CPCLoss().state_dict()) == ["log_scale"]
    assert list(CMCLoss().state_dict()) == ["log_scale"]
    assert list(CMCLoss(spa_batch_size=2).state_dict()) == ["log_scale", "gate"]
    assert repr(CPCLoss()) == "CPCLoss(targets='diagonal')"
    assert repr(CMCLoss(targets="same_label")) == "CMCLoss(targets='same_label', spa_batch_size=None)"


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((ROWS[0], ROWS), {}, ShapeError, "embeddings: expected shape (batch, dim), got (3,)"),
        ((ROWS[:0], ROWS[:0]), {}, ShapeError, "embeddings: expected batch >= 1, got 0 (shape (0, 3))"),
        ((ROWS.int(), ROWS), {}, DTypeError, "embeddings: expected a floating-point dtype, got torch.int32"),
        ((ROWS, ROWS[0]), {}, ShapeError, "paired_embeddings: expected shape (batch, dim), got (3,)"),
        ((ROWS, ROWS[:2]), {}, ShapeError, "paired_embeddings: expected the shape of embeddings (4, 3), got (2, 3)"),
        ((ROWS, ROWS.bool()), {}, DTypeError, "paired_embeddings: expected a floating-point dtype, got torch.bool"),
        ((ROWS / 0, ROWS), {}, RangeError, "embeddings: expected finite values, got nan in row 0"),
        ((ROWS, 1 / ROWS), {}, RangeError, "paired_embeddings: expected finite values, got inf in row 0"),
        ((ROWS, ROWS), {"chunk_rows": 0}, RangeError, "chunk_rows: expected an integer >= 1, got 0"),
        ((ROWS, ROWS), {"temperature": 0}, RangeError, "temperature: expected > 0, got 0"),
        ((ROWS, ROWS), {"temperature": -1.0}, RangeError, "temperature: expected > 0, got -1.0"),
        (
            (ROWS, ROWS),
            {"targets": "all"},
            RangeError,
            "targets: expected 'diagonal' or 'same_label', got 'all'",
        ),
        (
            (ROWS, ROWS),
            {"reduction": "all"},
            RangeError,
            "reduction: expected 'mean' or 'sum' or 'none', got 'all'",
        ),
        (
            (ROWS, ROWS),
            {"targets": "same_label"},
            DTypeError,
            "labels: expected a torch.Tensor for targets='same_label', got None",
        ),
        (
            (ROWS, ROWS, torch.zeros(3, dtype=torch.int64)),
            {"targets": "same_label"},
            ShapeError,
            "labels: expected batch = 4, got 3 (shape (3,))",
        ),
        (
            (ROWS, ROWS, torch.zeros(4)),
            {"targets": "same_label"},
            DTypeError,
            "labels: expected torch.int64, got torch.float32",
        ),
        (
            (ROWS, ROWS),
            {"gate": torch.zeros(4, 3)},
            ShapeError,
            "gate: expected at least the batch (4, 4), got (4, 3)",
        ),
        ((ROWS, ROWS), {"gate": torch.zeros(4)}, ShapeError, "gate: expected shape (rows, columns), got (4,)"),
        ((ROWS, ROWS), {"mask": torch.ones(4)}, DTypeError, "mask: expected torch.bool, got torch.float32"),
        (
            (ROWS, ROWS),
            {"mask": torch.ones(5, dtype=torch.bool)},
            ShapeError,
            "mask: expected batch = 4, got 5 (shape (5,))",
        ),
    ],
)
def test_rejects(arguments, options, error, message):
    with pytest.raises(error) as caught:
        contrastive_loss(*arguments, **options)
    assert str(caught.value) == message
    assert isinstance(caught.value, BMRLError)


@pytest.mark.parametrize("module", [CPCLoss, CMCLoss])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0}, "temperature: expected > 0, got 0"),
        ({"temperature": 0.005}, "temperature: expected >= 0.01 (1 / temperature is bounded), got 0.005"),
        ({"targets": "all"}, "targets: expected 'diagonal' or 'same_label', got 'all'"),
        ({"chunk_rows": -1}, "chunk_rows: expected an integer >= 1, got -1"),
        ({"reduction": None}, "reduction: expected 'mean' or 'sum' or 'none', got None"),
    ],
)
def test_modules_reject(module, options, message):
    with pytest.raises(RangeError) as caught:
        module(**options)
    assert str(caught.value) == message


def test_pair_attention_rejects():
    with pytest.raises(RangeError, match=r"^spa_batch_size: expected an integer >= 1, got 0$"):
        CMCLoss(spa_batch_size=0)
    with pytest.raises(ShapeError, match=r"^gate: expected at least the batch \(4, 4\), got \(3, 3\)$"):
        CMCLoss(spa_batch_size=3)(ROWS, ROWS)
