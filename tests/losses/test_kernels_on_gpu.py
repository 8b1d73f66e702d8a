"""What only a GPU can show of the kernels of the DFACC pair term: the sizes of real use, memory, compiled programs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bmrl.losses import dfacc_loss, dfacc_terms

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def random_batch(batch: int, dim: int, num_generators: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Unit vectors with a near-duplicate and a coincident pair, labels, and centers of which some are related."""
    rng = torch.Generator(device="cuda").manual_seed(0)
    y = F.normalize(torch.randn(batch, dim, device="cuda", generator=rng), dim=-1)
    if batch > 4:
        y[1] = y[0]
        y[3] = y[2] + 1e-5
    centers = F.normalize(torch.randn(num_generators, dim, device="cuda", generator=rng), dim=-1)
    centers[1::2] *= 0.1
    return y.requires_grad_(), torch.arange(batch, device="cuda") % num_generators, centers


def assert_equals_float64(y: torch.Tensor, labels: torch.Tensor, centers: torch.Tensor) -> None:
    inter = dfacc_terms(y, labels, centers).inter
    (gradient,) = torch.autograd.grad(inter, y)
    exact = y.detach().double().requires_grad_()
    expected = dfacc_terms(exact, labels, centers.double(), chunk_rows=256).inter
    (wanted,) = torch.autograd.grad(expected, exact)
    torch.testing.assert_close(inter.double(), expected, rtol=1e-5, atol=1e-6)
    # A row sums at most batch - 1 unit vectors, each weighed by 2 / (batch * (batch - 1)).
    torch.testing.assert_close(gradient.double(), wanted, rtol=0, atol=2e-5 / len(y))


@pytest.mark.parametrize(("batch", "dim"), [(1, 1), (2, 3), (33, 7), (257, 130), (1024, 128), (4096, 512), (9001, 64)])
def test_equals_aten_in_float64(batch, dim):
    assert_equals_float64(*random_batch(batch, dim))


def test_compiled_code_runs_the_kernels():
    y, labels, centers = random_batch(1024, 128)
    compiled = torch.compile(dfacc_loss, fullgraph=True)
    results = compiled(y, labels, centers), dfacc_loss(y, labels, centers)
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(*(torch.autograd.grad(result, y)[0] for result in results), rtol=1e-6, atol=1e-9)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        compiled(y, labels, centers)
    names = {event.key for event in profile.key_averages()}
    assert {"pair_weights_kernel", "weighted_differences_kernel"} <= names


def test_memory_grows_with_the_batch_alone():
    def peak(batch: int) -> int:
        y, labels, centers = random_batch(batch, 512)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        dfacc_loss(y, labels, centers).backward()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    peak(64)  # compiles, and allocates what stays
    embeddings, scratch = 4 * 512, 64 * 2**20
    for batch in (1024, 4096, 16384):
        assert peak(batch) <= scratch + 10 * batch * embeddings


def test_runs_give_the_same_bits():
    y, labels, centers = random_batch(4096, 512)
    runs = [dfacc_loss(y, labels, centers) for _ in range(2)]
    assert torch.equal(*runs)
    assert torch.equal(*(torch.autograd.grad(run, y)[0] for run in runs))


def test_captured_in_a_cuda_graph():
    y, labels, centers = random_batch(300, 64)
    expected = dfacc_loss(y, labels, centers)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        actual = dfacc_loss(y, labels, centers)
    graph.replay()
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_runs_on_the_device_of_its_tensors():
    y, labels, centers = (tensor.to("cuda:1") for tensor in random_batch(64, 16))
    torch.testing.assert_close(dfacc_loss(y, labels, centers), dfacc_loss(y, labels, centers, chunk_rows=64))
