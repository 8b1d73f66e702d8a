"""The kernels of the DFACC pair term against eq. 6-7 in Python floats: on a GPU, or through Triton's interpreter."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import textwrap

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from bmrl.losses import DFACCLoss, _dfacc_pairs, dfacc_loss, dfacc_terms
from bmrl.losses._triton import launch
from bmrl.losses._triton.pairs import COLUMNS, WARPS, pair_weights_kernel, weighted_differences_kernel

pytestmark = pytest.mark.slow

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# What sums of float32 terms may differ by, relative to the sum of their sizes.
EPS = 16 * torch.finfo(torch.float32).eps
RELATED = {
    "unrelated": lambda labels: torch.zeros(labels, labels, dtype=torch.bool),
    "related": lambda labels: torch.ones(labels, labels, dtype=torch.bool),
    "mixed": lambda labels: torch.arange(labels)[:, None] % 2 == torch.arange(labels) % 2,
}


@pytest.fixture
def run_kernels(monkeypatch):
    """Send every batch that kernels take to them, on any device."""
    monkeypatch.setattr(_dfacc_pairs, "runs_kernels", lambda y, dtypes: y.dtype in dtypes)


def oracle(y: Tensor, labels: Tensor, related: Tensor, margin: float) -> tuple[float, Tensor, float, Tensor]:
    """Sum and gradient, pair by pair in Python floats; and what both would be if no terms cancelled."""
    points, k = y.double().tolist(), labels.tolist()
    batch, dim = y.shape
    total = size = 0.0
    gradient, sizes = ([[0.0] * dim for _ in range(batch)] for _ in range(2))
    for u, v in itertools.combinations(range(batch), 2):
        distance = math.dist(points[u], points[v])
        if k[u] == k[v]:
            continue
        if related[k[u], k[v]]:
            value, slope = max(distance - margin, 0.0), float(distance > margin)
        else:
            value, slope = -distance, -1.0
        total += value
        size += distance
        if distance == 0:
            continue
        for axis in range(dim):
            part = slope * (points[u][axis] - points[v][axis]) / distance
            gradient[u][axis] += part
            gradient[v][axis] -= part
            sizes[u][axis] += abs(part)
            sizes[v][axis] += abs(part)
    return total, torch.tensor(gradient).double(), size, torch.tensor(sizes).double()


def assert_equals_oracle(y: Tensor, labels: Tensor, related: Tensor, margin: float) -> None:
    expected, wanted, size, sizes = oracle(y, labels, related, margin)
    arguments = y.to(DEVICE), labels.to(DEVICE), related.to(DEVICE), margin
    total, gradient = launch.sum_of_pairs(*arguments, True)
    assert (total.shape, gradient.shape) == ((), y.shape)
    assert total.dtype == gradient.dtype == torch.float32
    assert abs(total.item() - expected) <= EPS * size
    assert ((gradient.cpu().double() - wanted).abs() <= EPS * sizes).all()
    alone, nothing = launch.sum_of_pairs(*arguments, False)
    assert nothing.numel() == 0
    assert abs(alone.item() - expected) <= EPS * size


def random_batch(batch: int, dim: int, num_generators: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(batch, dim, generator=rng), torch.randint(num_generators, (batch,), generator=rng)


@pytest.mark.parametrize("related", RELATED)
@pytest.mark.parametrize("dim", [1, 3, 33])
@pytest.mark.parametrize("batch", [1, 2, 17, 40])
def test_equals_definition(batch, dim, related):
    y, labels = random_batch(batch, dim, 4)
    assert_equals_oracle(y, labels, RELATED[related](4), 0.6 * math.sqrt(2 * dim))


@settings(max_examples=15)
@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 5), st.sampled_from([0.0, 0.7, 3.0]), st.integers(0, 2**31)
)
def test_any_size(batch, dim, num_generators, margin, seed):
    y, labels = random_batch(batch, dim, num_generators, seed)
    y = (2 * y).round() / 2 if seed % 2 else y  # on a grid, where points coincide and distances meet the margin
    related = torch.rand(num_generators, num_generators, generator=torch.Generator().manual_seed(seed)) < 0.5
    assert_equals_oracle(y, labels, related | related.mT, margin)


def test_no_dimensions():
    total, gradient = launch.sum_of_pairs(
        torch.empty(3, 0, device=DEVICE),
        torch.arange(3, device=DEVICE),
        RELATED["unrelated"](3).to(DEVICE),
        0.0,
        True,
    )
    assert total.item() == 0
    assert gradient.shape == (3, 0)


@pytest.mark.parametrize("height", [2, 8])
def test_chunks_shares_and_several_tiles(height, monkeypatch):
    # 270 points in three chunks of rows, and 130 dims in two tiles; in both shapes of tiles.
    monkeypatch.setattr(launch, "_SCRATCH", 1)
    if height == 8:
        monkeypatch.setattr(launch, "_PROGRAMS", 2)
    launches = []
    kernel = launch.pair_weights_kernel

    class Counting:
        def __getitem__(self, grid):
            launches.append(grid)
            return kernel[grid]

    monkeypatch.setattr(launch, "pair_weights_kernel", Counting())
    assert_equals_oracle(*random_batch(270, 3, 3), RELATED["mixed"](3), 2.0)
    assert launches == [(384 // (8 * height), 1)] * 6  # three chunks, with and without gradient
    assert_equals_oracle(*random_batch(20, 130, 3), RELATED["mixed"](3), 16.0)


def test_layouts():
    y, labels = random_batch(9, 6, 3)
    related = RELATED["mixed"](3)
    expected = launch.sum_of_pairs(y.to(DEVICE), labels.to(DEVICE), related.to(DEVICE), 0.5, True)
    transposed = y.mT.contiguous().mT.to(DEVICE)
    apart = torch.stack((labels, labels), dim=1)[:, 0].to(DEVICE)
    actual = launch.sum_of_pairs(transposed, apart, related.mT.contiguous().mT.to(DEVICE), 0.5, True)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


@pytest.mark.parametrize("related", RELATED)
def test_pairs_of_one_generator_do_not_count(related):
    y, _ = random_batch(20, 3, 1)
    total, gradient = launch.sum_of_pairs(
        y.to(DEVICE), torch.ones(20, dtype=torch.int64, device=DEVICE), RELATED[related](2).to(DEVICE), 0.0, True
    )
    assert total.item() == 0
    assert not gradient.any()


@pytest.mark.parametrize("related", RELATED)
def test_coincident_points_have_no_gradient(related):
    y, labels = torch.full((6, 3), 0.3, device=DEVICE), torch.arange(6, device=DEVICE) % 3
    for margin in (0.0, 0.7):
        total, gradient = launch.sum_of_pairs(y, labels, RELATED[related](3).to(DEVICE), margin, True)
        assert total.item() == 0
        assert torch.equal(gradient, torch.zeros_like(y))


def test_a_distance_of_the_margin_has_no_gradient():
    y = torch.tensor([[0.0, 0.0], [3.0, 4.0], [30.0, 40.0]], device=DEVICE)
    labels, related = torch.arange(3, device=DEVICE), RELATED["related"](3).to(DEVICE)
    total, gradient = launch.sum_of_pairs(y[:2], labels[:2], related, 5.0, True)
    assert total.item() == 0
    assert not gradient.any()
    total, gradient = launch.sum_of_pairs(y, labels, related, 45.0, True)  # the distance of the last two points
    assert total.item() == 5
    torch.testing.assert_close(gradient.cpu(), torch.tensor([[-0.6, -0.8], [0.0, 0.0], [0.6, 0.8]]))


def test_near_duplicates_are_exact():
    # Rows 1e-4 apart, of norm 8: by matrix products nothing would be left of their distances.
    y = torch.ones(40, 64) + 1e-4 * torch.eye(64)[:40]
    labels, unrelated = torch.arange(40) % 2, RELATED["unrelated"](2)
    expected, wanted, _, sizes = oracle(y, labels, unrelated, 0.0)
    arguments = y.to(DEVICE), labels.to(DEVICE), unrelated.to(DEVICE), 0.0
    total, gradient = launch.sum_of_pairs(*arguments, True)
    assert abs(total.item() / expected - 1) < 1e-5
    assert ((gradient.cpu().double() - wanted).abs() <= EPS * sizes).all()
    # Each distance, by itself.
    for other in range(1, 6):
        pair = torch.tensor([0, other])
        total, _ = launch.sum_of_pairs(
            y[pair].to(DEVICE), torch.arange(2, device=DEVICE), unrelated.to(DEVICE), 0.0, True
        )
        distance = math.dist(y[0].double().tolist(), y[other].double().tolist())
        assert abs(-total.item() / distance - 1) < 1e-5


@pytest.mark.parametrize("related", ["unrelated", "related"])
def test_not_a_number_stays_visible(related):
    y, labels = random_batch(6, 3, 2)
    labels = torch.arange(6) % 2
    y[2, 1] = math.nan
    arguments = y.to(DEVICE), labels.to(DEVICE), RELATED[related](2).to(DEVICE), 0.5
    for with_gradient in (True, False):
        total, gradient = launch.sum_of_pairs(*arguments, with_gradient)
        assert total.isnan()
    assert gradient.numel() == 0
    assert launch.sum_of_pairs(*arguments, True)[1][2].isnan().all()


def test_runs_give_the_same_bits():
    y, labels = (tensor.to(DEVICE) for tensor in random_batch(150, 5, 3))
    related = RELATED["mixed"](3).to(DEVICE)
    first, second = (launch.sum_of_pairs(y, labels, related, 0.7, True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.fixture
def far_rows():
    """Make ``(rows, columns)`` whose elements are further apart than 32 bits count; a CPU reserves that alone."""
    if DEVICE == "cuda":
        pytest.skip("takes memory that a CPU reserves only")

    def make(rows: int, columns: int) -> Tensor:
        stride = 2**31 // (rows - 1) + 1
        return torch.empty(stride * (rows - 1) + columns).as_strided((rows, columns), (stride, 1))

    return make


def test_weights_that_are_further_apart_than_32_bits_count(far_rows):
    batch = COLUMNS.value
    y, labels = random_batch(batch, 2, 3)
    transposed, weights = far_rows(3, batch), far_rows(batch, batch)
    transposed[:2] = y.mT
    transposed[2] = 1  # where sums begin: not at zero, so that a stray load is seen
    tiles = batch // (WARPS.value * 2)
    partials = torch.empty(tiles, 1)
    pair_weights_kernel[(tiles, 1)](
        transposed,
        labels,
        torch.zeros(3, 3, dtype=torch.uint8),
        weights,
        partials,
        0.0,
        batch,
        2,
        transposed.stride(0),
        0,
        weights.stride(0),
        3,
        PER_THREAD=2,
        UNROLL=1,
        GRADIENT=True,
    )
    distances = (1 + (y[:, None].double() - y.double()).square().sum(-1)).sqrt()
    pairs = labels[:, None] != labels
    torch.testing.assert_close(partials.sum().double(), -(distances * pairs).sum() / 2, rtol=1e-6, atol=0.0)
    torch.testing.assert_close(weights.double(), -1.0 * pairs / distances, rtol=1e-6, atol=0.0)


def test_points_that_are_further_apart_than_32_bits_count(far_rows):
    batch = COLUMNS.value
    y = random_batch(batch, batch, 1)[0]
    near = torch.randn(batch, batch, generator=torch.Generator().manual_seed(1))
    points, weights, parts = (far_rows(batch, batch) for _ in range(3))
    points.copy_(y)
    weights.copy_(near)  # (v, u)
    stride = points.stride(0)
    weighted_differences_kernel[(batch // (WARPS.value * 2), 1, 1)](
        points, weights, parts, batch, batch, stride, 0, stride, PER_THREAD=2, UNROLL=1
    )
    y, near = y.double(), near.double()
    expected = near.sum(0)[:, None] * y - near.mT @ y
    torch.testing.assert_close(parts.double(), expected, rtol=0.0, atol=EPS * 100)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_loss_runs_them(tolerance, run_kernels, dtype):
    y, labels = random_batch(30, 5, 3)
    leaves = [tensor.to(DEVICE, dtype).requires_grad_() for tensor in (y, torch.randn(3, 5))]
    labels = labels.to(DEVICE)
    results = [dfacc_loss(leaves[0], labels, leaves[1], margin=2.0, chunk_rows=size) for size in (None, 30)]
    assert results[0].dtype == torch.float32
    torch.testing.assert_close(*results, **tolerance(torch.float32, 10))
    gradients = [torch.autograd.grad(3 * result, leaves, retain_graph=True) for result in results]
    assert gradients[0][0].dtype == dtype
    torch.testing.assert_close(*gradients, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)
    with torch.no_grad():
        alone = dfacc_loss(leaves[0], labels, leaves[1], margin=2.0)
    torch.testing.assert_close(alone, results[0].detach())


def test_they_have_no_second_derivative(run_kernels):
    y, labels = (tensor.to(DEVICE) for tensor in random_batch(8, 3, 3))
    y.requires_grad_()
    (gradient,) = torch.autograd.grad(
        dfacc_terms(y, labels, torch.zeros(3, 3, device=DEVICE)).inter, y, create_graph=True
    )
    message = "chunk_rows: expected at least the batch for a second derivative"
    with pytest.raises(RuntimeError, match=message):
        gradient.square().sum().backward()


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_without_a_graph_break(tolerance, run_kernels, backend):
    loss = DFACCLoss(3, 5).to(DEVICE)
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    for batch in (20, 33, 150):  # the second compilation may take any batch
        y, labels = (tensor.to(DEVICE) for tensor in random_batch(batch, 5, 3))
        leaves = y.requires_grad_(), loss.centers
        results = compiled(y, labels), loss(y, labels)
        torch.testing.assert_close(*results, **tolerance(torch.float32, 10))
        torch.testing.assert_close(*(torch.autograd.grad(result, leaves) for result in results))


def test_passes_opcheck():
    y, labels = (tensor.to(DEVICE) for tensor in random_batch(20, 5, 3))
    for with_gradient in (True, False):
        arguments = (y, labels, RELATED["mixed"](3).to(DEVICE), 0.7, with_gradient)
        torch.library.opcheck(torch.ops.bmrl.dfacc_pairs.default, arguments)


class Operators(TorchDispatchMode):
    """Remembers the names of operators that run."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.name())
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("dtype", "options", "expected"),
    [
        (torch.float32, {}, True),
        (torch.float16, {}, True),
        (torch.bfloat16, {}, True),
        (torch.float64, {}, False),
        (torch.float32, {"chunk_rows": 8}, False),
        (torch.float32, {"chunk_rows": 4}, False),
    ],
)
def test_which_batches_reach_them(dtype, options, expected):
    with FakeTensorMode(), Operators() as operators:  # a CUDA tensor without CUDA
        y, centers = torch.randn(8, 3, device="cuda", dtype=dtype), torch.randn(3, 3, device="cuda", dtype=dtype)
        loss = dfacc_loss(y, torch.zeros(8, dtype=torch.int64, device="cuda"), centers, **options)
    assert loss.device.type == "cuda"
    assert ("bmrl::dfacc_pairs" in operators.names) == expected
    assert ("aten::_pdist_forward" in operators.names) != expected


def test_memory_is_linear_in_the_batch():
    # The largest tensor that a batch needs, in elements, without data.
    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            elements.append(result.numel() if isinstance(result, Tensor) else 0)
            return result

    class NoKernel:
        def __getitem__(self, grid):
            return lambda *args, **options: None

    with pytest.MonkeyPatch.context() as patch:
        for name in ("pair_weights_kernel", "weighted_differences_kernel"):
            patch.setattr(launch, name, NoKernel())
        for batch in (1024, 4096, 2**15, 2**17):
            elements: list[int] = []
            y, labels = torch.empty(batch, 512, device="meta"), torch.empty(batch, dtype=torch.int64, device="meta")
            with Largest():
                launch.sum_of_pairs(y, labels, torch.empty(3, 3, dtype=torch.bool, device="meta"), 0.7, True)
            assert max(elements) <= max(2**22, batch * 513)


def test_works_where_triton_is_not_installed():
    script = """
        import sys
        sys.modules["triton"] = None  # an import of it fails from here on
        import torch
        from bmrl.losses import dfacc_loss
        y = torch.rand(5, 3, requires_grad=True)
        dfacc_loss(y, torch.arange(5) % 2, torch.rand(2, 3)).backward()
        assert y.grad.isfinite().all()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=120)


def test_is_loaded_by_the_compiler_too():
    # The first batch on a GPU may meet a compiled loss.
    script = """
        import sys
        import torch
        from bmrl.losses import _dfacc_pairs, dfacc_loss
        _dfacc_pairs.runs_kernels = lambda y, dtypes: True
        assert "bmrl.losses._triton" not in sys.modules
        torch.compile(dfacc_loss, fullgraph=True, backend="aot_eager")(
            torch.rand(5, 3), torch.arange(5) % 2, torch.rand(2, 3)
        )
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=240)
